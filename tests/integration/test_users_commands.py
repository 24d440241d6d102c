"""The commands that look at users, forget them and rebuild them, beside real workers."""

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.contract import FORGOTTEN, LIVE_KEY, forgotten_user_key, history_key, user_key
from models.events import Forgotten, Listen, UserEmbedded, decode_event
from models.release import load_release
from stream.reader.answers import live_release, read_user
from tests.conftest import TowerOf
from tests.platform import taste
from tests.platform.clock import now_ms, until
from tests.platform.listens import TRACKS, ListenPlatform, made_up_listens
from tests.platform.tracks import worker_environment

pytestmark = pytest.mark.servers
Make = Callable[..., ListenPlatform]


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory, tower_of: TowerOf) -> list[Path]:
    """Two releases with towers that differ."""
    folder = tmp_path_factory.mktemp("releases")
    return [
        taste.write_release(folder / f"release-{known}", tower_of(TRACKS[:known], history=20)) for known in (30, 36)
    ]


@pytest.fixture
def make(environment: dict[str, str], releases: list[Path], tmp_path: Path) -> Iterator[Make]:
    """Makes a platform on one of the two releases; all share the topics and the Redis of the test."""
    platforms: list[ListenPlatform] = []

    def make(number: int = 0) -> ListenPlatform:
        folder = tmp_path / f"platform-{len(platforms)}"
        folder.mkdir()
        own = environment | {"TASTEWAVE_RELEASE": str(releases[number]), "COLUMNS": "200"}
        platforms.append(ListenPlatform(worker_environment(own, folder), folder))
        return platforms[-1]

    yield make
    for platform in platforms:
        platform.close()


def play(user_id: str, track_id: str, at: int) -> Listen:
    return Listen(
        event_id="e", user_id=user_id, track_id=track_id, kind="play", at=at, played_ms=200_000, duration_ms=210_000
    )


def test_a_person_is_shown_where_they_stand_and_what_is_near(make: Make) -> None:
    platform = make()
    platform.start_worker()
    platform.until_ready()
    nobody = platform.run("get", "user", "ann")
    assert "global (Redis knows nothing of this user)" in nobody
    said = platform.run("listen", "ann", "t1", "t2", "t3", "--wait")
    assert "3 listens (play) of ann counted" in said
    late = ("listen", "ann", "t3", "--at", str(now_ms() - 3_600_000), "--wait")
    assert "1 listen (play) of ann counted" in platform.run(*late)
    assert (held := platform.user("ann"))
    assert held.listens == 4
    told_again = platform.try_to_run(*late, "--timeout", "1")
    assert told_again.returncode == 1
    assert "A listen that was told before" in told_again.stderr
    shown = platform.run("get", "user", "ann")
    assert "history" in shown
    assert "40 dimensions" in shown
    offered = [line.split()[0] for line in shown.splitlines() if line.split() and line.split()[0] in TRACKS]
    tower = load_release(platform.settings.worker.release).user_tower()
    held = platform.user("ann")
    assert held
    scores = tower.items.vectors @ held.embedding
    best = [tower.items.track_id(row) for row in scores.argsort()[::-1].tolist()]
    assert offered == [track for track in best if track not in ("t1", "t2", "t3")][:5]
    assert decode_event(platform.run("get", "user", "ann", "--json").encode(), UserEmbedded) == held
    unknown = platform.try_to_run("get", "user", "ann", "--release", "ffffffffffff")
    assert unknown.returncode == 1
    assert "release ffffffffffff knows no user ann" in unknown.stderr


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.soak)])
def test_a_forgotten_user_stays_forgotten_through_kills_a_rewind_and_a_rebuild(make: Make, kills: int) -> None:
    platform = make()
    users = ["ann", "bob", "eve"]
    before = [play(user, track, now_ms() - 60_000 + number) for user in users for number, track in enumerate(TRACKS)]
    platform.listen(before)
    worker = platform.start_worker()
    platform.settled()
    assert platform.run("get", "user", "ann", "--json")
    receipt = platform.run("forget", "user", "ann", "--yes")
    assert "40 listens, 0 likes, dislikes and exclusions" in receipt
    assert platform.release in receipt
    for topic in ("tastewave.listens", "tastewave.users.embedded", "tastewave.dead-letter"):
        assert platform.settings.topics.named(topic) in receipt

    (fact,) = [(record.key, decode_event(record.value, Forgotten)) for record in platform.read(FORGOTTEN)]
    assert fact[0] == b"user:ann"
    assert (fact[1].kind, fact[1].id) == ("user", "ann")
    for kill in range(kills):
        at = now_ms()
        platform.listen([before[kill], play("bob", TRACKS[kill], at)])
        if kill % 4 == 0:  # this worker is killed after it has taken them, the others at any moment
            until(lambda at=at: platform.user("bob").event_time >= at)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        if kill == kills // 2:
            until(lambda: platform.try_to_run("rewind", "listens", "--minutes", "5").returncode == 0, timeout_s=60)
        worker = platform.start_worker()
    platform.settled()
    rebuilt = platform.run("users", "rebuild")
    assert "0 users rebuilt, 2 were up to date" in rebuilt
    platform.run("users", "rebuild", "--from-kafka", "--since", "60")
    assert platform.user("ann") is None
    assert not platform.redis.exists(history_key("ann"))
    assert platform.redis.exists(forgotten_user_key("ann"))
    published = platform.published()
    assert published["ann"] is None
    assert published["bob"] == platform.user("bob")
    assert published["eve"] == platform.user("eve")

    later = now_ms()
    platform.listen([play("ann", "t7", later)])
    held = until(lambda: platform.user("ann"))
    assert held.listens == 1


