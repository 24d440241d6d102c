"""Histories, feedback and embeddings of users on a real Redis."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from models.contract import user_fields
from models.events import Listen, UserEmbedded
from models.history import FEEDBACK_KINDS, HISTORY_KINDS, feedback_member, history_member
from stream.settings import UserSettings
from stream.store import pipelines
from stream.store.away import ForeignValue, is_redis_away, redis_advice
from stream.store.forgotten import ForgottenUser, forget_user
from stream.store.histories import Change, HistoryStore, UserState
from stream.store.users import UserStore

pytestmark = pytest.mark.servers
RELEASE = "0123456789ab"
NOON = 1_767_225_600_000
DAY_S = 86_400


def listen(track_id: str, at: int, kind: str = "play", **values: Any) -> Listen:
    lengths = {"played_ms": 200_000, "duration_ms": 210_000} if kind in ("play", "skip") else {}
    return Listen(event_id="e", user_id="u1", track_id=track_id, kind=kind, at=NOON + at, **(lengths | values))  # type: ignore[arg-type]


def change(*listens: Listen) -> Change:
    feedback: dict[bytes, int] = {}
    for one in listens:
        if one.kind in FEEDBACK_KINDS:
            member = feedback_member(one)
            feedback[member] = max(feedback.get(member, 0), one.at)
    return Change({history_member(one): one.at for one in listens if one.kind in HISTORY_KINDS}, feedback)


def members(*listens: Listen) -> list[bytes]:
    return [history_member(one) for one in listens]


def said(state: UserState) -> list[tuple[bytes, int]]:
    """What stands in the feedback: the code of the kind with the track, and when it was said after noon."""
    numbers = [(int(score) << 40 | int.from_bytes(head[:5], "big"), head[5:]) for head, score in state.stored.feedback]
    return [(bytes([number % 32]) + track_id, number // 32 - NOON) for number, track_id in numbers]


def user(revision: int, *, user_id: str = "u1", refreshed_at: int = NOON, x: float = 1.0) -> UserEmbedded:
    return UserEmbedded(
        user_id=user_id,
        release=RELEASE,
        embedding=(x, 0.5),
        source="history",
        listens=3,
        event_time=NOON,
        revision=revision,
        refreshed_at=refreshed_at,
    )


async def until_later_than(client: redis.asyncio.Redis, time_ms: int) -> None:
    """Return in a later millisecond of the server."""
    while True:
        seconds, microseconds = await client.time()
        if seconds * 1000 + microseconds // 1000 > time_ms:
            return


@pytest.fixture
async def client(environment: dict[str, str]) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis.from_url(environment["TASTEWAVE_REDIS_URL"])
    yield client
    await client.aclose()


@pytest.fixture
def histories(client: redis.asyncio.Redis) -> HistoryStore:
    return HistoryStore(client, UserSettings(history=3, feedback=2, ttl_days=10))


@pytest.fixture
def users(client: redis.asyncio.Redis) -> UserStore:
    return UserStore(client, RELEASE, ttl=10 * DAY_S)


async def test_what_is_added_is_read_oldest_first_with_its_feedback(histories: HistoryStore) -> None:
    late, early, like = listen("b", 2), listen("a", 1), listen("c", 3, "like")
    states = await histories.add({"u1": change(late, early, like), "u2": change(early)})
    assert states["u1"].stored.members == members(early, late, like)
    assert said(states["u1"]) == [(b"\x02c", 3)]
    assert states["u2"].stored == (members(early), [])
    assert await histories.read(["u2", "u1"]) == {"u2": states["u2"], "u1": states["u1"]}


async def test_a_user_that_nobody_knows_has_revision_0_and_nothing_is_written(histories: HistoryStore, client) -> None:
    assert await histories.read(["nobody"]) == {"nobody": (0, ([], []), 0, 0)}
    assert await client.keys() == []


async def test_the_newest_by_time_and_bytes_are_kept_whatever_comes_last(histories: HistoryStore, client) -> None:
    plays = [listen(track_id, at) for track_id, at in [("d", 5), ("c", 5), ("a", 9), ("b", 5), ("z", 1)]]
    for one in plays:
        state = (await histories.add({"u1": change(one)}))["u1"]
    assert state.stored.members == members(plays[1], plays[0], plays[2])
    assert state.outdated == 1
    assert await client.zcard("tw:history:{u1}") == 4  # and the revision


async def test_of_one_batch_the_newest_alone_are_sent_and_the_others_are_counted(histories: HistoryStore) -> None:
    plays = [listen("a", at) for at in range(5000)]
    likes = [listen(f"t{at}", at, "like") for at in range(5000, 5004)]
    state = (await histories.add({"u1": change(*plays, *likes)}))["u1"]
    assert state.stored.members == members(*likes[1:])
    assert [at for _, at in said(state)] == [5002, 5003]
    assert state.outdated == 5000 + 1 + 2


async def test_feedback_keeps_the_latest_time_of_each_kind_and_track(histories: HistoryStore) -> None:
    await histories.add({"u1": change(listen("a", 7, "like"), listen("a", 8, "unlike"))})
    state = (await histories.add({"u1": change(listen("a", 5, "like"), listen("a", 9, "unlike"))}))["u1"]
    assert said(state) == [(b"\x02a", 7), (b"\x03a", 9)]
    assert state.outdated == 0
    state = (await histories.add({"u1": change(listen("b", 8, "exclude"))}))["u1"]
    assert said(state) == [(b"\x08b", 8), (b"\x03a", 9)]
    state = (await histories.add({"u1": change(listen("c", 1, "exclude"))}))["u1"]
    assert state.outdated == 1


async def test_of_what_one_batch_says_of_a_track_the_latest_counts_and_takes_one_place(histories: HistoryStore) -> None:
    likes = [listen("a", at, "like") for at in (6, 9, 7, 8)]
    for order in (likes, likes[::-1]):
        state = (await histories.add({"u1": change(*order, listen("b", 1, "exclude"))}))["u1"]
        assert said(state) == [(b"\x08b", 1), (b"\x02a", 9)]
    thirteen_months_ms = 2**35  # after which members repeat, with another score
    state = (await histories.add({"u1": change(listen("a", 9 + thirteen_months_ms, "like"))}))["u1"]
    assert said(state) == [(b"\x08b", 1), (b"\x02a", 9 + thirteen_months_ms)]
    assert said((await histories.add({"u1": change(*likes)}))["u1"]) == said(state)


async def test_the_revision_grows_with_every_change_and_with_nothing_else(histories: HistoryStore, client) -> None:
    seen: list[int] = []

    async def revision(*listens: Listen) -> int:
        seen.append((await histories.add({"u1": change(*listens)}))["u1"].revision)
        return seen[-1]

    before_ms = int((await client.time())[0]) * 1000
    full = [listen("a", 5), listen("b", 6), listen("c", 7)]
    first = await revision(*full)
    assert first >= before_ms
    assert await revision(*full) == first
    assert await revision(listen("z", 1)) == first  # older than all
    assert await revision(listen("z", 1), *full) == first
    later = await revision(listen("d", 6))
    assert later > first
    liked = await revision(listen("z", 4, "like"))  # feedback alone changes
    assert liked > later
    assert await revision(listen("z", 3, "like")) == liked
    assert await revision(listen("y", 5, "exclude"), listen("x", 5, "exclude")) > liked
    latest = seen[-1]
    assert await revision(listen("w", 1, "exclude")) == latest
    await client.zadd("tw:history:{u1}", {"r": -(latest + 10**9)})  # as where the clock went back since
    assert await revision(listen("e", 8)) == latest + 10**9 + 1


async def test_the_revision_grows_across_a_deletion(histories: HistoryStore, client) -> None:
    before = (await histories.add({"u1": change(listen("a", 5))}))["u1"].revision
    await client.delete("tw:history:{u1}")
    await until_later_than(client, before)
    assert (await histories.add({"u1": change(listen("a", 5))}))["u1"].revision > before


async def test_history_feedback_and_embedding_last_as_long_as_the_setting_after_the_last_change(
    histories: HistoryStore, users: UserStore, client
) -> None:
    keys = ["tw:history:{u1}", "tw:feedback:{u1}", f"tw:{RELEASE}:user:{{u1}}"]

    async def ages() -> list[int]:
        return [10 * DAY_S - await client.ttl(key) for key in keys]

    await histories.add({"u1": change(listen("a", 5), listen("b", 6, "like"))})
    await users.put([user(1)])
    assert all(0 <= age <= 5 for age in await ages())
    for key in keys:
        await client.expire(key, 5 * DAY_S)
    await histories.add({"u1": change(listen("a", 5))})  # no change
    assert all(age >= 5 * DAY_S for age in await ages())
    await histories.add({"u1": change(listen("a", 7))})  # of the history alone
    await users.put([user(2)])
    assert all(0 <= age <= 5 for age in await ages())


async def test_an_embedding_gives_way_to_one_that_is_not_older(users: UserStore, client) -> None:
    first = user(5)
    assert await users.put([first]) == [first]
    assert await client.hgetall(f"tw:{RELEASE}:user:{{u1}}") == {
        name.encode(): value for name, value in user_fields(first).items()
    }
    assert await users.put([user(4, x=0.25, refreshed_at=NOON + 9)]) == [first]
    assert await users.put([user(5, refreshed_at=NOON + 9)]) == [first]  # the same: who wrote it first has published it
    another = user(5, x=0.25, refreshed_at=NOON + 9)
    assert await users.put([another]) == [another]
    assert await users.put([first]) == [another]
    newer = user(6, x=0.75)
    assert await users.put([newer, user(1, user_id="u2")]) == [newer, user(1, user_id="u2")]
    assert await users.get(["u2", "nobody", "u1"]) == [user(1, user_id="u2"), None, newer]
    assert await users.revisions(["u2", "nobody", "u1"]) == [1, None, 6]


async def test_a_forgotten_user_is_gone_everywhere_at_once_and_stays_so(
    histories: HistoryStore, users: UserStore, client
) -> None:
    old, like = listen("a", 5), listen("b", 6, "like")
    state = (await histories.add({"u1": change(old, like)}))["u1"]
    await users.put([user(state.revision)])
    forgotten = await forget_user(client, "u1", NOON + 6, releases=["another12345", RELEASE])
    assert forgotten == ForgottenUser(NOON + 6, listens=2, feedback=1, left=0, releases=(RELEASE,))
    assert await client.keys() == [b"tw:forgotten:{u1}"]
    assert await client.ttl("tw:forgotten:{u1}") == -1
    assert await users.put([user(state.revision)]) == [None]  # of a worker that had computed it before
    state = (await histories.add({"u1": change(old, like)}))["u1"]
    assert state == (0, ([], []), 0, 3)
    assert await users.put([user(state.revision)]) == [None]
    assert await client.keys() == [b"tw:forgotten:{u1}"]
    new = (await histories.add({"u1": change(old, listen("c", 7))}))["u1"]
    assert (new.stored.members, new.forgotten) == (members(listen("c", 7)), 1)
    assert await users.put([user(new.revision)]) == [user(new.revision)]


async def test_what_is_later_than_the_time_up_to_which_a_user_is_forgotten_stays(
    histories: HistoryStore, users: UserStore, client
) -> None:
    later = [listen("c", 8, "like"), listen("d", 9)]
    before = (await histories.add({"u1": change(listen("a", 5), listen("b", 6, "like"), *later)}))["u1"]
    await users.put([user(before.revision)])
    forgotten = await forget_user(client, "u1", NOON + 7, releases=[RELEASE])
    assert forgotten == ForgottenUser(NOON + 7, listens=1, feedback=1, left=3, releases=(RELEASE,))
    assert await users.put([user(before.revision)]) == [None]
    after = (await histories.read(["u1"]))["u1"]
    assert (after.stored.members, said(after)) == (members(*later), [(b"\x02c", 8)])
    assert after.revision > before.revision
    assert await users.put([user(after.revision)]) == [user(after.revision)]
    again = await forget_user(client, "u1", NOON + 4, releases=[RELEASE])  # nothing new
    assert again == ForgottenUser(NOON + 7, listens=0, feedback=0, left=3, releases=())
    assert await users.get(["u1"]) == [user(after.revision)]


async def test_a_key_that_is_not_tastewaves_is_named_and_the_other_users_are_served(
    histories: HistoryStore, users: UserStore, client
) -> None:
    keys = {"history": "tw:history:{u2}", "feedback": "tw:feedback:{u2}", "forgotten": "tw:forgotten:{u2}"}
    for key in keys.values():
        await client.set(key, "foreign")
        with pytest.raises(ForeignValue) as raised:
            await histories.add({name: change(listen("a", 5, "like")) for name in ("u1", "u2", "u3")})
        assert repr(key).strip("'") in str(raised.value)
        assert "{u1}" not in str(raised.value)
        assert is_redis_away(raised.value)
        await client.delete(key)
        assert (await histories.read(["u1"]))["u1"].stored.members
    await client.set(keys["forgotten"], "foreign")
    with pytest.raises(ForeignValue, match=r"tw:forgotten:\{u2\}"):
        await users.put([user(1), user(1, user_id="u2")])
    with pytest.raises(ForeignValue, match=r"tw:forgotten:\{u2\}"):
        await forget_user(client, "u2", NOON, releases=[])
    await client.set(f"tw:{RELEASE}:user:{{u3}}", "foreign")
    for use in (users.get(["u1", "u3"]), users.revisions(["u1", "u3"]), users.put([user(1, user_id="u3")])):
        with pytest.raises(ForeignValue, match=rf"tw:{RELEASE}:user:\{{u3\}}"):
            await use
    await client.delete(f"tw:{RELEASE}:user:{{u3}}")
    await client.hset(f"tw:{RELEASE}:user:{{u3}}", "foreign", "1")
    with pytest.raises(ForeignValue, match=rf"tw:{RELEASE}:user:\{{u3\}}"):
        await users.get(["u3"])


@pytest.mark.parametrize(
    ("command", "part"),
    [
        (command, "histories")
        for command in ("zadd", "zrange", "zmscore", "zrem", "zremrangebyrank", "expire", "time", "mget", "evalsha")
    ]
    + [(command, "users") for command in ("mget", "hset", "hmget", "hgetall", "expire", "evalsha")],
)
async def test_a_rehearsal_leaves_nothing_and_is_refused_where_a_listen_would_be(
    client, environment, command: str, part: str
) -> None:
    await client.acl_setuser("listens", enabled=True, nopass=True, keys=["*"], categories=["+@all"])
    url = environment["TASTEWAVE_REDIS_URL"].replace("//", "//listens:any@")
    async with redis.asyncio.Redis.from_url(url) as worker:
        parts = {"histories": HistoryStore(worker, UserSettings()), "users": UserStore(worker, RELEASE, ttl=DAY_S)}
        await parts[part].rehearse()
        assert await client.keys() == []
        await client.acl_setuser("listens", enabled=True, commands=[f"-{command}"])
        with pytest.raises(redis.exceptions.ResponseError) as raised:
            await parts[part].rehearse()
    await client.acl_deluser("listens")
    assert is_redis_away(raised.value)
    assert "deploy/docs/production.md" in redis_advice(raised.value)


async def test_a_right_that_is_taken_away_makes_redis_away_until_it_is_back(client, environment) -> None:
    await client.acl_setuser("listens", enabled=True, nopass=True, keys=["tw:*"], categories=["+@all"])
    url = environment["TASTEWAVE_REDIS_URL"].replace("//", "//listens:any@")
    async with redis.asyncio.Redis.from_url(url) as worker:
        histories = HistoryStore(worker, UserSettings())
        batch = {f"u{number}": change(listen("a", 5)) for number in range(100)}
        await client.acl_setuser("listens", enabled=True, commands=["-zadd"])
        with pytest.raises(redis.exceptions.ResponseError) as raised:
            await histories.add(batch)
        assert is_redis_away(raised.value)
        await client.acl_setuser("listens", enabled=True, commands=["+zadd"])
        states = await histories.add(batch)
    await client.acl_deluser("listens")
    assert [state.stored.members for state in states.values()] == [members(listen("a", 5))] * 100


async def test_scripts_that_redis_no_longer_knows_are_sent_again(histories: HistoryStore, client) -> None:
    await client.script_flush()
    states = await histories.add({f"u{number}": change(listen("a", 5)) for number in range(100)})
    assert len(states) == 100


async def test_a_redis_without_memory_is_away_and_still_read(redis_server) -> None:
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        histories = HistoryStore(client, UserSettings())
        held = await histories.add({"u1": change(listen("a", 5))})
        await client.config_set("maxmemory", "1")
        with pytest.raises(redis.exceptions.ResponseError, match="maxmemory") as full:
            await histories.add({"u1": change(listen("b", 6))})
        assert is_redis_away(full.value)
        assert await histories.read(["u1"]) == held


async def test_a_redis_that_hangs_is_away_and_its_late_answers_are_nobodys(
    redis_server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines, "_ANSWERS_TIMEOUT_S", 0.2)
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        histories = HistoryStore(client, UserSettings())
        held = await histories.add({"u1": change(listen("a", 5)), "u2": change(listen("b", 6))})
        redis_server.pause()
        with pytest.raises(redis.exceptions.TimeoutError) as raised:
            await histories.read(["u1"])
        assert is_redis_away(raised.value)
        monkeypatch.undo()
        redis_server.resume()
        assert await histories.read(["u2"]) == {"u2": held["u2"]}


async def test_the_longest_history_and_feedback_that_settings_allow_are_kept(client) -> None:
    histories = HistoryStore(client, UserSettings(history=1000, feedback=1000))
    likes = [listen(f"t{at}", at, "like") for at in range(1001)]
    state = (await histories.add({"u1": change(*likes)}))["u1"]
    assert state.stored.members == members(*likes[1:])
    assert len(state.stored.feedback) == 1000
    with pytest.raises(ValueError, match="1000"):
        UserSettings(history=1001)
