"""Workers that are killed, stopped, joined and replaced: the end is that of a run without faults."""

import dataclasses
import json
import random
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from models.contract import LIVE_KEY, TRACKS_TAGGED, TRACKS_UPLOADED, track_key
from models.genre import GenreHead
from models.release import DEFAULT, MANIFEST, Manifest, load_release, release_id
from models.sealed_folder import describe_file
from tests.platform.clock import now_ms, until
from tests.platform.load import uploading
from tests.platform.music import write_catalogue, write_music
from tests.platform.tracks import Platform

pytestmark = pytest.mark.servers


def answered(platform: Platform) -> int:
    return len(platform.tracks_held())


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_a_worker_killed_again_and_again_at_random_moments_ends_like_one_that_was_not(
    platform: Platform, undisturbed: Platform, kills: int
) -> None:
    chance = random.Random(1)
    with uploading(platform, write_catalogue(platform.folder), every_s=0.15):
        for kill in range(kills):
            worker, before = platform.start_worker(), answered(platform)
            if kill % 2:  # kill this one in mid-batch, the others while they start
                until(lambda before=before: answered(platform) > before)
            threading.Event().wait(chance.uniform(0.0, 2.0))
            worker.send_signal(signal.SIGKILL)
            worker.wait(30)
    platform.start_worker()
    platform.assert_ended_like(undisturbed, timeout_s=300)


def test_pool_processes_killed_in_mid_decode_cost_nothing(platform: Platform, undisturbed: Platform) -> None:
    long = write_music(platform.folder / "long.flac", seconds=100)
    worker = psutil.Process(platform.start_worker(pool_size="2").pid)
    platform.until_ready()

    def hears_it(process: psutil.Process) -> bool:
        try:
            return any(Path(file.path) == long for file in process.open_files())
        except psutil.NoSuchProcess:
            return False

    with uploading(platform, write_catalogue(platform.folder), every_s=0.2):
        for number in range(4):
            event = platform.upload(long.as_uri(), track_id=f"long-{number}")
            until(lambda: next(filter(hears_it, worker.children()), None)).kill()
            assert platform.wait_for(event).status != "failed"
    assert platform.worker_log().count("pool.process_lost") == 4
    platform.assert_ended_like(undisturbed)


