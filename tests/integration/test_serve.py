"""`tastewave serve` as a process: what is near, events, a switch of the release, forgetting."""

import json
import math
import os
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from models.contract import TRACKS_UPLOADED, history_key
from models.events import Listen, TrackTagged, TrackUploaded, UserEmbedded, encode_event
from models.history import history_member
from tests.platform.clock import now_ms, until
from tests.platform.serve import Api, Publisher, publisher

pytestmark = pytest.mark.servers
OLD, NEW = "0123456789ab", "ba9876543210"
DIM = 4


def place(angle: float) -> tuple[float, ...]:
    """A place on a circle: the dot product of two is the cosine of the angle between them."""
    return (math.cos(angle), math.sin(angle), *([0.0] * (DIM - 2)))


def track(track_id: str, angle: float, *, genre: str = "jazz", release: str = OLD) -> TrackTagged:
    return TrackTagged(
        track_id=track_id, release=release, status="tagged", genre=genre, confidence=0.9, embedding=place(angle),
        event_time=now_ms(), event_id="e", tagged_at=now_ms(), title=f"{track_id} of {release}",
    )  # fmt: skip


def user(user_id: str, angle: float, *, release: str = OLD) -> UserEmbedded:
    return UserEmbedded(
        user_id=user_id, release=release, embedding=place(angle), source="history", listens=3, event_time=now_ms(),
        revision=1, refreshed_at=now_ms(),
    )  # fmt: skip


@pytest.fixture
def platform(environment: dict[str, str]) -> Iterator[Publisher]:
    with publisher(environment) as made:
        made.activate(OLD)
        made.put(
            track("near", 0.1), track("middle", 0.5), track("blue", 0.2, genre="blues"), track("far", 2.0),
            track("a/b", 0.0), user("ann", 0.05), user("bob", 1.9), user("cleo", 0.4),
        )  # fmt: skip
        failed = TrackTagged(
            track_id="bad", release=OLD, status="failed", reason="too_short", event_time=1, event_id="e", tagged_at=1
        )
        made.put(failed)
        yield made


@pytest.fixture
def api(platform: Publisher) -> Iterator[Api]:
    with Api(platform.environment) as made:
        yield made


def ids(answer: tuple[int, dict], plural: str = "tracks") -> list[str]:
    status, document = answer
    assert status == 200, document
    return [one[f"{plural[:-1]}_id"] for one in document[plural]]


def test_what_is_near_is_found_and_what_was_forgotten_is_named_nowhere_at_once(platform: Publisher, api: Api) -> None:
    assert ids(api.get("/v1/tracks/a%2Fb/similar")) == ["near", "blue", "middle", "far"]
    assert ids(api.get("/v1/tracks/a%2Fb/similar?genre=jazz&limit=2")) == ["near", "middle"]
    (first, *_) = api.get("/v1/tracks/a%2Fb/similar")[1]["tracks"]
    assert (first["score"], first["title"]) == (pytest.approx(math.cos(0.1), abs=1e-3), f"near of {OLD}")
    heard = Listen(
        event_id="e", user_id="ann", track_id="near", kind="play", at=now_ms(), played_ms=9000, duration_ms=9000
    )
    platform.redis.zadd(history_key("ann"), {b"\x00" * 12: 0, history_member(heard): 0})
    assert ids(api.get("/v1/users/ann/tracks?limit=3")) == ["a/b", "blue", "middle"]
    assert ids(api.get("/v1/tracks/near/audience"), "users") == ["ann", "cleo", "bob"]

    page = api.get("/v1/genres/jazz/tracks?limit=3")
    assert (ids(page), page[1]["next"]) == (["a/b", "far", "middle"], "middle")
    page = api.get("/v1/genres/jazz/tracks?limit=3&after=middle")
    assert (ids(page), "next" in page[1]) == (["near"], False)
    assert ids(api.get("/v1/genres/polka/tracks")) == []

    status, problem = api.get("/v1/tracks/bad/similar")
    assert (status, problem["type"]) == (404, "urn:tastewave:problem:no-embedding")
    assert "too_short" in problem["detail"]
    assert api.get("/v1/tracks/nobody/similar")[1]["type"] == "urn:tastewave:problem:unknown-track"
    assert api.get("/v1/tracks/near/similar?limit=0")[0] == api.get("/v1/tracks/near/similar?limit=x")[0] == 400

    platform.forget_user(OLD, "ann")
    for path in ("/v1/users/ann", "/v1/users/ann/tracks", "/v1/users/ann?fields="):
        assert api.get(path)[1]["type"] == "urn:tastewave:problem:unknown-user", path
    assert ids(api.get("/v1/tracks/near/audience"), "users") == ["cleo", "bob"]
    assert api.get("/v1/users/batch", body={"ids": ["ann"]})[1]["unknown"] == ["ann"]

    status, live = api.get("/v1/release")
    assert (status, live["release"], live["searched"], live["tracks"]) == (200, OLD, OLD, 5)
    scraped = urllib.request.urlopen(f"http://127.0.0.1:{api.port}/metrics").read().decode()
    assert 'tastewave_http_request_seconds_count{method="GET",route="/v1/tracks/{track_id}/similar"' in scraped
    assert "tastewave_feed_tracks 5.0" in scraped


