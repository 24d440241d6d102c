"""The handler of listens, with stores and a publisher that the test plays."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka.structs import ConsumerRecord
from redis.exceptions import ConnectionError as RedisConnectionError

from models.contract import USERS_EMBEDDED
from models.errors import TastewaveError
from models.events import Listen, UserEmbedded, encode_event
from models.history import StoredHistory
from models.user_tower import UserTower, load_user_tower
from stream.listens.handler import ListenHandler
from stream.store.histories import Change, UserState
from tests.conftest import TowerOf

NOON = 1_767_225_600_000
RELEASE = "0123456789ab"


class Histories:
    """Keeps everything, and counts what it is asked."""

    def __init__(self) -> None:
        self.added: list[Mapping[str, Change]] = []
        self.members: dict[str, set[bytes]] = {}
        self.forgotten: set[str] = set()

    async def add(self, changes: Mapping[str, Change]) -> dict[str, UserState]:
        self.added.append(changes)
        return {user_id: self._state(user_id, change) for user_id, change in changes.items()}

    def _state(self, user_id: str, change: Change) -> UserState:
        if user_id in self.forgotten:
            return UserState(0, StoredHistory([]), 0, len(change.history))
        members = self.members.setdefault(user_id, set())
        members |= change.history.keys()
        return UserState(len(members), StoredHistory(sorted(members)), 0, 0)


class Users:
    """Holds users; `then` runs once, after the first publishing, as another worker would."""

    def __init__(self) -> None:
        self.held: dict[str, UserEmbedded] = {}
        self.then: Callable[[], object] = lambda: None

    async def put(self, users: Sequence[UserEmbedded]) -> list[UserEmbedded | None]:
        self.held.update((user.user_id, user) for user in users)
        return list(users)

    async def get(self, user_ids: Sequence[str]) -> list[UserEmbedded | None]:
        return [self.held.get(user_id) for user_id in user_ids]

    async def revisions(self, user_ids: Sequence[str]) -> list[int | None]:
        then, self.then = self.then, lambda: None
        then()
        return [held.revision if (held := self.held.get(user_id)) else None for user_id in user_ids]


class Publisher:
    """Remembers what is published."""

    def __init__(self) -> None:
        self.calls = 0
        self.sent: list[tuple[bytes, bytes | None]] = []
        self.letters: list[tuple[ConsumerRecord, TastewaveError]] = []
        self.fails: BaseException | None = None

    async def send_many(self, topic: str, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        assert topic == USERS_EMBEDDED
        self.calls += 1
        if self.fails:
            raise self.fails
        self.sent += records

    async def dead_letter(self, record: ConsumerRecord, error: TastewaveError, *, attempts: int = 1) -> None:
        self.letters.append((record, error))


class Stage:
    """A handler and what it works on."""

    def __init__(self, tower: UserTower) -> None:
        self.histories, self.users, self.publisher = Histories(), Users(), Publisher()
        parts: Any = {"histories": self.histories, "users": self.users, "publisher": self.publisher}
        self.handler = ListenHandler(
            release=RELEASE, tower=tower, cold=None, future_tolerance_ms=60_000, cluster=False, now_ms=lambda: NOON,
            **parts,
        )  # fmt: skip

    async def handle(self, *values: Listen | bytes) -> None:
        await self.handler.handle_batch([
            ConsumerRecord("tastewave.listens", 0, offset, NOON, 0, b"u1", value, None, 3, 0, ())
            for offset, value in enumerate(one if isinstance(one, bytes) else encode_event(one) for one in values)
        ])  # fmt: skip

    def published(self) -> list[tuple[str, int | None]]:
        """Keys and revisions, in the order in which they were published."""
        return [(key.decode(), msgspec.json.decode(value)["revision"] if value else None)
                for key, value in self.publisher.sent]  # fmt: skip


@pytest.fixture(scope="module")
def tower(tower_of: TowerOf) -> UserTower:
    return load_user_tower(tower_of(["a", "b"], history=6))


@pytest.fixture
def stage(tower: UserTower) -> Stage:
    return Stage(tower)


def like(user_id: str, track_id: str = "a", at: int = 0) -> Listen:
    return Listen(event_id="e", user_id=user_id, track_id=track_id, kind="playlist_add", at=NOON - 1000 + at)


async def test_a_million_listens_of_one_user_are_one_change_and_one_refresh(stage: Stage) -> None:
    await stage.handle(*(like("busy", at=number) for number in range(500)), like("u1"))
    (changes,) = stage.histories.added
    assert {user_id: len(change.history) for user_id, change in changes.items()} == {"busy": 500, "u1": 1}
    assert stage.published() == [(f"{RELEASE}:busy", 500), (f"{RELEASE}:u1", 1)]


async def test_many_users_are_refreshed_in_parts_and_each_once(stage: Stage) -> None:
    await stage.handle(*(like(f"u{number}") for number in range(2500)))
    assert len(stage.histories.added) > 2
    assert sorted(stage.published()) == sorted((f"{RELEASE}:u{number}", 1) for number in range(2500))
    alone = stage.users.held["u0"].embedding
    assert {user.embedding for user in stage.users.held.values()} == {alone}
    np.testing.assert_allclose(np.linalg.norm(alone), 1.0, atol=1e-5)


async def test_four_parts_of_all_batches_are_in_hand_at_a_time(stage: Stage) -> None:
    in_hand, add = list[int](), stage.histories.add

    async def watched(changes: Mapping[str, Change]) -> dict[str, UserState]:
        added = await add(changes)
        in_hand.append(len(stage.histories.added) - stage.publisher.calls)
        return added

    stage.histories.add = watched
    await asyncio.gather(*(stage.handle(*(like(f"{batch}-{user}") for user in range(5000))) for batch in "ab"))
    assert max(in_hand) == 4
    assert len(stage.users.held) == 10_000


async def test_what_has_not_begun_of_a_batch_that_failed_waits_for_the_next_try(stage: Stage) -> None:
    listens = [like(f"u{number}") for number in range(9000)]
    stage.publisher.fails = RedisConnectionError("away")
    with pytest.raises(RedisConnectionError):
        await stage.handle(*listens)
    assert stage.publisher.calls == 4
    stage.publisher.fails = None
    await stage.handle(*listens)
    assert len(stage.users.held) == 9000


async def test_what_another_worker_wrote_meanwhile_is_published_again(stage: Stage) -> None:
    def write() -> None:
        stage.users.held["u1"] = msgspec.structs.replace(stage.users.held["u1"], revision=7)

    stage.users.then = write
    await stage.handle(like("u1"), like("u2"))
    assert stage.published() == [(f"{RELEASE}:u1", 1), (f"{RELEASE}:u2", 1), (f"{RELEASE}:u1", 7)]


async def test_a_user_who_was_forgotten_meanwhile_ends_with_an_empty_value(stage: Stage) -> None:
    stage.users.then = stage.users.held.clear
    await stage.handle(like("u1"))
    assert stage.published() == [(f"{RELEASE}:u1", 1), (f"{RELEASE}:u1", None)]


async def test_a_user_of_whom_nothing_is_held_is_not_placed(stage: Stage) -> None:
    stage.histories.forgotten.add("gone")
    await stage.handle(like("gone"), like("u1"))
    assert stage.users.held.keys() == {"u1"}
    assert stage.published() == [(f"{RELEASE}:u1", 1)]


async def test_while_a_server_is_away_nothing_becomes_a_dead_letter_yet(stage: Stage) -> None:
    stage.publisher.fails = RedisConnectionError("away")
    for _ in range(3):
        with pytest.raises(RedisConnectionError) as raised:
            await stage.handle(like("u1"), b"no listen")
        assert stage.handler.is_away(raised.value)
    assert stage.publisher.letters == []
    stage.publisher.fails = None
    await stage.handle(like("u1"), b"no listen")
    ((record, error),) = stage.publisher.letters
    assert (record.offset, error.reason) == (1, "malformed_event")


async def test_an_error_that_nobody_foresaw_is_raised_and_its_record_can_be_given_up(stage: Stage) -> None:
    stage.publisher.fails = KeyError("a fault of ours")
    with pytest.raises(KeyError) as raised:
        await stage.handle(like("u1"))
    assert not stage.handler.is_away(raised.value)
    record = ConsumerRecord("tastewave.listens", 0, 5, NOON, 0, b"u1", b"{}", None, 3, 0, ())
    await stage.handler.give_up(record, raised.value, 3)
    ((given_up, error),) = stage.publisher.letters
    assert (given_up.offset, error.reason) == (5, "internal")
    assert "KeyError in each of 3 tries" in str(error)
