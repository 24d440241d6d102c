"""tastewave-reader: what it reads, in how many round trips, and what it says when it cannot."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import redis.asyncio
from tastewave_reader import (
    AsyncReader,
    ContractBroken,
    FakeAsyncReader,
    FakeReader,
    NoLiveRelease,
    Reader,
    ReaderError,
    Unavailable,
)

from deploy.local import Redis
from models.contract import live_key, track_key, user_key
from tests.conftest import Servers
from tests.deploy.test_contract_kit import EXPECTED, RELEASE, load_golden

PACKAGE = Path(__file__).parents[3] / "deploy/clients/python"
UNIT = np.eye(40, dtype=np.float32)


def read_both(url: str, kind: str, ids: Sequence[str]) -> list[Any]:
    """The same read by the blocking reader and by that of asyncio."""

    async def read() -> Any:
        async with AsyncReader.from_url(url) as reader:
            return await getattr(reader, kind)(ids)

    with Reader.from_url(url) as reader:
        return [getattr(reader, kind)(ids), asyncio.run(read())]


@pytest.mark.servers
def test_tracks_and_users_come_in_the_order_of_their_ids(servers: Servers, environment: dict[str, str]) -> None:
    load_golden(servers.redis.url)
    asked = [one for one in EXPECTED if one["asked"].startswith("track:")] * 2
    for tracks in read_both(servers.redis.url, "tracks", [one["asked"].removeprefix("track:") for one in asked]):
        assert tracks.release == RELEASE
        assert len(tracks) == len(asked)
        assert tracks.found.tolist() == [one["known"] for one in asked]
        assert list(tracks.status) == [one.get("status") for one in asked]
        assert list(tracks.genre) == [one.get("genre") for one in asked]
        assert tracks.confidence == pytest.approx([one.get("confidence", np.nan) for one in asked], nan_ok=True)
        assert tracks.placed.tolist() == ["embedding" in one for one in asked]
        assert (tracks.embeddings.dtype, tracks.embeddings.shape) == (np.float32, (len(asked), 40))
        for row, one in zip(tracks.embeddings, asked, strict=True):
            assert row == pytest.approx(one.get("embedding", [0.0] * 40), abs=1e-6)
    for users in read_both(servers.redis.url, "users", ["unknown", "ana", "nobody-yet"]):
        assert users.found.tolist() == [False, True, True]
        assert users.source == (None, "history", "global")
        assert np.linalg.norm(users.embeddings, axis=1) == pytest.approx([0, 1, 1], abs=1e-6)
        assert np.isnan(users.age_s).tolist() == [True, False, False]


def test_the_age_of_an_answer_is_the_time_since_it_was_given() -> None:
    reader = FakeReader()
    reader.put_track("t1", genre="jazz", confidence=0.9, age_s=3600.0)
    reader.put_user("ana", UNIT[0], age_s=2.0)
    assert reader.tracks(["t1", "t2"]).age_s == pytest.approx([3600, np.nan], abs=2, nan_ok=True)
    assert reader.users(["ana"]).age_s == pytest.approx([2], abs=2)


def test_no_ids_are_no_rows() -> None:
    reader = FakeReader()
    assert reader.tracks([]).embeddings.shape == (0, 40)
    assert reader.users([]).found.shape == (0,)


class Counting(FakeReader):
    """Counts the requests, and may do something before each."""

    def __init__(self, before: Callable[[int], None] = lambda _: None) -> None:
        super().__init__()
        self.requests: list[int] = []
        self.before = before

    def _fetch(self, request: Any) -> Any:
        self.before(len(self.requests))
        self.requests.append(len(request.keys))
        return super()._fetch(request)


def test_a_read_takes_one_round_trip_for_500_ids_and_asks_for_the_live_release_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    reader = Counting()
    reader.tracks([f"t{number}" for number in range(1001)])
    assert reader.requests == [1, 500, 500, 1]
    now[0] += 0.9
    reader.users(["ana"])
    assert reader.requests[4:] == [1]
    now[0] += 0.2
    reader.users(["ana"])
    assert reader.requests[5:] == [1, 1]


def test_a_read_never_mixes_releases_though_another_becomes_live_in_the_middle() -> None:
    ids = [f"t{number}" for number in range(1500)]
    reader = Counting()

    def switch(request: int) -> None:
        if request == 2:
            reader.set_release("fedcba987654")
            for track_id in ids:
                reader.put_track(track_id, genre="of the new release")

    for track_id in ids:
        reader.put_track(track_id, genre="of the old release")
    reader.before = switch
    assert set(reader.tracks(ids).genre) == {"of the old release"}


async def test_the_fakes_answer_alike() -> None:
    both = FakeReader(), FakeAsyncReader()
    for fake in both:
        fake.put_track("t1", genre="jazz", confidence=0.83, embedding=UNIT[3])
        fake.put_track("t2")
        fake.put_user("ana", UNIT[3])
    tracks, users = both[0].tracks(["t1", "t2", "t3"]), both[0].users(["ana"])
    assert tracks.status == (await both[1].tracks(["t1", "t2", "t3"])).status == ("tagged", "abstained", None)
    assert (await both[1].users(["ana"])).embeddings.tolist() == users.embeddings.tolist()
    assert (users.embeddings @ tracks.embeddings.T).tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("wrong", ["", "é" * 129])
def test_an_id_that_no_key_can_have_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="1 to 256 bytes of UTF-8"):
        FakeReader().tracks(["t1", wrong])


@pytest.mark.servers
def test_what_is_not_as_the_contract_says_is_one_sentence(servers: Servers, environment: dict[str, str]) -> None:
    client = redis.Redis.from_url(servers.redis.url)
    with pytest.raises(NoLiveRelease, match="no release under tw:live"):
        Reader(client).tracks(["t1"])
    client.hset(live_key(), mapping={"contract": "1", "release": RELEASE})
    client.hset(track_key(RELEASE, "wide"), mapping={"embedding": b"\0" * 8, "tagged_at": "1"})
    client.hset(track_key(RELEASE, "odd"), mapping={"tagged_at": "yesterday"})
    client.set(user_key(RELEASE, "ana"), "text")
    with pytest.raises(ContractBroken, match="'wide' has 8 bytes, and 40 float32 have 160"):
        Reader(client).tracks(["odd", "wide"])
    with pytest.raises(ContractBroken, match="a number is none"):
        Reader(client).tracks(["odd"])
    with pytest.raises(ContractBroken, match="of another type"):
        Reader(client).users(["ana"])
    with pytest.raises(ReaderError, match="without decode_responses"):
        Reader(redis.Redis.from_url(servers.redis.url, decode_responses=True)).users(["ana"])
    client.hset(live_key(), "contract", "2")
    with pytest.raises(ContractBroken, match="holds contract 2"):
        Reader(client).tracks(["t1"])


def test_a_redis_that_hangs_refuses_or_is_gone_is_unavailable(redis_server: Redis) -> None:
    url = redis_server.url
    with Reader.from_url(url, timeout_s=0.3) as reader:
        redis.Redis.from_url(url).hset(live_key(), mapping={"contract": "1", "release": RELEASE})
        assert not reader.users(["ana"]).found[0]
        redis_server.pause()
        started = time.monotonic()
        with pytest.raises(Unavailable, match="did not answer in time"):
            reader.users(["ana"])
        assert time.monotonic() - started < 5
        redis_server.resume()
        assert not reader.users(["ana"]).found[0]
        redis_server.kill()
        with pytest.raises(Unavailable, match="cannot be asked"):
            reader.users(["ana"])


async def test_the_reader_of_asyncio_is_unavailable_in_the_same_words() -> None:
    async with AsyncReader.from_url("redis://127.0.0.1:1", timeout_s=0.3) as reader:
        with pytest.raises(Unavailable, match="cannot be asked"):
            await reader.tracks(["t1"])


def test_the_package_installs_into_an_empty_environment_and_is_imported_at_once(tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    python = tmp_path / "env/bin/python"
    subprocess.run(
        [uv, "build", "--quiet", "--wheel", "--no-build-isolation", "--out-dir", tmp_path, PACKAGE], check=True
    )
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "env"], check=True)
    wheel = next(tmp_path.glob("*.whl"))
    subprocess.run([uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, wheel], check=True)
    listed = subprocess.run(
        [uv, "pip", "list", "--python", python, "--format", "json"], capture_output=True, check=True
    )
    installed = {one["name"] for one in json.loads(listed.stdout)}
    assert {"tastewave-reader", "numpy", "redis"} <= installed
    assert "tastewave" not in installed
    code = (
        "import time; began = time.process_time(); import tastewave_reader as r; took = time.process_time() - began; "
        "f = r.FakeReader(); f.put_track('t1', genre='jazz'); assert f.tracks(['t1']).genre == ('jazz',); print(took)"
    )
    took = [float(subprocess.run([python, "-c", code], capture_output=True, check=True).stdout) for _ in range(5)]
    assert min(took) < 0.15
