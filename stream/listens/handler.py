"""The agent for listens: add them to their users' histories, refresh these users, publish where they stand."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar, cast

import numpy as np
from aiokafka.structs import ConsumerRecord

from models.contract import USERS_EMBEDDED
from models.errors import TastewaveError
from models.events import UserEmbedded, encode_event
from models.history import StoredHistory
from models.refresh import Refreshed, embed_newest, read_newest
from models.user_tower import UserTower
from stream import metrics
from stream.broker.publish import Publisher, is_kafka_away
from stream.listens.changes import read_changes
from stream.listens.cold import ColdTracks
from stream.store.away import is_redis_away
from stream.store.histories import Change, HistoryStore, UserState
from stream.store.users import UserStore

AGENT = "listens"
# The users of a large batch go their way in parts: while one is embedded, Redis has another, and Kafka a third. In
# smaller parts, what is fixed in three trips to Redis and a publish costs each user more.
_USERS_OF_A_PART = 1024
# Of all batches. With two, listens are drained more slowly; with all, only memory grows with the users of a batch.
_PARTS_AT_ONCE = 4
# Some 10 ms of the event loop, 80 of a tower with attention. What a forward pass needs stays in the processor's cache.
_EMBEDDED_AT_ONCE = 256

Result_ = TypeVar("Result_")


def server_of(error: BaseException) -> str | None:
    """What is away by this error: redis or kafka; None where nothing is."""
    if is_redis_away(error):
        return "redis"
    return "kafka" if is_kafka_away(error) else None


class ListenHandler:
    """Refreshes the users of a batch of listens; a stream.broker.handlers.BatchHandler.

    A batch is done when its listens are in the histories, each of its users has been embedded anew, what Redis holds of
    them is on the output topic, and what is no listen is a dead letter; Kafka has acknowledged all of it. All of this
    may happen twice: the users of a batch are embedded and published even where it changes no history, since a worker
    may have been killed in between.

    Args:
        release: release_id of the embeddings.
        tower: of that release.
        histories, users: keep it.
        cold: embeddings of tracks that the tower does not know; None where the release has no audio encoder.
        publisher: sends what Redis holds.
        future_tolerance_ms: how far ahead of the clock a listen may be dated.
        cluster: whether Redis is a Cluster.
        now_ms: the clock.
    """

    def __init__(
        self,
        *,
        release: str,
        tower: UserTower,
        histories: HistoryStore,
        users: UserStore,
        cold: ColdTracks | None,
        publisher: Publisher,
        future_tolerance_ms: int,
        cluster: bool,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._release = release
        self._tower = tower
        self._histories = histories
        self._users = users
        self._cold = cold
        self._publisher = publisher
        self._future_tolerance_ms = future_tolerance_ms
        self._cluster = cluster
        self._now_ms = now_ms
        self._turns = asyncio.Semaphore(_PARTS_AT_ONCE)

    def is_away(self, error: BaseException) -> bool:
        """Whether Redis or Kafka is not there now."""
        return server_of(error) is not None

    async def handle_batch(self, records: Sequence[ConsumerRecord]) -> None:
        """Refresh the users of a batch. Raises what is_away knows; any other error is a fault of this program."""
        with metrics.STAGE_SECONDS.labels("events").time():
            changes = await read_changes(
                records, now_ms=self._now_ms(), future_tolerance_ms=self._future_tolerance_ms, cluster=self._cluster
            )
        failed = asyncio.Event()
        states = await _all(self._refresh_in_turn(part, failed) for part in _parts(changes.of_user))
        await _all(self._publisher.dead_letter(record, error) for record, error in changes.refused)  # once, if it waits
        forgotten = sum(state.forgotten for part in states for state in part)
        outdated = sum(state.outdated for part in states for state in part)
        taken = len(records) - len(changes.refused) - changes.excluded - outdated - forgotten
        for outcome, count in {
            "taken": taken, "excluded": changes.excluded, "outdated": outdated, "forgotten": forgotten
        }.items():  # fmt: skip
            metrics.EVENTS.labels(AGENT, outcome, "").inc(count)
        for _, error in changes.refused:
            metrics.EVENTS.labels(AGENT, "refused", error.reason).inc()

    async def give_up(self, record: ConsumerRecord, error: Exception, tries: int) -> None:
        """Dead-letter a record that raised unexpected errors."""
        unforeseen = TastewaveError(f"{type(error).__name__} in each of {tries} tries; see the log of the worker")
        await self._publisher.dead_letter(record, unforeseen, attempts=tries)
        metrics.EVENTS.labels(AGENT, "failed", unforeseen.reason).inc()

    async def refresh(self, changes: Mapping[str, Change]) -> list[UserState]:
        """Add what is new of some users, which may be nothing, and have their embeddings follow.

        Raises what is_away knows; doing it again does no harm.
        """
        with metrics.STAGE_SECONDS.labels("histories").time():
            states = await self._histories.add(changes)
        known = {user_id: state for user_id, state in states.items() if state.stored.members or state.stored.feedback}
        with metrics.STAGE_SECONDS.labels("embed").time():
            refreshed = await self._embed([state.stored for state in known.values()])
        now_ms = self._now_ms()
        embedded = [
            UserEmbedded(
                user_id=user_id,
                release=self._release,
                embedding=tuple(embedding),
                source="history" if of_history else "global",
                listens=listens,
                event_time=event_time,
                revision=state.revision,
                refreshed_at=now_ms,
            )
            for (user_id, state), embedding, of_history, listens, event_time in zip(
                known.items(), *(values.tolist() for values in refreshed), strict=True
            )
        ]
        with metrics.STAGE_SECONDS.labels("users").time():
            held = await self._users.put(embedded)
        with metrics.STAGE_SECONDS.labels("publish").time():
            await self._publish(dict(zip(known, held, strict=True)))
        ended_ms = self._now_ms()
        for source, count in Counter(one.source for one in embedded).items():
            metrics.USERS_REFRESHED.labels(source).inc(count)
        for user_id in known:
            if new := (*changes[user_id].history.values(), *changes[user_id].feedback.values()):
                metrics.LISTEN_TO_EMBEDDING_SECONDS.observe(max(0, ended_ms - max(new)) / 1000)
        return list(states.values())

    async def _refresh_in_turn(self, changes: Mapping[str, Change], failed: asyncio.Event) -> list[UserState]:
        """Refresh the users of a part of a batch, unless another part has failed: the batch is handled again then."""
        async with self._turns:
            if failed.is_set():
                return []
            try:
                return await self.refresh(changes)
            except BaseException:
                failed.set()
                raise

    async def _embed(self, stored: Sequence[StoredHistory]) -> Refreshed:
        """In the event loop: a thread would compete with it for Python's lock, and fewer listens would be drained."""
        parts = list[Refreshed]()
        for begin in range(0, max(1, len(stored)), _EMBEDDED_AT_ONCE):
            newest = read_newest(self._tower, stored[begin : begin + _EMBEDDED_AT_ONCE])
            of_unknown = await self._cold.embeddings(newest.unknown) if self._cold else {}
            parts.append(embed_newest(self._tower, newest, of_unknown))
            await asyncio.sleep(0)
        return Refreshed(*map(np.concatenate, zip(*parts, strict=True)))

    async def _publish(self, held: Mapping[str, UserEmbedded | None]) -> None:
        """Publish until what was published is what Redis holds: another worker may have written in between.

        A user whom Redis does not hold any more was forgotten, and gets an empty value.
        """
        while held:
            records = [(self._key(user_id), encode_event(one) if one else None) for user_id, one in held.items()]
            await self._publisher.send_many(USERS_EMBEDDED, records)
            revisions = await self._users.revisions(list(held))
            changed = [
                user_id
                for (user_id, one), revision in zip(held.items(), revisions, strict=True)
                if revision != (one.revision if one else None)
            ]
            held = dict(zip(changed, await self._users.get(changed), strict=True)) if changed else {}

    def _key(self, user_id: str) -> bytes:
        return f"{self._release}:{user_id}".encode()


async def _all(work: Iterable[Awaitable[Result_]]) -> list[Result_]:
    """The results of all; raises the first error when all have ended, so that nothing goes on behind a batch's back."""
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return cast("list[Result_]", outcomes)


def _parts(changes: Mapping[str, Change]) -> Iterator[dict[str, Change]]:
    """The users in parts."""
    users = iter(changes.items())
    while part := dict(islice(users, _USERS_OF_A_PART)):
        yield part