def test_a_forgotten_track_has_no_answer_and_its_topics_are_emptied(make: Make) -> None:
    platform = make()
    receipt = platform.run("forget", "track", "t1", "--yes")
    assert "answers removed" in receipt
    assert platform.settings.topics.named("tastewave.tracks.features") in receipt
    (record,) = platform.read(FORGOTTEN)
    assert (record.key, decode_event(record.value, Forgotten).id) == (b"track:t1", "t1")
    (features,) = platform.read("tastewave.tracks.features")
    assert (features.key, features.value) == (b"t1", None)
    too_long = platform.try_to_run("forget", "track", "x" * 300, "--yes")
    assert too_long.returncode == 1
    assert "the id breaks the contract" in too_long.stderr


def test_nothing_is_forgotten_without_a_yes(make: Make) -> None:
    platform = make()
    refused = platform.try_to_run("forget", "user", "ann")
    assert refused.returncode == 1
    assert platform.read(FORGOTTEN) == []


def test_lost_histories_come_back_from_kafka(make: Make) -> None:
    platform = make()
    listens = made_up_listens(users=5, each=40)
    platform.listen(listens)
    platform.start_worker()
    platform.settled()
    users = sorted({one.user_id for one in listens})
    before = platform.ends(users)
    for user in users:
        platform.redis.delete(history_key(user), f"tw:feedback:{{{user}}}", user_key(platform.release, user))
    platform.run("users", "rebuild", "--from-kafka", "--since", "60")
    assert platform.ends(users) == before
    usage = platform.try_to_run("users", "rebuild", "--from-kafka")
    assert usage.returncode == 2
    assert "--from-kafka and --since go together" in usage.stderr


def test_a_new_release_takes_over_under_live_traffic_without_a_mix_or_a_missing_user(make: Make) -> None:
    old, new = make(0), make(1)
    listens = made_up_listens(users=30, each=20)
    users = sorted({one.user_id for one in listens})
    old.listen(listens)
    old.start_worker()
    old.settled()
    assert live_release(old.redis) == old.release
    stopped, wrong, read = threading.Event(), list[str](), list[int]()

    def keep_listening() -> None:
        number = 0
        while not stopped.is_set():
            number += 1
            old.listen([play(user, TRACKS[number % 30], now_ms()) for user in users[::7]])

    def keep_reading() -> None:
        """A reader takes the live release once for a request, and finds every user there."""
        while not stopped.is_set():
            release = live_release(old.redis)
            held = [read_user(old.redis, user, release=release) for user in users]
            wrong.extend(f"{user} in {release}" for user, one in zip(users, held, strict=True) if one is None)
            wrong.extend(f"{one.release} in {release}" for one in held if one and one.release != release)
            read.append(len(held))

    threads = [threading.Thread(target=work) for work in (keep_listening, keep_reading)]
    for thread in threads:
        thread.start()
    try:
        new.start_worker()
        until(lambda: new.health("/ready")[0] == 200)
        new.run("users", "rebuild")
        new.run("release", "activate", new.release)
        after = len(read)
        until(lambda: len(read) > after + 2)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert old.redis.hget(LIVE_KEY, "release") == new.release.encode()
    for platform in (old, new):
        platform.settled()
        assert len(set(platform.redis.scan_iter(f"tw:{platform.release}:user:*", count=1000))) == len(users)
    ends = [[platform.user(user) for user in users] for platform in (old, new)]
    pairs = [(before, after) for before, after in zip(*ends, strict=True) if before and after]
    assert len(pairs) == len(users)
    assert any(before.embedding != after.embedding for before, after in pairs)
    assert all(before.revision == after.revision for before, after in pairs)
