"""Uploads over HTTP: which files are taken, under which names they are kept, and what is refused without a trace."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from models.audio.windows import SUFFIXES
from models.errors import SettingsError
from models.events import TrackUploaded
from stream.broker.operator import KafkaUnusable
from stream.serve.site import Site
from stream.serve.upload_folder import UploadFolder
from stream.serve.uploads import AT_ONCE, Uploads, uploads_of
from stream.settings import load_settings
from tests.platform.feeds import eventually

LIMIT = 3_000_000
BYTES = {"Content-Type": "application/octet-stream"}


class Kafka:
    """Takes events, or is away."""

    def __init__(self) -> None:
        self.events: list[TrackUploaded] = []
        self.away = False

    def publish(self, event: TrackUploaded) -> None:
        if self.away:
            raise KafkaUnusable("Kafka at 127.0.0.1:1 cannot be used")
        self.events.append(event)


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def api_of(folder: Path, kafka: Kafka, **serve: Any) -> httpx.AsyncClient:
    uploads = Uploads(UploadFolder(folder), max_bytes=LIMIT, publish=kafka.publish)
    nobody = cast(Any, None)
    settings = load_settings(**{f"serve_{name}": value for name, value in serve.items()})
    site = Site(settings, reader=nobody, feed=nobody, uploads=uploads)
    return httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="http://127.0.0.1")


async def test_a_file_is_kept_as_it_came_and_the_workers_are_told(tmp_path: Path, kafka: Kafka) -> None:
    audio = bytes(range(256)) * 8000  # of more than one block
    api = api_of(tmp_path, kafka)
    answer = await api.post("/v1/uploads?name=My%20Song.WAV", content=audio, headers=BYTES)
    assert answer.status_code == 202, answer.text
    (kept,), (event,), told = files(tmp_path), kafka.events, answer.json()
    assert kept.read_bytes() == audio
    assert (event.uri, event.title) == (kept.as_uri(), "My Song")
    assert event.track_id == told["track_id"] == hashlib.sha256(audio).hexdigest()[:16]
    assert (event.event_id, event.uploaded_at) == (told["event_id"], told["uploaded_at"])
    about = (await api.get("/v1/uploads")).json()
    assert (about["taken"], about["max_bytes"], ".mp3" in about["suffixes"]) == (True, LIMIT, True)


async def test_a_hostile_name_is_a_title_and_no_path(tmp_path: Path, kafka: Kafka) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    api = api_of(folder, kafka)
    titles = {
        "../../etc/passwd.wav": "passwd",
        "C:\\music\\a.flac": "a",
        "/etc/cron.d/x\0y\n.mp3": "xy",
        "<img src=x onerror=alert(1)>.ogg": "<img src=x onerror=alert(1)>",
        "a.php.wav": "a.php",
        "\u202egnp.wav": "gnp",
    }
    for name, title in titles.items():
        answer = await api.post("/v1/uploads", params={"name": name}, content=b"sound", headers=BYTES)
        assert answer.status_code == 202, answer.text
        assert kafka.events[-1].title == title
    assert files(tmp_path) == [folder]
    kept = [path.name.removeprefix("upload-").split(".") for path in files(folder)]
    assert {(len(name), name.isalnum(), f".{suffix}" in SUFFIXES) for name, suffix in kept} == {(32, True, True)}
    assert len(kept) == len(titles)


async def test_what_is_no_audio_is_refused(tmp_path: Path, kafka: Kafka) -> None:
    api = api_of(tmp_path, kafka)
    for query, media_type, status in (
        ("?name=a.wav", "text/plain", 415),
        ("?name=a.wav", "multipart/form-data; boundary=x", 415),
        ("?name=a.exe", "application/octet-stream", 415),
        ("?name=.wav", "application/octet-stream", 415),
        ("?name=a.wav%00", "application/octet-stream", 415),
        ("?name=", "application/octet-stream", 400),
        (f"?name={'a' * 300}.wav", "application/octet-stream", 400),
        ("", "application/octet-stream", 400),
    ):
        answer = await api.post(f"/v1/uploads{query}", content=b"sound", headers={"Content-Type": media_type})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), query
    assert files(tmp_path) == kafka.events == []


async def in_pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 100_000


async def test_a_file_that_is_too_large_or_empty_is_refused_and_leaves_nothing(tmp_path: Path, kafka: Kafka) -> None:
    api = api_of(tmp_path, kafka)
    for body in (b"x" * (LIMIT + 1), in_pieces(31)):  # announced, and found out
        answer = await api.post("/v1/uploads?name=a.wav", content=body, headers=BYTES)
        assert (answer.status_code, answer.json()["type"]) == (413, "urn:tastewave:problem:too-large")
    assert (await api.post("/v1/uploads?name=a.wav", content=b"", headers=BYTES)).status_code == 400
    assert files(tmp_path) == kafka.events == []
    assert (await api.post("/v1/uploads?name=a.wav", content=in_pieces(30), headers=BYTES)).status_code == 202


async def test_without_kafka_the_file_goes_again(tmp_path: Path, kafka: Kafka) -> None:
    kafka.away = True
    answer = await api_of(tmp_path, kafka).post("/v1/uploads?name=a.wav", content=b"sound", headers=BYTES)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:tastewave:problem:kafka-away")
    assert "127.0.0.1" not in answer.text
    assert files(tmp_path) == []


async def test_some_come_at_once_and_one_more_is_asked_to_wait(tmp_path: Path, kafka: Kafka) -> None:
    api, goes_on = api_of(tmp_path, kafka), asyncio.Event()

    async def slow(letter: bytes) -> AsyncIterator[bytes]:
        yield letter
        await goes_on.wait()
        yield letter

    def send(letter: bytes) -> asyncio.Future[httpx.Response]:
        return asyncio.ensure_future(api.post("/v1/uploads?name=a.wav", content=slow(letter), headers=BYTES))

    coming = [send(letter) for letter in (b"a", b"b", b"c", b"d")[:AT_ONCE]]
    await eventually(lambda: len(files(tmp_path)) == AT_ONCE)
    refused = await api.post("/v1/uploads?name=a.wav", content=b"more", headers=BYTES)
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:tastewave:problem:uploads-full")
    goes_on.set()
    assert {answer.status_code for answer in await asyncio.gather(*coming)} == {202}
    assert sorted(path.read_bytes() for path in files(tmp_path)) == [b"aa", b"bb", b"cc", b"dd"]


async def test_a_body_that_breaks_off_leaves_nothing(tmp_path: Path, kafka: Kafka) -> None:
    uploads = Uploads(UploadFolder(tmp_path), max_bytes=LIMIT, publish=kafka.publish)
    nobody = cast(Any, None)
    site = Site(load_settings(), reader=nobody, feed=nobody, uploads=uploads)
    messages = iter([
        {"type": "http.request", "body": b"half of it", "more_body": True},
        {"type": "http.disconnect"},
    ])  # fmt: skip
    sent = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/uploads", "raw_path": b"/v1/uploads",
        "query_string": b"name=a.wav", "headers": [(b"content-type", b"application/octet-stream")],
    }  # fmt: skip
    await site(scope, receive, send)
    assert sent[0]["status"] == 400
    assert files(tmp_path) == kafka.events == []


async def test_uploads_are_off_unless_a_setting_names_a_folder_and_need_the_token(tmp_path: Path, kafka: Kafka) -> None:
    assert uploads_of(load_settings()) is None
    nobody = cast(Any, None)
    off = Site(load_settings(), reader=nobody, feed=nobody)
    api = httpx.AsyncClient(transport=httpx.ASGITransport(off), base_url="http://127.0.0.1")
    assert (await api.get("/v1/uploads")).json()["taken"] is False
    assert (await api.post("/v1/uploads?name=a.wav", content=b"sound", headers=BYTES)).status_code == 405
    api = api_of(tmp_path, kafka, token="0123456789abcdef")
    refused = await api.post("/v1/uploads?name=a.wav", content=b"sound", headers=BYTES)
    assert (refused.status_code, files(tmp_path)) == (401, [])
    taken = await api.post(
        "/v1/uploads?name=a.wav", content=b"sound", headers={**BYTES, "Authorization": "Bearer 0123456789abcdef"}
    )
    assert taken.status_code == 202


def test_a_folder_that_workers_may_not_read_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "uploads").mkdir()
    named = {"serve_uploads": str(tmp_path / "uploads")}
    with pytest.raises(SettingsError, match=r"workers may not read .*TASTEWAVE_FILE_ROOTS"):
        uploads_of(load_settings(**named, file_roots=str(tmp_path / "music")))
    assert uploads_of(load_settings(**named, file_roots=str(tmp_path)))