class Stream:
    """The event stream, read by a thread."""

    def __init__(self, api: Api, path: str, **headers: str) -> None:
        self.events: list[dict[str, str]] = []
        request = urllib.request.Request(f"http://127.0.0.1:{api.port}{path}", headers=headers)
        self._answer = urllib.request.urlopen(request, timeout=60)  # noqa: S310
        assert self._answer.headers["content-type"].startswith("text/event-stream")
        assert self._answer.readline().startswith(b":")  # it has begun
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        event: dict[str, str] = {}
        try:
            for line in self._answer:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if line.startswith(b":"):  # a sign of life
                    continue
                if name:
                    event[name] = value
                elif event:
                    self.events.append(event)
                    event = {}
        except (OSError, ValueError, AttributeError):  # closed
            return

    def ids(self) -> list[str]:
        return [json.loads(event["data"]).get("id") for event in self.events if event.get("event") != "problem"]

    def close(self) -> None:
        self._answer.fp.raw._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


def test_events_are_told_as_they_come_and_again_from_where_a_client_stopped(platform: Publisher, api: Api) -> None:
    tracks, everything = Stream(api, "/v1/events"), Stream(api, "/v1/events?of=all")
    platform.put(track("new-1", 1.0), user("dora", 1.0), track("new-2", 1.1))
    until(lambda: {"new-1", "new-2", "dora"} <= set(everything.ids()))
    until(lambda: sorted(tracks.ids()) == ["new-1", "new-2"])
    first = tracks.events[0]
    told = json.loads(first["data"])
    assert (first["event"], told["kind"], told["status"], told["genre"]) == ("track", "track", "tagged", "jazz")
    again = Stream(api, "/v1/events", **{"Last-Event-ID": first["id"]})
    until(lambda: again.ids() == tracks.ids()[1:])
    assert api.get("/v1/events", **{"Last-Event-ID": "no id!"})[0] == 400
    assert "tastewave_event_streams 3.0" in _metrics(api)
    tracks.close()
    again.close()
    until(lambda: "tastewave_event_streams 1.0" in _metrics(api))
    api.stop()  # streams do not keep it
    assert "traceback" not in api.log.read_text().lower()


def _metrics(api: Api) -> str:
    return urllib.request.urlopen(f"http://127.0.0.1:{api.port}/metrics").read().decode()


