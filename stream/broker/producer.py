"""Faust's producer, changed: it is idempotent, and replaced where a broker does not know it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka.errors import InvalidProducerEpoch, KafkaError, OutOfOrderSequenceNumber, UnknownProducerId
from faust.transport.drivers import aiokafka as driver

from stream.broker.batch import LOGGER

log = structlog.get_logger(__name__)

_STATE_LOST = (OutOfOrderSequenceNumber, UnknownProducerId, InvalidProducerEpoch)
"""What a broker answers an idempotent producer whose last records it does not know, as after a power cut."""

_END_TIMEOUT_S = 2.0


class BatchProducer(driver.Producer):
    """An idempotent producer: a try that Kafka takes late cannot stand behind, or instead of, what was sent after it.

    Such a producer numbers its records, and a broker that has lost the last of them refuses all that follow. Then a
    new producer takes over.
    """

    app: Any
    logger = LOGGER

    def __post_init__(self) -> None:
        super().__post_init__()
        self._renewing: asyncio.Task[None] | None = None

    def _settings_auth(self) -> Mapping[str, Any]:
        """Overridden to use the arguments that all clients share."""
        return self.app.client_arguments

    def _settings_extra(self) -> Mapping[str, Any]:
        """Overridden because Faust makes a producer idempotent only inside transactions."""
        return {"enable_idempotence": True}

    async def on_stop(self) -> None:
        """Overridden to bound the end: while Kafka is away, what was not sent stays unsent, and its record undone."""
        await asyncio.wait([asyncio.create_task(super().on_stop())], timeout=_END_TIMEOUT_S)

    async def send(self, *args: Any, **kwargs: Any) -> Any:
        """Overridden to look at the outcome."""
        producer = self._producer
        sent: Any = await super().send(*args, **kwargs)

        def look(sent: asyncio.Future[Any]) -> None:
            lost = not sent.cancelled() and isinstance(sent.exception(), _STATE_LOST)
            if lost and producer is self._producer and not self._renewing:
                log.warning("kafka.new_producer", error=repr(sent.exception()))
                self._renewing = asyncio.ensure_future(self._renew())

        sent.add_done_callback(look)
        return sent

    async def _renew(self) -> None:
        old, new = self._producer, self._new_producer()
        try:
            await new.start()
            self._producer = new
        except KafkaError as error:  # the next record that is refused tries again
            log.warning("kafka.no_new_producer", error=repr(error))
            old = new
        finally:
            self._renewing = None
        if old is not None:
            await old.stop()
