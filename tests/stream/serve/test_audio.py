"""The audio of tracks over HTTP: which files are served, and ranges of them."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import redis.asyncio
from litestar import Litestar

from models.events import TrackTagged, TrackUploaded, encode_event
from stream.reader.reader import AnswerReader
from stream.serve.audio import MOST_RANGE_BYTES, audio_route
from stream.serve.lookups import bearer
from stream.serve.problems import Refusal, respond
from stream.serve.uploaded_audio import UploadedAudio
from stream.settings import load_settings
from tests.stream.serve.conftest import RELEASE, Held

AUDIO = bytes(range(256)) * 8
TOKEN = "0123456789abcdef"
AT = 1_790_000_000_000


class Player:
    """A client of the route alone, and the uploads that it knows."""

    def __init__(self, held: Held, client: httpx.AsyncClient, uploads: UploadedAudio) -> None:
        self._held = held
        self._client = client
        self.uploads = uploads

    def upload(self, track_id: str, uri: str, *, event_id: str = "e1", answered: str = "e1") -> None:
        event = TrackUploaded(event_id=event_id, track_id=track_id, uri=uri, uploaded_at=AT)
        self.uploads.take(encode_event(event))
        self._held.put(
            TrackTagged(
                track_id=track_id,
                release=RELEASE,
                status="tagged",
                genre="jazz",
                event_time=1,
                event_id=answered,
                tagged_at=2,
            )
        )

    async def play(self, track_id: str, **headers: str) -> httpx.Response:
        return await self._client.get(f"/v1/tracks/{quote(track_id, safe='')}/audio", headers=headers)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "music").mkdir()
    return tmp_path / "music"


@pytest.fixture
async def player(held: Held, root: Path) -> AsyncIterator[Player]:
    uploads = UploadedAudio(load_settings(serve_audio_roots=str(root)))
    client = redis.asyncio.Redis.from_url(held.url, protocol=2)
    route = audio_route(AnswerReader(client), uploads, guard=bearer(TOKEN))
    app = Litestar([route], exception_handlers={Refusal: respond})
    headers = {"Authorization": f"Bearer {TOKEN}"}
    yield Player(
        held, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api", headers=headers), uploads
    )  # type: ignore[arg-type]
    await client.aclose()


async def test_a_file_is_served_whole_and_by_ranges(player: Player, root: Path) -> None:
    (root / "ä 1.MP3").write_bytes(AUDIO)
    player.upload("t1", (root / "ä 1.MP3").as_uri())
    whole = await player.play("t1")
    assert (whole.status_code, whole.content) == (200, AUDIO)
    told = [whole.headers[name] for name in ("content-type", "accept-ranges", "content-length")]
    assert told == ["audio/mpeg", "bytes", "2048"]
    for asked, begin, end in (("0-", 0, 2048), ("100-199", 100, 200), ("-48", 2000, 2048), ("2047-9999", 2047, 2048)):
        part = await player.play("t1", Range=f"bytes={asked}")
        assert (part.status_code, part.content) == (206, AUDIO[begin:end]), asked
        assert part.headers["content-range"] == f"bytes {begin}-{end - 1}/2048"
    for asked in ("bytes=2048-", "bytes=-0"):
        assert (await player.play("t1", Range=asked)).status_code == 416, asked
    for asked in ("bytes=5-2", "bytes=-", "bytes=0-1,5-6", "lines=1-2", "bytes=" + "9" * 40 + "-"):
        assert (await player.play("t1", Range=asked)).content == AUDIO, asked
    assert (await player.play("t1", Range="bytes=0-1", **{"If-Range": whole.headers["etag"]})).status_code == 206
    assert (await player.play("t1", Range="bytes=0-1", **{"If-Range": '"old"'})).status_code == 200
    assert (await player.play("t1", Authorization="")).status_code == 401


async def test_a_range_of_a_huge_file_has_a_mebibyte_at_most(player: Player, root: Path) -> None:
    with (root / "huge.wav").open("wb") as file:
        file.truncate(2**40)  # takes no space
        file.seek(2**39)
        file.write(b"music")
    player.upload("huge", (root / "huge.wav").as_uri())
    part = await player.play("huge", Range=f"bytes={2**39}-")
    assert (part.status_code, len(part.content), part.content[:6]) == (206, MOST_RANGE_BYTES, b"music\0")
    assert part.headers["content-range"] == f"bytes {2**39}-{2**39 + 2**20 - 1}/{2**40}"


async def test_nothing_but_audio_files_inside_of_the_roots_is_served(
    player: Player, root: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.mp3"
    secret.write_bytes(b"secret")
    (root / "link.mp3").symlink_to(secret)
    (root / "folder.mp3").mkdir()
    (root / "linked").symlink_to(tmp_path)
    (root / "page.html").write_text("<script>")
    os.mkfifo(root / "fifo.mp3")
    inside, outside = root.as_uri(), secret.as_uri()
    uris = [
        outside, f"{inside}/../secret.mp3", f"{inside}/%2e%2e/secret.mp3", f"{inside}/link.mp3",
        f"{inside}/linked/secret.mp3", f"{inside}/folder.mp3", f"{inside}/fifo.mp3", f"{inside}/page.html",
        f"{inside}/gone.mp3", "file:///proc/self/environ", "http://127.0.0.1/a.mp3", f"{inside}-other/a.mp3",
        f"file://host{root}/a.mp3", f"{inside}/{'a' * 3000}.mp3",
    ]  # fmt: skip
    for number, uri in enumerate(uris):
        player.upload(f"t{number}", uri)
        answer = await player.play(f"t{number}")
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:tastewave:problem:no-audio"), uri
        assert "secret" not in answer.text
        assert str(tmp_path) not in answer.text
    unknown = await player.play("passwd")
    assert unknown.json()["type"] == "urn:tastewave:problem:unknown-track"


async def test_only_the_file_of_the_upload_that_was_answered_is_served(player: Player, root: Path) -> None:
    for name in ("old.mp3", "new.mp3"):
        (root / name).write_bytes(name.encode())
    player.upload("t1", (root / "old.mp3").as_uri(), event_id="e1")
    player.upload("t1", (root / "new.mp3").as_uri(), event_id="e2", answered="e1")
    assert (await player.play("t1")).content == b"old.mp3"
    player.upload("t1", "http://127.0.0.1/a.mp3", event_id="e3", answered="e3")
    assert (await player.play("t1")).status_code == 404


def test_the_newest_uploads_are_kept_and_no_more(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.serve.uploaded_audio.MOST_UPLOADS", 2)
    uploads = UploadedAudio(load_settings(serve_audio_roots=str(root)))
    for track_id in ("t0", "t1", "t2"):
        uri = f"{root.as_uri()}/a.mp3"
        uploads.take(encode_event(TrackUploaded(event_id="e", track_id=track_id, uri=uri, uploaded_at=AT)))
    uploads.take(b"no event")
    uploads.take(None)
    assert [uploads.uri(track_id, "e") is None for track_id in ("t0", "t1", "t2")] == [True, False, False]
