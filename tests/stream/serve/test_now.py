"""What workers say of themselves in Redis, and what GET /v1/now makes of it."""

from typing import Any, cast

import pytest
import redis.asyncio

from models.contract import workers_key
from stream.reader.reader import AnswerReader
from stream.serve.feed import FeedState
from stream.serve.now import Now
from stream.serve.taste import Change
from stream.store.workers import FORGOTTEN_AFTER_MS, WorkerReport, Workers
from tests.stream.serve.conftest import RELEASE, Held

AT = 1_795_653_950_000


class Feed:
    """A feed of a release of which one track was answered."""

    def state(self) -> FeedState:
        return FeedState(
            caught_up=True, release=RELEASE, loading=None, lag=0, problem=None, tracks=1, users=0, subscribers=0,
            memory_bytes=0,
        )  # fmt: skip

    def newest_tracks(self, count: int) -> list[Change]:
        return [Change("track", "t1", at=AT, status="tagged", genre="jazz")]


def report(worker: str, **given: Any) -> WorkerReport:
    facts: dict[str, Any] = {
        "role": "tracks", "release": RELEASE, "started_at": AT - 60_000, "at": AT, "problems": {}, "lag": 3,
        "in_hand": 2, "processes": 2, "restarts": 0, "done": {"tagged": 10}, "dead_letters": {},
    }  # fmt: skip
    return WorkerReport(worker=worker, **facts | given)


@pytest.fixture
async def client(held: Held):
    client = redis.asyncio.Redis.from_url(held.url, protocol=2)
    yield client
    await client.aclose()


async def test_a_worker_takes_those_out_that_have_long_been_silent_and_itself_when_it_stops(client) -> None:
    await client.hset(workers_key(), mapping={"foreign": "no report", b"\xff": "{}"})
    await Workers(client).write(report("old", at=AT - FORGOTTEN_AFTER_MS))
    await Workers(client).write(report("recent", at=AT - FORGOTTEN_AFTER_MS + 1))
    mine = Workers(client)
    await mine.write(report("mine"))
    assert await client.hkeys(workers_key()) == [b"recent", b"mine"]
    assert await AnswerReader(client).workers() == [report("mine"), report("recent", at=AT - FORGOTTEN_AFTER_MS + 1)]
    assert await client.ttl(workers_key()) > 0
    await mine.leave("mine")
    assert await client.hkeys(workers_key()) == [b"recent"]


async def test_rates_are_of_the_workers_of_the_live_release_and_count_none_twice(client) -> None:
    clock = [AT]
    now = Now(AnswerReader(client), cast(Any, Feed()), now_ms=lambda: clock[0])
    workers = Workers(client)
    await workers.write(report("steady", done={"tagged": 10, "failed": 1}, dead_letters={"too_short": 1}))
    await workers.write(report("other", release="another12345", done={"tagged": 500}))
    await now.look()
    assert now.state().spans == []
    clock[0] += 5_000
    done = {"tagged": 30, "failed": 2}
    await workers.write(report("steady", at=AT + 5_000, done=done, dead_letters={"too_short": 2}))
    await workers.write(report("new", role="listens", at=AT + 5_000, started_at=AT + 10, done={"taken": 7}, lag=40))
    await workers.write(report("other", release="another12345", at=AT + 5_000, done={"tagged": 900}))
    await workers.write(report("late to this server", at=AT + 5_000, done={"tagged": 1000}))
    await now.look()
    (span,) = now.state().spans
    assert (span.at, span.ms, span.tracks, span.listens, span.dead_letters) == (AT + 5_000, 5_000, 21, 7, 1)
    assert span.lag == 3 + 40 + 3


async def test_a_worker_that_died_is_silent_for_ten_minutes_and_then_is_told_no_more(client) -> None:
    clock = [AT]
    now = Now(AnswerReader(client), cast(Any, Feed()), now_ms=lambda: clock[0])
    dead_letters = {"not_audio": 2, "too_short": 5}
    await Workers(client).write(report("one", problems={"kafka": "away"}, dead_letters=dead_letters))
    await now.look()
    state = now.state()
    assert [(one.silent, one.problems, one.lag, one.processes) for one in state.workers] == [
        (False, {"kafka": "away"}, 3, 2)
    ]
    assert list(state.dead_letters.items()) == [("too_short", 5), ("not_audio", 2)]
    assert [(one.track_id, one.genre) for one in state.newest] == [("t1", "jazz")]
    clock[0] += 15_001
    assert [one.silent for one in now.state().workers] == [True]
    clock[0] += 600_000
    assert (now.state().workers, now.state().dead_letters) == ([], {})


async def test_while_redis_is_away_what_was_known_is_told_with_its_age(held: Held, client) -> None:
    now = Now(AnswerReader(client), cast(Any, Feed()), now_ms=lambda: AT)
    await Workers(client).write(report("one"))
    await now.look()
    held.client.delete(workers_key())
    held.client.set(workers_key(), "foreign")
    await now.look()
    state = now.state()
    assert (state.at, len(state.workers)) == (AT, 1)
    assert "tw:workers" in (state.problem or "")
