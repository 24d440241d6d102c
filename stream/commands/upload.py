"""`tastewave upload`: publish uploads, and follow them to their answers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import click
import msgspec
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from models.contract import DEAD_LETTER, TRACKS_TAGGED, TRACKS_UPLOADED
from models.errors import EventError, FetchRefused, SettingsError, TastewaveError
from models.events import TrackTagged, TrackUploaded, decode_event, encode_event
from stream.audio.uris import shown_uri
from stream.broker.dead_letters import DeadLetter, Record, read_dead_letter
from stream.broker.operator import kafka_client, partitions_of
from stream.commands.audio_files import audio_in
from stream.settings import Settings

_ID_DIGITS = 16
_DELIVERY_TIMEOUT_S = 30.0
_POLL_MS = 200


class UploadFailed(TastewaveError):
    """An upload was not delivered, its audio was not answered, or the answer did not come in time."""


class Upload(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An upload and what became of it; latency_ms is from the event to its answer in Redis."""

    track_id: str
    uri: str
    title: str | None = None
    event_id: str
    status: Literal["undelivered", "published", "tagged", "abstained", "failed", "timed out"]
    event_time: int = 0
    genre: str | None = None
    confidence: float | None = None
    genres: tuple[tuple[str, float], ...] = ()
    tags: tuple[tuple[str, float], ...] = ()
    latency_ms: int | None = None
    reason: str | None = None
    message: str | None = None


def upload(
    settings: Settings,
    audio: Sequence[str],
    *,
    track_id: str | None = None,
    wait: bool = False,
    timeout_s: float = 120.0,
    as_json: bool = False,
) -> None:
    """Publish a TrackUploaded event for each file, file in a folder, and URL; with wait, follow them to their answers.

    timeout_s: with wait, how long no answer may come before the rest is given up.

    Raises:
        SettingsError: a file is not there, a folder holds no audio, or a track_id is given for more than one.
        KafkaUnusable: Kafka is away, or a topic is missing.
        UploadFailed: after everything was printed, when not all went well.
    """
    found = find_audio(audio)
    if track_id is not None and len(found) > 1:
        raise SettingsError(f"--track-id names one track, got {len(found)}; upload them one by one")
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(_progress())
        uploads = [plan_upload(one, track_id=track_id) for one in progress.track(found, description="reading")]
        consumer: Any = stack.enter_context(
            kafka_client(KafkaConsumer, settings.kafka, enable_auto_commit=False, allow_auto_create_topics=False)
        )
        partitions_of(consumer, settings.topics.named(TRACKS_UPLOADED))
        if wait:
            _seek_to_end(consumer, settings)
        publish(settings, uploads, progress)
        if wait:
            _follow(consumer, uploads, progress, timeout_s=timeout_s)
    _report(uploads, as_json=as_json)
    if failed := [upload for upload in uploads if upload.status in ("undelivered", "failed", "timed out")]:
        raise UploadFailed(f"{len(failed)} of {len(uploads)} uploads failed; see the reasons above")


def find_audio(arguments: Iterable[str]) -> list[Path | str]:
    """Files as absolute paths and URLs as they are; of a folder, the files with an audio suffix at any depth.

    Raises SettingsError where a file is not there, or a folder holds no audio.
    """
    found: list[Path | str] = []
    for argument in arguments:
        path = Path(argument).absolute()
        if "://" in argument:
            found.append(argument)
        elif path.is_dir():
            found += audio_in(path)
        elif path.is_file():
            found.append(path)
        else:
            raise SettingsError(f"{argument} is no file or folder; name a file, a folder or a URL")
    return found


def plan_upload(audio: Path | str, *, track_id: str | None = None) -> Upload:
    """What to publish for a file or URL; the track_id is from the hash of its bytes, or of the URL, unless given.

    Raises SettingsError where the file cannot be read, or an event would not be one of the contract.
    """
    if isinstance(audio, str):
        digest, uri, title = hashlib.sha256(audio.encode(errors="replace")).hexdigest(), audio, None
        with contextlib.suppress(ValueError):
            title = PurePosixPath(unquote(urlsplit(audio).path)).stem or None
    else:
        try:
            with audio.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise SettingsError(f"{audio} cannot be read ({error.strerror}); check the file") from error
        uri, title = audio.as_uri(), os.fsencode(audio.stem).decode(errors="replace")
    track_id = digest[:_ID_DIGITS] if track_id is None else track_id
    planned = Upload(track_id=track_id, uri=uri, title=title, event_id=uuid4().hex, status="undelivered")
    try:
        decode_event(encode_event(_event(planned)), TrackUploaded)
    except (EventError, ValueError) as error:
        raise SettingsError(f"{shown_uri(uri)} cannot be uploaded ({error})") from error
    return planned


def publish(settings: Settings, uploads: Iterable[Upload], progress: Progress) -> None:
    """Send an event for each upload, dated now; sets event_time and status. Raises KafkaUnusable."""
    with kafka_client(
        KafkaProducer,
        settings.kafka,
        acks="all",
        allow_auto_create_topics=False,
        max_request_size=settings.topics.max_bytes,
        max_block_ms=int(_DELIVERY_TIMEOUT_S * 1000),
        request_timeout_ms=int(_DELIVERY_TIMEOUT_S * 500),
        delivery_timeout_ms=int(_DELIVERY_TIMEOUT_S * 1000),
    ) as producer:
        sent: list[tuple[Upload, Any]] = []
        for upload in uploads:
            upload.event_time = time.time_ns() // 1_000_000
            key, value = upload.track_id.encode(), encode_event(_event(upload))
            sent.append((upload, producer.send(settings.topics.named(TRACKS_UPLOADED), key=key, value=value)))
        for upload, delivery in progress.track(sent, description="publishing"):
            try:
                delivery.get(_DELIVERY_TIMEOUT_S)
                upload.status = "published"
            except KafkaError as error:
                upload.reason, upload.message = "undelivered", str(error)


