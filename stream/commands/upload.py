"""`tastewave upload`: publish an event for each track, and wait for the answers."""

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
from kafka import KafkaConsumer
from kafka.errors import KafkaError
from rich.progress import Progress
from rich.table import Column

from models.contract import DEAD_LETTER, TRACKS_TAGGED, TRACKS_UPLOADED
from models.errors import EventError, FetchRefused, SettingsError, TastewaveError
from models.events import TrackTagged, TrackUploaded, decode_event, encode_event
from stream.audio.uris import shown_uri
from stream.broker.dead_letters import DeadLetter, Record, read_dead_letter
from stream.broker.operator import DELIVERY_TIMEOUT_S, kafka_client, kafka_producer, partitions_of
from stream.commands.audio_files import audio_in
from stream.commands.tables import print_table, progress_bar
from stream.reader.answers import live_release
from stream.settings import RedisSettings, Settings, TopicSettings
from stream.store.client import sync_client

_ID_DIGITS = 16
_POLL_MS = 200


class UploadFailed(TastewaveError):
    """Kafka did not take an upload, the worker could not tag it, or no answer came in time."""


class Upload(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An upload and what became of it; latency_ms is the time from event_time until its answer was in Redis."""

    track_id: str
    uri: str
    title: str | None = None
    event_id: str
    status: Literal["undelivered", "published", "tagged", "abstained", "corrected", "failed", "timed out"]
    event_time: int
    genre: str | None = None
    confidence: float | None = None
    genres: tuple[tuple[str, float], ...] = ()
    genres_from: Literal["tags"] | None = None
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
    release: str | None = None,
    timeout_s: float = 120.0,
    as_json: bool = False,
) -> None:
    """Publish an event for each file, each audio file in a folder, and each URL; print what became of them.

    Args:
        settings: how to reach Kafka, and how topics are named.
        audio: files, folders and URLs.
        track_id: of the only track; made from its bytes or URL when None.
        wait: whether to wait for the answers.
        release: with wait, whose answers count; the live release's when None, and any where no release is live.
        timeout_s: with wait, give up when no answer came for so long.
        as_json: print a JSON line for each Upload instead of tables.

    Raises:
        SettingsError: a file is not there, a folder holds no audio, or a track_id is given for more than one.
        KafkaUnusable: Kafka is away, or a topic is missing.
        RedisUnusable: Redis does not tell which release is live.
        UploadFailed: after everything was printed, when an upload failed.
    """
    tracks = find_audio(audio)
    if track_id is not None and len(tracks) > 1:
        raise SettingsError(f"--track-id names one track, got {len(tracks)}; upload them one by one")
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(progress_bar())
        uploads = [plan_upload(track, track_id=track_id) for track in progress.track(tracks, description="reading")]
        consumer: Any = stack.enter_context(
            kafka_client(KafkaConsumer, settings.kafka, enable_auto_commit=False, allow_auto_create_topics=False)
        )
        partitions_of(consumer, settings.topics.named(TRACKS_UPLOADED))
        if wait:
            release = release or _live_release(settings.redis)
            _seek_to_end(consumer, settings.topics)
        publish(settings, uploads, progress)
        if wait:
            _follow(consumer, uploads, progress, release=release, timeout_s=timeout_s)
    _report(uploads, as_json=as_json)
    if failed := [upload for upload in uploads if upload.status in ("undelivered", "failed", "timed out")]:
        raise UploadFailed(f"{len(failed)} of {len(uploads)} uploads failed; see the reasons above")


def find_audio(arguments: Iterable[str]) -> list[Path | str]:
    """Files as absolute paths, URLs as they are, and for a folder its files with an audio suffix at any depth.

    Raises SettingsError where a file is not there, or a folder holds no audio.
    """
    tracks: list[Path | str] = []
    for argument in arguments:
        path = Path(argument).absolute()
        if "://" in argument:
            tracks.append(argument)
        elif path.is_dir():
            tracks += audio_in(path)
        elif path.is_file():
            tracks.append(path)
        else:
            raise SettingsError(f"{argument} is no file or folder; name a file, a folder or a URL")
    return tracks


def plan_upload(audio: Path | str, *, track_id: str | None = None) -> Upload:
    """The upload of a file or URL, to be published.

    Unless it is given, the track_id is the start of the SHA-256 of the file's bytes or of the URL. So the same file
    gets the same id, wherever it lies.

    Raises:
        SettingsError: the file cannot be read, or the event would break the contract (an id or URI that is too long).
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
    planned = Upload(
        track_id=track_id,
        uri=uri,
        title=title,
        event_id=uuid4().hex,
        status="undelivered",
        event_time=time.time_ns() // 1_000_000,
    )
    try:
        decode_event(encode_event(_event(planned)), TrackUploaded)
    except (EventError, ValueError) as error:
        raise SettingsError(f"{shown_uri(uri)} cannot be uploaded ({error})") from error
    return planned


def publish(settings: Settings, uploads: Iterable[Upload], progress: Progress) -> None:
    """Send an event for each upload, dated now, and set its event_time and status. Raises KafkaUnusable."""
    with kafka_producer(settings) as producer:
        sent: list[tuple[Upload, Any]] = []
        for upload in uploads:
            upload.event_time = time.time_ns() // 1_000_000
            key, value = upload.track_id.encode(), encode_event(_event(upload))
            sent.append((upload, producer.send(settings.topics.named(TRACKS_UPLOADED), key=key, value=value)))
        for upload, delivery in progress.track(sent, description="publishing"):
            try:
                delivery.get(DELIVERY_TIMEOUT_S)
                upload.status = "published"
            except KafkaError as error:
                upload.reason, upload.message = "undelivered", str(error)


def settle(waiting: dict[str, list[Upload]], record: Record, *, release: str | None = None) -> list[Upload]:
    """Write an answer or a dead letter into the uploads that it belongs to, and return those.

    An answer to a later event of the same track counts as well, since the worker gives no other for the earlier one.
    Of a failure there are two records: its dead letter counts, since it has the message, and the answer is ignored.

    Args:
        waiting: the uploads without an answer, by track_id.
        record: from the topic of answers or of dead letters.
        release: the only one that counts; any where it is None.
    """
    try:
        if record.topic.endswith(DEAD_LETTER):
            letter = read_dead_letter(record)
            if release not in (None, letter.release):
                return []
            return _settle_failure(waiting, decode_event(record.value, TrackUploaded), letter)
        answer = decode_event(record.value, TrackTagged)
        return _settle_answer(waiting, answer) if release in (None, answer.release) else []
    except EventError:
        return []


def _settle_failure(waiting: dict[str, list[Upload]], event: TrackUploaded, letter: DeadLetter) -> list[Upload]:
    settled = [upload for upload in waiting.get(event.track_id, ()) if upload.event_id == event.event_id]
    for upload in settled:
        upload.status, upload.reason, upload.message = "failed", letter.reason, letter.message
    return settled


def _settle_answer(waiting: dict[str, list[Upload]], answer: TrackTagged) -> list[Upload]:
    if answer.failed:
        return []
    settled = [
        upload
        for upload in waiting.get(answer.track_id, ())
        if (upload.event_time, upload.event_id) <= (answer.event_time, answer.event_id)
    ]
    for upload in settled:
        upload.status, upload.genre, upload.confidence = answer.status, answer.genre, answer.confidence
        upload.genres, upload.genres_from, upload.tags = answer.genres, answer.genres_from, answer.tags
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


def _live_release(settings: RedisSettings) -> str | None:
    with sync_client(settings) as client:
        return live_release(client, key_prefix=settings.key_prefix)


def _seek_to_end(consumer: Any, topics: TopicSettings) -> None:
    """Read answers and dead letters from now on. Call it before publishing, or the first answers may be missed."""
    places = [place for name in (TRACKS_TAGGED, DEAD_LETTER) for place in partitions_of(consumer, topics.named(name))]
    consumer.assign(places)
    for place, end in consumer.end_offsets(places).items():
        consumer.seek(place, end)


def _follow(
    consumer: Any, uploads: Iterable[Upload], progress: Progress, *, release: str | None, timeout_s: float
) -> None:
    waiting: dict[str, list[Upload]] = {}
    for upload in uploads:
        if upload.status == "published":
            waiting.setdefault(upload.track_id, []).append(upload)
    task = progress.add_task("answers", total=sum(map(len, waiting.values())))
    deadline = time.monotonic() + timeout_s
    while waiting and time.monotonic() < deadline:
        for record in (record for records in consumer.poll(timeout_ms=_POLL_MS).values() for record in records):
            for upload in settle(waiting, record, release=release):
                waiting[upload.track_id].remove(upload)
                if not waiting[upload.track_id]:
                    del waiting[upload.track_id]
                progress.advance(task)
                deadline = time.monotonic() + timeout_s
    for upload in (upload for late in waiting.values() for upload in late):
        upload.status, upload.reason = "timed out", "timed out"
        of_release = f" of release {release}" if release else ""
        upload.message = f"no answer{of_release} came for {timeout_s:g} s; check that a worker is running and ready"


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
    print_table((Column(head[0], no_wrap=True, min_width=_ID_DIGITS), *head[1:]), rows)
