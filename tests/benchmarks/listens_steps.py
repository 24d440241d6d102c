"""What each step of the listens worker costs, one after the other: in the worker they overlap on one thread."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from models.contract import LISTENS
from models.refresh import refresh
from models.release import load_release
from stream.broker.app import batch_app
from stream.broker.publish import Publisher
from stream.listens.agent import usable_tower
from stream.listens.changes import read_changes
from stream.listens.handler import ListenHandler, _parts
from stream.settings import Settings, load_settings
from stream.store.client import async_client
from stream.store.histories import DAY_S, Change, HistoryStore
from stream.store.users import UserStore
from stream.worker.listens import _GC_THRESHOLD

if TYPE_CHECKING:
    from listens_path import Rig

BATCHES, RECORDS = 6, 12_000  # of as many records as the worker takes at a time


class Meter:
    """CPU seconds of this process by step."""

    def __init__(self) -> None:
        self.spent = defaultdict[str, float](float)

    def around(self, step: str, collaborator: Any) -> Any:
        """The collaborator, with the CPU time of its coroutines noted."""
        return _Metered(self, step, collaborator)

    async def call(self, step: str, function: Any, *arguments: Any, **options: Any) -> Any:
        """What the coroutine function gives."""
        began = time.process_time()
        try:
            return await function(*arguments, **options)
        finally:
            self.spent[step] += time.process_time() - began


class _Metered:
    def __init__(self, meter: Meter, step: str, collaborator: Any) -> None:
        self._meter, self._step, self._collaborator = meter, step, collaborator

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._collaborator, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            return await self._meter.call(self._step, function, *arguments, **options)

        return call


def steps(rig: Rig, release: Path) -> dict[str, float]:
    """us of CPU by listen for each step, without reading, on batches as a worker gets them that lags."""
    settings = load_settings(kafka_brokers=rig.kafka.brokers, redis_url=rig.redis.url, release=str(release))
    return asyncio.run(_steps(settings))


async def _steps(settings: Settings) -> dict[str, float]:
    gc.set_threshold(*_GC_THRESHOLD)
    batches = await _batches(settings.kafka.brokers)
    release, meter = load_release(settings.worker.release), Meter()
    tower, client = usable_tower(settings, release), async_client(settings.redis)
    app = batch_app(settings, role="steps", release="none", records_per_fetch=1, turns=1, on_away=lambda _: None)
    async with app.producer:
        handler = ListenHandler(
            release=release.release_id,
            tower=tower,
            histories=meter.around("Redis client", HistoryStore(client, settings.users)),
            users=meter.around("Redis client", UserStore(client, release.release_id, ttl=DAY_S)),
            cold=None,
            publisher=meter.around("Kafka producer", Publisher(app.producer, settings.topics, release="none")),
            future_tolerance_ms=0,
            cluster=False,
        )
        for batch in batches:
            changes = await meter.call("decoding", _changes, batch)
            for part in _parts(changes):
                states = await meter.call("refresh", handler.refresh, part)
                await meter.call("embedding", _embed, tower, states)
    await client.aclose()
    whole = meter.spent.pop("refresh") - meter.spent["Redis client"] - meter.spent["Kafka producer"]
    meter.spent["events and metrics"] = whole - meter.spent["embedding"]
    listens = sum(map(len, batches))
    return {step: 1e6 * seconds / listens for step, seconds in meter.spent.items()}


async def _embed(tower: Any, states: Sequence[Any]) -> None:
    refresh(tower, [state.stored for state in states])


async def _changes(batch: Sequence[ConsumerRecord]) -> Mapping[str, Change]:
    now_ms = time.time_ns() // 1_000_000
    return (await read_changes(batch, now_ms=now_ms, future_tolerance_ms=0, cluster=False)).of_user


async def _batches(brokers: Sequence[str]) -> list[list[ConsumerRecord]]:
    async with AIOKafkaConsumer(
        bootstrap_servers=list(brokers), auto_offset_reset="earliest", max_partition_fetch_bytes=RECORDS * 256
    ) as consumer:
        batches = []
        for partition in range(BATCHES):
            place = TopicPartition(LISTENS, partition)
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            found = await consumer.getmany(place, timeout_ms=10_000, max_records=RECORDS)
            batches.append(cast("list[ConsumerRecord]", found[place]))
        return batches
