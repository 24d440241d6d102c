"""`tastewave simulate`: publish what happens on a synthetic platform, in the order in which it happens there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np
from kafka import KafkaConsumer
from kafka.errors import KafkaError
from numpy.typing import NDArray

from models.contract import LISTENS, TRACKS_UPLOADED
from models.errors import SettingsError, TastewaveError
from models.events import Listen, TrackUploaded, encode_event
from stream.broker.operator import DELIVERY_TIMEOUT_S, kafka_client, kafka_producer, partitions_of
from stream.commands.tables import progress_bar
from stream.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

_TURN = 200  # events between two looks at the clock


class SimulationFailed(TastewaveError):
    """Kafka did not take an event."""


class Happening(NamedTuple):
    """What happens on a platform, in event-time order.

    Attributes:
        at: (events,) int64 ms.
        source: (events,) int8, 0 for uploads and 1 for listens.
        row: (events,) int64, places in the table of the source.
        uploads: track_id, artist_id, title, released_at, duration_ms and audio of each upload.
        listens: the columns of a listen.
    """

    at: NDArray[np.int64]
    source: NDArray[np.int8]
    row: NDArray[np.int64]
    uploads: pa.Table
    listens: pa.Table


def simulate(settings: Settings, platform: Path, *, rate: float, speedup: float | None = None) -> None:
    """Publish the uploads and listens of a platform, and print the rate that was reached.

    Args:
        settings: how to reach Kafka, and how topics are named.
        platform: a folder that `tastewave-offline synth platform` wrote.
        rate: at most how many events a second.
        speedup: how much faster than the clock the time of the platform passes; as fast as the rate allows when None.

    Raises:
        SettingsError: the folder is no synthetic platform, or pyarrow is not installed.
        KafkaUnusable: Kafka is away, or a topic is missing.
        SimulationFailed: Kafka did not take an event.
    """
    happening = read_platform(platform)
    names = [settings.topics.named(name) for name in (TRACKS_UPLOADED, LISTENS)]
    with kafka_client(KafkaConsumer, settings.kafka, allow_auto_create_topics=False) as consumer:
        for name in names:
            partitions_of(consumer, name)
    failures: list[BaseException] = []
    with (
        kafka_producer(settings, linger_ms=20, batch_size=128 * 1024) as producer,
        progress_bar() as progress,
    ):
        task = progress.add_task("publishing", total=len(happening.at))
        started = time.monotonic()
        for number, (source, key, value) in enumerate(_events(happening, platform)):
            if number % _TURN == 0:
                if failures:
                    raise SimulationFailed(f"Kafka did not take an event ({failures[0]}); start again when it does")
                progress.update(task, completed=number)
                since_s = (int(happening.at[number]) - int(happening.at[0])) / 1000
                due_s = max(number / rate, since_s / speedup if speedup else 0.0)
                time.sleep(max(0.0, started + due_s - time.monotonic()))
            producer.send(names[source], key=key, value=value).add_errback(failures.append)
        try:
            producer.flush(DELIVERY_TIMEOUT_S)
        except KafkaError as error:
            failures.append(error)
        took_s = time.monotonic() - started
    if failures:
        raise SimulationFailed(f"Kafka did not take an event ({failures[0]}); start again when it does")
    span_s = (int(happening.at[-1]) - int(happening.at[0])) / 1000
    uploads = int((happening.source == 0).sum())
    click.echo(
        f"{uploads:,} uploads and {len(happening.at) - uploads:,} listens in {took_s:.1f} s: "
        f"{len(happening.at) / took_s:,.0f} events/s, {span_s / took_s:,.0f} times as fast as on the platform"
    )


def read_platform(platform: Path) -> Happening:
    """The uploads and listens of a platform, in the order of their times. Raises SettingsError."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise SettingsError(
            "simulate reads Parquet files with pyarrow, which a worker does not need; install deploy/locks/offline.txt"
        ) from None
    if not (platform / "tracks.parquet").is_file() or not any((platform / "listens").glob("*.parquet")):
        raise SettingsError(
            f"{platform} is no synthetic platform; make one with `tastewave-offline synth platform {platform}`"
        )
    try:
        columns = ["track_id", "artist_id", "title", "released_at", "duration_ms", "audio"]
        uploads = pq.read_table(platform / "tracks.parquet", columns=columns)
        listens = pq.read_table(platform / "listens")
    except (OSError, pa.ArrowException) as error:
        raise SettingsError(f"{platform} cannot be read ({error}); make the platform again") from error
    uploads = uploads.filter(uploads["audio"].is_valid())
    times = [table[name].to_numpy() for table, name in ((uploads, "released_at"), (listens, "at"))]
    at = np.concatenate(times)
    order = np.argsort(at, kind="stable")
    source = np.repeat(np.array([0, 1], np.int8), [len(of_source) for of_source in times])
    row = np.concatenate([np.arange(len(of_source)) for of_source in times])
    return Happening(at[order], source[order], row[order], uploads, listens)


def _events(happening: Happening, platform: Path) -> Iterator[tuple[int, bytes, bytes]]:
    """The source, key and value of each event, in order."""
    for first in range(0, len(happening.at), 50_000):
        part = slice(first, first + 50_000)
        source, row = happening.source[part], happening.row[part]
        tables = (happening.uploads, happening.listens)
        rows: list[Iterator[dict[str, Any]]] = [
            iter(table.take(row[source == number]).to_pylist()) for number, table in enumerate(tables)
        ]
        for number in source.tolist():
            fields = next(rows[number])
            if number:
                listen = Listen(**{name: value for name, value in fields.items() if value is not None})
                yield number, listen.user_id.encode(), encode_event(listen)
            else:
                upload = TrackUploaded(
                    event_id=f"simulated-{fields['track_id']}",
                    track_id=fields["track_id"],
                    uri=(platform.absolute() / fields["audio"]).as_uri(),
                    uploaded_at=fields["released_at"],
                    title=fields["title"],
                    artist_id=fields["artist_id"],
                    duration_ms=fields["duration_ms"],
                )
                yield number, upload.track_id.encode(), encode_event(upload)
