"""From a listen on Kafka to where its user stands, in Redis and on Kafka."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import redis.asyncio

from models.contract import history_key, track_fields, track_key
from models.events import Listen, TrackTagged, encode_event
from models.history import (
    FEEDBACK_KINDS,
    HISTORY_KINDS,
    KINDS,
    StoredHistory,
    feedback_member,
    feedback_score,
    history_member,
)
from models.refresh import embed_newest, read_newest
from models.release import load_release
from stream.store.histories import Change, HistoryStore
from tests.conftest import TowerOf
from tests.platform import taste
from tests.platform.clock import now_ms, until
from tests.platform.encoders import write_filterbank
from tests.platform.listens import TRACKS, ListenPlatform, made_up_listens
from tests.platform.tracks import worker_environment

pytestmark = pytest.mark.servers
Make = Callable[..., ListenPlatform]


@pytest.fixture(scope="session")
def tower(tower_of: TowerOf) -> Path:
    return tower_of(TRACKS[:30], history=20)


@pytest.fixture
def make(environment: dict[str, str], tower: Path, tmp_path: Path) -> Iterator[Make]:
    """Makes the platform of a test, on a release with the tower."""
    platforms = []

    def make(*, audio_encoder: Path | None = None, **settings: str) -> ListenPlatform:
        release = taste.write_release(tmp_path / "release", tower, audio_encoder=audio_encoder)
        own = {f"TASTEWAVE_{name.upper()}": value for name, value in settings.items()}
        own["TASTEWAVE_RELEASE"] = str(release)
        platforms.append(ListenPlatform(worker_environment(environment | own, tmp_path), tmp_path))
        return platforms[-1]

    yield make
    for platform in platforms:
        platform.close()


def play(user_id: str, track_id: str, at: int, kind: str = "play") -> Listen:
    lengths = {"played_ms": 200_000, "duration_ms": 210_000} if kind in ("play", "skip") else {}
    return Listen(event_id="e", user_id=user_id, track_id=track_id, kind=kind, at=at, **lengths)  # type: ignore[arg-type]


def test_every_user_ends_where_all_listens_together_say(make: Make) -> None:
    platform = make(user_history="30", user_feedback="12")
    listens = made_up_listens()
    strangers = [b"no listen", b'{"event_id": "e"}', encode_event(play("u1", "t1", now_ms() + 10**9))]
    platform.start_worker()
    platform.until_ready()
    platform.listen([*listens[:1500], *strangers, *listens[1500:]])
    platform.settled()

    users = sorted({one.user_id for one in listens})
    counted = [one for one in listens if not one.excluded]
    histories = []
    for user_id in users:
        own = [one for one in counted if one.user_id == user_id]
        members = sorted({history_member(one) for one in own if one.kind in HISTORY_KINDS})[-30:]
        said = [one for one in own if one.kind in FEEDBACK_KINDS]
        said.sort(key=lambda one: (one.at, KINDS.index(one.kind), one.track_id))
        latest = {(one.kind, one.track_id): one for one in said}.values()
        newest = sorted(latest, key=said.index)[-12:]
        histories.append(StoredHistory(members, [(feedback_member(one), feedback_score(one.at)) for one in newest]))
    tower = load_release(platform.settings.worker.release).user_tower()
    expected = embed_newest(tower, read_newest(tower, histories), {})

    ends = platform.ends(users)
    assert len(ends) == 40
    for number, (user_id, history) in enumerate(zip(users, histories, strict=True)):
        assert ends[user_id].history == history.members
        assert ends[user_id].feedback == history.feedback
        held = platform.user(user_id)
        assert held
        np.testing.assert_allclose(held.embedding, expected.embeddings[number], atol=1e-5)
        assert (held.listens, held.event_time) == (expected.listens[number], expected.event_time[number])
    letters = platform.dead_letters()
    assert {letter["value"]: letter["reason"] for letter in letters} == dict(
        zip(strangers, ("malformed_event", "malformed_event", "future_event"), strict=True)
    )
    outcomes = events(platform)
    assert outcomes["refused"] == len(letters) == 3
    assert outcomes["excluded"] == len(listens) - len(counted)
    assert outcomes["taken"] + outcomes["outdated"] == len(counted)
    assert outcomes["outdated"] > 300
    assert platform.redis.smembers("tw:releases") == {platform.release.encode()}


def events(platform: ListenPlatform) -> dict[str, int]:
    """The listens that the first worker counts, by outcome."""
    outcomes = dict[str, int]()
    for line in platform.health("/metrics")[1].splitlines():
        if line.startswith("tastewave_events_total"):
            outcome = line.partition('outcome="')[2].partition('"')[0]
            outcomes[outcome] = outcomes.get(outcome, 0) + int(float(line.rpartition(" ")[2]))
    return outcomes


def test_a_user_without_a_usable_listen_is_placed_at_the_global_embedding_until_there_is_one(make: Make) -> None:
    platform = make()
    platform.start_worker()
    platform.listen([play("u1", "t1", now_ms() - 5000, "skip"), play("u2", "a track of no tower", now_ms() - 5000)])
    for user_id in ("u1", "u2"):
        held = until(lambda user_id=user_id: platform.user(user_id))
        assert (held.source, held.listens, held.revision) == ("global", 1, held.revision)
        np.testing.assert_allclose(held.embedding, taste.GLOBAL, atol=1e-6)
    platform.listen([play("u1", "t1", now_ms())])
    held = until(lambda: (held := platform.user("u1")) and held.source == "history" and held)
    assert held.listens == 2
    assert held.embedding != pytest.approx(taste.GLOBAL, abs=1e-3)


def test_a_track_that_the_tower_does_not_know_counts_from_the_refresh_after_it_was_tagged(
    make: Make, tmp_path: Path
) -> None:
    platform = make(audio_encoder=write_filterbank(tmp_path / "encoder", dim=taste.DIM))
    tower = load_release(platform.settings.worker.release).user_tower()
    vector = np.array(tower.items.vectors[3])
    platform.start_worker()
    platform.listen([play("u1", "new", now_ms() - 9000)])
    assert until(lambda: platform.user("u1")).source == "global"
    answer = TrackTagged(
        track_id="new", release=platform.release, status="tagged", event_time=1, event_id="e", tagged_at=1,
        embedding=tuple(vector.tolist()),
    )  # fmt: skip
    platform.redis.hset(track_key(platform.release, "new"), mapping=track_fields(answer))
    platform.listen([play("u1", "new", now_ms() - 5000)])
    held = until(lambda: (held := platform.user("u1")) and held.source == "history" and held)
    row = tower.items.track_id(3)
    members = platform.redis.zrange(history_key("u1"), 1, -1)
    twin = StoredHistory([member.replace(b"new", row.encode()) for member in members])
    expected = embed_newest(tower, read_newest(tower, [twin]), {}).embeddings[0]
    np.testing.assert_allclose(held.embedding, expected, atol=1e-5)


async def add(platform: ListenPlatform, listens: list[Listen]) -> None:
    async with redis.asyncio.Redis.from_url(platform.environment["TASTEWAVE_REDIS_URL"]) as client:
        changes = {one.user_id: Change({history_member(one): one.at}, {}) for one in listens}
        await HistoryStore(client, platform.settings.users).add(changes)


def test_users_are_embedded_and_published_again_where_a_worker_was_killed_before_it_did(make: Make) -> None:
    platform = make()
    listens = [play(f"u{number}", "t1", now_ms() - 1000) for number in range(20)]
    asyncio.run(add(platform, listens))  # what a worker leaves that is killed after it has added to the histories
    platform.listen(listens)
    platform.start_worker()
    platform.settled()
    ends = platform.ends([one.user_id for one in listens])
    assert all(end.published and end.published.source == "history" for end in ends.values())
    assert all(len(end.history) == 1 and end.feedback == [] for end in ends.values())


def test_a_release_without_a_tower_ends_the_worker_with_one_sentence(
    environment: dict[str, str], tmp_path: Path
) -> None:
    own = {"TASTEWAVE_RELEASE": str(taste.write_release(tmp_path / "release", None))}
    with closing(ListenPlatform(worker_environment(environment | own, tmp_path), tmp_path)) as platform:
        done = platform.try_to_run("worker", "listens")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: release {platform.release} has no user tower")
    assert len(done.stderr.splitlines()) == 1


def test_a_history_shorter_than_what_the_tower_reads_ends_the_worker_with_one_sentence(make: Make) -> None:
    platform = make(user_history="19")
    done = platform.try_to_run("worker", "listens")
    assert done.returncode == 1
    assert "TASTEWAVE_USER_HISTORY is 19, and the user tower" in done.stderr
    assert "reads the newest 20 listens; raise it to that" in done.stderr
    assert len(done.stderr.splitlines()) == 1
