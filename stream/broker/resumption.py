"""How records flow again after the consumer group has assigned partitions."""

from __future__ import annotations

from typing import Any

from aiokafka.errors import IllegalStateError, KafkaError
from faust.tables.manager import TableManager
from faust.types import TP

from stream.broker.batch import LOGGER
from stream.broker.consumer import BatchConsumer

_SEEK_AGAIN_S = 1.0


class NoTables(TableManager):
    """Resumes the flow after an assignment. Faust restores its tables first, and here are none.

    Faust's recovery ends for good where the seek to the committed offsets takes longer than a request may: the worker
    holds its partitions and reads nothing. Here the seek takes as long as it takes.
    """

    app: Any
    logger = LOGGER

    async def on_start(self) -> None:
        """Overridden to wait for nothing: Faust gives its tables a second to register."""
        self._tables_finalized.set()
        self._tables_registered.set()

    def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Overridden to do nothing: no changelog is to be flushed."""

    async def wait_until_recovery_completed(self) -> bool:
        """Overridden to wait for nothing."""
        return False

    async def on_rebalance(
        self,
        assigned: set[TP],
        revoked: set[TP],  # noqa: ARG002
        newly_assigned: set[TP],  # noqa: ARG002
        generation_id: int = 0,  # noqa: ARG002
    ) -> None:
        """Overridden to resume the flow in the background: the rebalance ends, whether or not the seek is answered."""
        self.add_future(self._resume(assigned, self.app.rebalancing_count))

    async def _resume(self, assigned: set[TP], rebalance: int) -> None:
        consumer: BatchConsumer = self.app.consumer
        while assigned:
            try:
                await consumer.begin_again()
                break
            except KafkaError as error:
                if rebalance != self.app.rebalancing_count:
                    return
                if not error.retriable and not isinstance(error, IllegalStateError):  # a partition was taken away
                    raise
                await self.sleep(_SEEK_AGAIN_S)
        if rebalance != self.app.rebalancing_count or self.should_stop:
            return  # the next assignment resumes
        consumer.resume_partitions(assigned)
        self.app.flow_control.resume()
        consumer.resume_flow()
        await self.app._fetcher.maybe_start()
        consumer.flows = True
        self.app.on_rebalance_end()
