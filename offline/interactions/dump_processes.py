"""The partitions of a dump, read side by side: processes that read, and the one that takes what they found.

Decoding events is work for a core, and kafka-python does it in Python, one thread at a time. So each reader is a
process with a consumer of its own. It writes nothing: the process that holds the folder's lock does. A reader that
outlives it finds its pipe closed, and ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Generator, Iterator, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import NamedTuple, cast

from kafka.structs import TopicPartition

from models.errors import TastewaveError
from offline.interactions.dump_folder import DumpFailed, LogFile, Span
from offline.interactions.dump_kafka import Cluster, PartitionReader
from offline.interactions.dump_parquet import log_files

MOST_READERS = 8
"""Processes at a time, on however many cores: each has a file in memory."""

Todo = tuple[TopicPartition, Sequence[Span]]


class Progress(NamedTuple):
    """So many offsets more were read."""

    offsets: int


class Dropped(NamedTuple):
    """Offsets of a partition that retention took away before they were read."""

    place: TopicPartition
    span: Span


Found = LogFile | Progress | Dropped


def read_side_by_side(
    cluster: Cluster, todo: Mapping[TopicPartition, Sequence[Span]], *, events_per_file: int, topic_id: str
) -> Generator[Found, None, None]:
    """What is found in the spans of each partition, as it is found; of one partition in the order of its offsets.

    Args:
        cluster: to read from.
        todo: what to read.
        events_per_file: at most, malformed ones included.
        topic_id: Kafka's, "" where it gives none; kept in the files.

    Raises:
        DumpFailed: Kafka fails, or a reader was killed.
    """
    waiting = sorted(
        ((place, spans) for place, spans in todo.items() if spans),
        key=lambda one: sum(span.end - span.first for span in one[1]),
    )
    readers = min(len(waiting), len(os.sched_getaffinity(0)), MOST_READERS)
    with contextlib.ExitStack() as stack:
        pipes = [stack.enter_context(_reader(cluster, events_per_file, topic_id)) for _ in range(readers)]
        for pipe in pipes:
            pipe.send(waiting.pop())
        while pipes:
            for pipe in cast(list[Connection], wait(pipes)):
                found = _received(pipe)
                if found is not None:
                    yield found
                elif waiting:
                    pipe.send(waiting.pop())
                else:
                    pipes.remove(pipe)


def _received(pipe: Connection) -> Found | None:
    """The next that a reader found; None when it has read all that it was given."""
    try:
        found = pipe.recv()
    except (EOFError, ConnectionError):
        raise DumpFailed(
            "a process that read a partition was killed, perhaps for want of memory; run this again, with a smaller "
            "--events-per-file if it is killed again"
        ) from None
    if isinstance(found, Exception):
        raise found
    return found


@contextlib.contextmanager
def _reader(cluster: Cluster, events_per_file: int, topic_id: str) -> Iterator[Connection]:
    """The pipe to a reader, which is ended with the block."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_read, args=(theirs, cluster, events_per_file, topic_id), daemon=True)
    process.start()
    theirs.close()  # or the end of the reader would not be seen
    try:
        yield ours
    finally:
        process.terminate()
        process.join()
        ours.close()


def _read(pipe: Connection, cluster: Cluster, events_per_file: int, topic_id: str) -> None:
    """What a reader does until it is ended, or the process that started it has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    with contextlib.suppress(EOFError, ConnectionError):
        try:
            _serve(pipe, cluster, events_per_file, topic_id)
        except TastewaveError as error:
            pipe.send(error)


def _serve(pipe: Connection, cluster: Cluster, events_per_file: int, topic_id: str) -> None:
    with cluster.consumer() as consumer:
        while True:
            place, spans = pipe.recv()
            for span in spans:
                reader = PartitionReader(consumer, place, span.first)
                for file in log_files(
                    reader,
                    topic=place.topic,
                    partition=place.partition,
                    span=span,
                    events_per_file=events_per_file,
                    topic_id=topic_id,
                    advance=lambda offsets: pipe.send(Progress(offsets)),
                ):
                    pipe.send(file)
                for gone in reader.dropped:
                    pipe.send(Dropped(place, gone))
            pipe.send(None)