def test_no_answer_mixes_two_releases_while_another_becomes_live(platform: Publisher, api: Api) -> None:
    platform.put(
        *(track(f"t{number}", number / 100, release=release) for release in (OLD, NEW) for number in range(60))
    )
    platform.put(user("ann", 0.05, release=NEW))
    until(lambda: api.get("/v1/release")[1]["tracks"] == 65)
    stop, seen = threading.Event(), set[str]()
    wrong: list[object] = []
    paths = ("/v1/tracks/t0/similar?limit=50", "/v1/users/ann/tracks?limit=50", "/v1/genres/jazz/tracks")

    def read() -> None:
        while not stop.is_set():
            batch = api.get("/v1/tracks/batch", body={"ids": [f"t{number}" for number in range(60)]})
            for status, document in (batch, *map(api.get, paths)):
                if status != 200:
                    wrong.append(document)
                    continue
                seen.add(document["release"])
                titles = {one["title"].partition(" of ")[2] for one in document["tracks"]}
                if titles != {document["release"]}:
                    wrong.append((document["release"], titles))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: seen == {OLD})
        platform.activate(NEW)
        until(lambda: api.get("/v1/release")[1]["searched"] == NEW)
        until(lambda: api.get("/v1/tracks/t0/similar")[1]["release"] == NEW)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert wrong == []
    assert seen == {OLD, NEW}


def test_the_audio_of_an_upload_is_served_soon_after_its_event(platform: Publisher, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF....")
    upload = TrackUploaded(
        event_id="e", track_id="near", uri=(tmp_path / "a.wav").as_uri(), uploaded_at=now_ms(), title="Near"
    )
    platform.publish(TRACKS_UPLOADED, "near", encode_event(upload))
    with Api(platform.environment | {"TASTEWAVE_SERVE_AUDIO_ROOTS": str(tmp_path)}) as api:
        until(lambda: api.get("/v1/tracks/near/explanation")[1]["has_audio"])
        with urllib.request.urlopen(f"http://127.0.0.1:{api.port}/v1/tracks/near/audio") as answer:
            told = {name: answer.headers[name] for name in ("content-type", "x-content-type-options", "cache-control")}
            assert answer.read() == b"RIFF...."
        assert told == {"content-type": "audio/wav", "x-content-type-options": "nosniff", "cache-control": "no-store"}
        (tmp_path / "b.wav").write_bytes(b"RIFF....")
        later = msgspec.structs.replace(upload, track_id="far", uri=(tmp_path / "b.wav").as_uri())
        platform.publish(TRACKS_UPLOADED, "far", encode_event(later))
        until(lambda: api.get("/v1/tracks/far/explanation")[1]["has_audio"])


ROOT = Path(__file__).parents[2]


def test_the_commands_of_the_chapter_run_as_they_are_written(platform: Publisher, tmp_path: Path) -> None:
    platform.put(track("my-track", 0.3), track("another-track", 0.35))
    token = "a-token-of-the-chapter"
    chapter = (ROOT / "deploy/docs/serving.md").read_text()
    blocks = [part.partition("```")[0] for part in chapter.split("```sh\n")[1:]]
    assert blocks[0] == "API=http://127.0.0.1:6068\n"
    commands = [line for block in blocks[1:] for line in block.splitlines()]
    assert len(commands) > 12
    with Api(platform.environment | {"TASTEWAVE_SERVE_TOKEN": token}) as api:
        given = os.environ | {"API": f"http://127.0.0.1:{api.port}", "TASTEWAVE_SERVE_TOKEN": token}
        script = "\n".join(f"echo; echo '#{number}'; {command}" for number, command in enumerate(commands))
        done = subprocess.run(
            ["bash", "-c", script], env=given, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        answers = done.stdout.split("\n#")[1:]
    assert len(answers) == len(commands)
    for command, answer in zip(commands, answers, strict=True):
        said = answer.partition("\n")[2]
        needs_token = ("/users" in command or "audience" in command) and "Authorization" not in command
        assert ("no-token" in said) == (needs_token and "od -An" not in command), (command, said)
        assert needs_token or "urn:tastewave" not in said, (command, said)
    assert (tmp_path / "vectors.f32").stat().st_size == 4 * DIM