def settle(waiting: dict[str, list[Upload]], record: Record) -> list[Upload]:
    """Write an answer or a dead letter into the uploads that it settles; returns these.

    waiting: the uploads without an answer by track_id. An answer to a later event of the track settles too:
    the worker then has no other for the earlier one. A failure settles with its dead letter, which says more.
    """
    try:
        if record.topic.endswith(DEAD_LETTER):
            return _settle_failure(waiting, decode_event(record.value, TrackUploaded), read_dead_letter(record))
        return _settle_answer(waiting, decode_event(record.value, TrackTagged))
    except EventError:
        return []


def _settle_failure(waiting: dict[str, list[Upload]], event: TrackUploaded, letter: DeadLetter) -> list[Upload]:
    settled = [upload for upload in waiting.get(event.track_id, ()) if upload.event_id == event.event_id]
    for upload in settled:
        upload.status, upload.reason, upload.message = "failed", letter.reason, letter.message
    return settled


def _settle_answer(waiting: dict[str, list[Upload]], answer: TrackTagged) -> list[Upload]:
    if answer.status == "failed":
        return []
    settled = [upload for upload in waiting.get(answer.track_id, ()) if upload.event_time <= answer.event_time]
    for upload in settled:
        upload.status, upload.genre, upload.confidence = answer.status, answer.genre, answer.confidence
        upload.genres, upload.tags = answer.genres, answer.tags
        upload.latency_ms = answer.tagged_at - answer.event_time
    return settled


def _event(upload: Upload) -> TrackUploaded:
    return TrackUploaded(
        event_id=upload.event_id,
        track_id=upload.track_id,
        uri=upload.uri,
        uploaded_at=upload.event_time,
        title=upload.title,
    )


def _seek_to_end(consumer: Any, settings: Settings) -> None:
    """From here on, answers and dead letters; called before the events are published."""
    places = [
        place for name in (TRACKS_TAGGED, DEAD_LETTER) for place in partitions_of(consumer, settings.topics.named(name))
    ]
    consumer.assign(places)
    for place, end in consumer.end_offsets(places).items():
        consumer.seek(place, end)


def _follow(consumer: Any, uploads: Iterable[Upload], progress: Progress, *, timeout_s: float) -> None:
    waiting: dict[str, list[Upload]] = {}
    for upload in uploads:
        if upload.status == "published":
            waiting.setdefault(upload.track_id, []).append(upload)
    task = progress.add_task("answers", total=sum(map(len, waiting.values())))
    deadline = time.monotonic() + timeout_s
    while waiting and time.monotonic() < deadline:
        for record in (record for records in consumer.poll(timeout_ms=_POLL_MS).values() for record in records):
            for upload in settle(waiting, record):
                waiting[upload.track_id].remove(upload)
                if not waiting[upload.track_id]:
                    del waiting[upload.track_id]
                progress.advance(task)
                deadline = time.monotonic() + timeout_s
    for upload in (upload for late in waiting.values() for upload in late):
        upload.status, upload.reason = "timed out", "timed out"
        upload.message = f"no answer came for {timeout_s:g} s; check that a worker is running and ready"


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _report(uploads: Sequence[Upload], *, as_json: bool) -> None:
    good = [upload for upload in uploads if upload.reason is None]
    bad = [upload for upload in uploads if upload.reason is not None]
    if as_json:
        for upload in uploads:
            plain = upload.uri.startswith("file:///") and not {"?", "#"} & set(upload.uri)
            uri = upload.uri if plain else shown_uri(upload.uri)
            click.echo(msgspec.json.encode(msgspec.structs.replace(upload, uri=uri)))
    elif good and good[0].status == "published":
        _print(("track", "title"), [(upload.track_id, upload.title) for upload in good])
    elif good:
        _print(("track", "title", "genre", "confidence", "top tags", "ms"), map(_answer_row, good))
    if bad and not as_json:
        rows = [(upload.track_id, upload.title, upload.reason, upload.message) for upload in bad]
        _print(("not answered", "title", "reason", "message"), rows)
    outside = [
        str(Path(unquote(urlsplit(upload.uri).path)).parent)
        for upload in bad
        if upload.reason == FetchRefused.reason and upload.uri.startswith("file:///")
    ]
    if outside:
        folder = os.path.commonpath(outside)
        click.echo(
            f"The worker reads files only in its TASTEWAVE_FILE_ROOTS; add {folder} to them and start it again.",
            err=True,
        )


def _answer_row(upload: Upload) -> tuple[str | None, ...]:
    best = f" ({upload.genres[0][0]}?)" if upload.genres else ""
    return (
        upload.track_id,
        upload.title,
        upload.genre or f"abstained{best}",
        "" if upload.confidence is None else f"{upload.confidence:.2f}",
        ", ".join(name for name, _ in upload.tags[:3]),
        str(upload.latency_ms),
    )


def _print(head: Sequence[str], rows: Iterable[Sequence[str | None]]) -> None:
    table = Table(*head, box=box.SIMPLE_HEAD)
    table.columns[0].no_wrap, table.columns[0].min_width = True, _ID_DIGITS
    for row in rows:
        table.add_row(*(Text(cell or "") for cell in row))
    Console().print(table)
