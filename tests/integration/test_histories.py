"""Histories, feedback and embeddings of users on a real Redis."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from models.contract import feedback_key, forgotten_user_key, history_key, user_fields, user_key
from models.events import Listen, UserEmbedded
from models.history import FEEDBACK_KINDS, HISTORY_KINDS, feedback_member, history_member
from stream.settings import UserSettings
from stream.store.forgotten import ForgottenUser, forget_user
from stream.store.histories import Change, HistoryStore
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
    assert states["u1"].stored.feedback == [(b"\x02c", NOON + 3)]
    assert states["u2"].stored == (members(early), [])
    assert await histories.read(["u2", "u1"]) == {"u2": states["u2"], "u1": states["u1"]}


async def test_a_user_that_nobody_knows_has_revision_0_and_nothing_is_written(histories: HistoryStore, client) -> None:
    assert await histories.read(["nobody"]) == {"nobody": (0, ([], []), 0, 0)}
    assert await client.keys() == []