def test_a_track_that_kills_every_worker_becomes_a_dead_letter_and_those_beside_it_are_answered(
    platform: Platform,
) -> None:
    """Four workers that died of it are noted as if they had been killed before; the fifth is killed here."""
    beside = [write_music(platform.folder / f"{number}.flac", seed=number, seconds=60) for number in range(2)]
    with socket.create_server(("127.0.0.1", 0)) as silent:  # what fetches from it is in hand until it is killed
        guilty = platform.upload(f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp3", track_id="guilty")
        (record,) = platform.read(TRACKS_UPLOADED)
        key = f"tw:{platform.release}:hearing:{{{record.topic}/{record.partition}/{record.offset}}}"
        platform.redis.sadd(key, "first", "second", "third", "fourth")
        others = [platform.upload(file.as_uri()) for file in beside]
        worker = platform.start_worker()
        until(lambda: platform.redis.scard(key) == 5)
        worker.send_signal(signal.SIGKILL)
        worker.wait(30)
        platform.start_worker()
        answer = platform.wait_for(guilty)
    assert (answer.status, answer.reason) == ("failed", "process_crashed")
    for event in others:
        assert platform.wait_for(event).status != "failed"
    platform.settled()
    (letter,) = platform.dead_letters()
    assert (letter["attempts"], letter["reason"]) == ("5", "process_crashed")
    assert "5 workers were killed" in letter["message"]
    assert platform.redis.keys("tw:*:hearing:*") == [key.encode()]
    assert platform.redis.ttl(key) <= 600


def test_sigterm_in_mid_batch_again_and_again_leaves_no_duplicates_and_exits_in_time(
    platform: Platform, undisturbed: Platform
) -> None:
    uris = write_catalogue(platform.folder)
    for number in range(180):
        platform.upload(uris[number % len(uris)], track_id=f"t{number}")
    for number in range(3):
        before = answered(platform)
        worker = platform.start_worker()
        until(lambda before=before: answered(platform) >= before + 20)
        worker.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert worker.wait(60) == 0
        assert time.monotonic() - began < platform.settings.worker.drain_timeout_s
        assert "Traceback" not in platform.worker_log(number)
    assert answered(platform) < 180
    platform.start_worker()
    platform.assert_ended_like(undisturbed)
    assert len(platform.read(TRACKS_TAGGED)) == 180
    assert len(platform.dead_letters()) == 60


def test_workers_that_join_and_leave_in_mid_batch_end_like_one_that_stays(
    platform: Platform, undisturbed: Platform
) -> None:
    with uploading(platform, write_catalogue(platform.folder), every_s=0.1):
        platform.start_worker()
        platform.until_ready(0)
        for number in (1, 2):
            platform.start_worker()
            platform.until_ready(number)
            until(lambda number=number: json.loads(platform.health("/ready", number)[1])["partitions"])
        for number, how in ((0, signal.SIGTERM), (1, signal.SIGKILL)):
            platform.workers[number].send_signal(how)
            platform.workers[number].wait(60)
            before = answered(platform)
            until(lambda before=before: answered(platform) > before + 20)
        platform.start_worker()
    platform.assert_ended_like(undisturbed)


@pytest.fixture
def other_release(tmp_path: Path) -> Path:
    """The default release with other names for its genres, so that its answers can be told from the default's."""
    folder = shutil.copytree(DEFAULT, tmp_path / "other-release")
    head = GenreHead.load(folder / "genre.npz")
    assert head.kinds
    kinds = dataclasses.replace(head.kinds, names=tuple(f"{kind}, other" for kind in head.kinds.names))
    head = dataclasses.replace(head, classes=tuple(f"{genre}, other" for genre in head.classes), kinds=kinds)
    (folder / "genre.npz").write_bytes(head.to_bytes())
    manifest = load_release().manifest
    configuration = msgspec.structs.replace(manifest.configuration, genres=head.classes)
    files = {name: describe_file(folder / name) for name in manifest.files}
    made: Manifest = msgspec.structs.replace(
        manifest, release_id=release_id(configuration, files), configuration=configuration, files=files
    )
    (folder / MANIFEST).write_bytes(msgspec.json.encode(made))
    return folder


class Reader:
    """A service that reads as the contract asks: each request looks up the live release, and reads only its answers."""

    def __init__(self, platform: Platform, track_ids: list[str]) -> None:
        self._platform = platform
        self._track_ids = track_ids
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.requests: list[tuple[str, tuple[tuple[str, ...], ...]]] = []

    def _read(self) -> None:
        while not self._stop.is_set():
            live = self._platform.redis.hget(LIVE_KEY, "release").decode()
            request = self._platform.redis.pipeline(transaction=False)
            for track_id in self._track_ids:
                request.hget(track_key(live, track_id), "genres")
            genres = [tuple(name for name, _ in json.loads(found)) for found in request.execute() if found]
            self.requests.append((live, tuple(genres)))

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_two_releases_side_by_side_and_a_switch_back_and_forth_never_mix(
    platform: Platform, other_release: Path
) -> None:
    files = [write_music(platform.folder / f"{number}.wav", seed=number, seconds=3.2) for number in range(4)]
    other = load_release(other_release).release_id
    platform.start_worker()
    platform.until_ready(0)
    platform.start_worker(release=str(other_release))
    platform.until_ready(1)
    assert platform.redis.hget(LIVE_KEY, "release").decode() == platform.release
    first = [platform.upload(files[number % 4].as_uri(), track_id=f"t{number}").track_id for number in range(20)]
    for release in (platform.release, other):
        until(lambda release=release: all(platform.redis.exists(track_key(release, track_id)) for track_id in first))
    with Reader(platform, first) as reader:
        for turn in range(6):
            platform.run("release", "activate", (other, platform.release)[turn % 2])
            platform.upload(files[turn % 4].as_uri(), track_id=f"t{turn}", at=now_ms())
            seen = len(reader.requests)
            until(lambda seen=seen: len(reader.requests) > seen + 20)
    assert {live for live, _ in reader.requests} == {platform.release, other}
    switches = sum(one[0] != next_one[0] for one, next_one in zip(reader.requests, reader.requests[1:], strict=False))
    assert switches == 6
    for live, answers in reader.requests:
        assert len(answers) == len(first)
        assert {name.endswith(", other") for genres in answers for name in genres} == {live == other}
    until(lambda: platform.lag(0) == platform.lag(1) == 0)
    last = {record.key.decode(): json.loads(record.value) for record in platform.read(TRACKS_TAGGED)}
    assert len(last) == 2 * len(first)
    for track_id in first:
        of_default, of_other = (last[f"{release}:{track_id}"] for release in (platform.release, other))
        assert [f"{name}, other" for name, _ in of_default["genres"]] == [name for name, _ in of_other["genres"]]
        assert of_default["event_time"] == of_other["event_time"] == platform.held(track_id).event_time
