"""Whatever happens to the order, number and timing of events, the same is held in the end: on real servers."""

import asyncio
import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.local import RedisCluster
from models.contract import feedback_key, history_key
from models.events import Listen, UserEmbedded
from models.history import (
    FEEDBACK_KINDS,
    HISTORY_KINDS,
    KINDS,
    CountingRule,
    StoredHistory,
    feedback_member,
    history_member,
)
from models.refresh import refresh
from models.user_tower import ItemTable, TowerManifest, UserTower, encode_ids
from stream.settings import RedisSettings, UserSettings, load_settings
from stream.store.client import async_client
from stream.store.forgotten import forget_user
from stream.store.histories import Change, HistoryStore, UserState
from stream.store.users import UserStore

pytestmark = pytest.mark.servers
RELEASE = "0123456789ab"
NOON = 52 * 2**35 - 5  # in August 2026; 5 ms later the score of feedback is 52
KEPT, SAID = 4, 3
USERS, TRACKS = ("u1", "u2"), "abcd"


class Decayed:
    """The network of a tower in a few lines: a mean in which the newer weigh more."""

    def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        weights = inputs["signals"] / (1.0 + inputs["ages_s"])
        mean = (inputs["vectors"] * weights[:, :, None]).sum(axis=1) + 1e-3
        return [(mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)]


def small_tower() -> UserTower:
    vectors = np.random.default_rng(0).standard_normal((len(TRACKS), 8)).astype(np.float32)
    manifest = TowerManifest(
        pooling="mean",
        dim=8,
        history=3,
        counting=CountingRule(),
        scale=10.0,
        global_embedding=(1.0, *[0.0] * 7),
        items=len(TRACKS),
        files={},
        training={},
    )
    return UserTower(manifest, ItemTable(encode_ids(TRACKS), vectors), Decayed())


TOWER = small_tower()


class Forget(NamedTuple):
    """An operator forgets a user up to a time."""

    user_id: str
    at: int


listens = st.builds(
    Listen,
    event_id=st.just("e"),
    user_id=st.sampled_from(USERS),
    track_id=st.sampled_from(TRACKS),
    kind=st.sampled_from(("play", "play", "play", *KINDS)),
    at=st.integers(NOON, NOON + 9),
    played_ms=st.sampled_from([0, 60_000, 200_000]),
    duration_ms=st.just(200_000),
)
forgettings = st.builds(Forget, user_id=st.sampled_from(USERS), at=st.integers(NOON, NOON + 7))


@st.composite
def courses(draw: st.DrawFn) -> list[Listen | Forget]:
    """Listens, with a user forgotten or not somewhere among them."""
    events: list[Listen | Forget] = [*draw(st.lists(listens, min_size=8, max_size=24))]
    for forget in draw(st.lists(forgettings, max_size=1)):
        events.insert(draw(st.integers(0, len(events))), forget)
    return events


Scored = list[tuple[bytes, float]]


class Held(NamedTuple):
    """What Redis holds of a user in the end, without the revision."""

    history: Scored
    feedback: Scored
    embedding: UserEmbedded | None


class Side:
    """Two owners of the same partition, under keys of their own."""

    def __init__(self, client: Any, prefix: str, *, cluster: bool, seed: int) -> None:
        self.client, self.prefix, self.chance = client, prefix, random.Random(seed)
        kept = UserSettings(history=KEPT, feedback=SAID)
        self.histories = HistoryStore(client, kept, key_prefix=prefix, cluster=cluster)
        self.users = UserStore(client, RELEASE, key_prefix=prefix, cluster=cluster, ttl=1000)

    async def read(self, batch: list[Listen]) -> list[UserEmbedded]:
        """Add a batch; returns where its users stand, which is not written yet."""
        changes: dict[str, Change] = {}
        for one in batch:
            history, feedback = changes.setdefault(one.user_id, Change({}, {}))
            if one.kind in HISTORY_KINDS:
                history[history_member(one)] = one.at  # type: ignore[index]
            if one.kind in FEEDBACK_KINDS:
                member = feedback_member(one)
                feedback[member] = max(feedback.get(member, 0), one.at)  # type: ignore[index]
        return self.computed(await self.histories.add(changes))

    def computed(self, states: Mapping[str, UserState]) -> list[UserEmbedded]:
        refreshed = refresh(TOWER, [state.stored for state in states.values()])
        return [
            UserEmbedded(
                user_id=user_id,
                release=RELEASE,
                embedding=tuple(embedding.tolist()),
                source="history" if of_history else "global",
                listens=int(count),
                event_time=int(event_time),
                revision=state.revision,
                refreshed_at=self.chance.randrange(10**6),  # the clocks of owners differ
            )
            for (user_id, state), embedding, of_history, count, event_time in zip(
                states.items(), *refreshed, strict=True
            )
        ]

    async def forget(self, of: Forget) -> None:
        await forget_user(self.client, of.user_id, of.at, key_prefix=self.prefix, releases=[RELEASE])

    async def held(self, user_id: str) -> Held:
        history = await self.client.zrange(history_key(user_id, prefix=self.prefix), 0, -1, withscores=True)
        feedback = await self.client.zrange(feedback_key(user_id, prefix=self.prefix), 0, -1, withscores=True)
        assert [member for member, score in history if score < 0] == [b"r"] * bool(history)
        (embedding,) = await self.users.get([user_id])
        return Held(history[1:], feedback, embedding)

    async def in_order(self, events: list[Listen | Forget]) -> None:
        """One owner, one event after the other."""
        for event in events:
            if isinstance(event, Forget):
                await self.forget(event)
            else:
                await self.users.put(await self.read([event]))

    async def disturbed(self, events: list[Listen | Forget]) -> None:
        """Events in another order, some twice, in batches; an owner may write long after it has read."""
        chance = self.chance
        told = chance.sample(events, len(events)) + chance.choices(events, k=len(events) // 2)
        late: list[list[UserEmbedded]] = []
        while told:
            size = chance.randint(1, 4)
            batch, told = told[:size], told[size:]
            for event in batch:
                if isinstance(event, Forget):
                    await self.forget(event)
            if told_listens := [event for event in batch if isinstance(event, Listen)]:
                late.append(await self.read(told_listens))
            while late and chance.random() < 0.5:
                await self.users.put(late.pop(chance.randrange(len(late))))
        for computed in chance.sample(late, len(late)):
            await self.users.put(computed)


def expected(
    events: list[Listen | Forget], user_id: str
) -> tuple[list[tuple[bytes, float]], list[tuple[bytes, float]]]:
    """History and feedback by their definition: the newest of all that is later than what was forgotten."""
    own = [event for event in events if event.user_id == user_id]
    since = max((event.at for event in own if isinstance(event, Forget)), default=0)
    counting = [event for event in own if isinstance(event, Listen) and event.at > since]
    history = sorted({(one.at, history_member(one)) for one in counting if one.kind in HISTORY_KINDS})
    latest: dict[tuple[int, str], int] = {}
    for one in counting:
        if one.kind in FEEDBACK_KINDS:
            said = (KINDS.index(one.kind), one.track_id)
            latest[said] = max(latest.get(said, 0), one.at)
    feedback = sorted((at << 5 | kind, track_id.encode()) for (kind, track_id), at in latest.items())
    return (
        [(member, 0.0) for _, member in history[-KEPT:]],
        [(head.to_bytes(8, "big")[3:] + track_id, float(head >> 40)) for head, track_id in feedback[-SAID:]],
    )


@pytest.fixture(scope="module", params=["one server", "a Cluster of three"])
def redis_settings(request: pytest.FixtureRequest, servers: Any) -> Iterator[RedisSettings]:
    if request.param == "one server":
        yield load_settings(redis_url=servers.redis.url).redis
    else:
        with RedisCluster() as cluster:
            yield load_settings(redis_url=cluster.url, redis_cluster=True).redis


def test_any_order_number_and_timing_of_events_ends_the_same(redis_settings: RedisSettings) -> None:
    numbers = itertools.count()

    async def ends_the_same(client: Any, events: list[Listen | Forget], seed: int) -> None:
        number = next(numbers)
        ordered, other = (
            Side(client, f"test{number}-{side}", cluster=redis_settings.cluster, seed=seed)
            for side in ("ordered", "other")
        )
        await ordered.in_order(events)
        await other.disturbed(events)
        for user_id in USERS:
            history, feedback = expected(events, user_id)
            one, two = await ordered.held(user_id), await other.held(user_id)
            assert (one.history, one.feedback) == (history, feedback)
            assert (two.history, two.feedback) == (history, feedback)
            if not history and not feedback:
                assert one.embedding is two.embedding is None
                continue
            where = refresh(TOWER, [StoredHistory([member for member, _ in history], feedback)])
            forgotten = Forget in {type(event) for event in events if event.user_id == user_id}
            for side, held in ((ordered, one), (other, two)):
                embedding = held.embedding
                if embedding is None and forgotten:  # nothing was told since: a rebuild places the user
                    (embedding,) = await side.users.put(side.computed(await side.histories.read([user_id])))
                assert embedding is not None
                assert embedding.embedding == pytest.approx(where.embeddings[0], abs=1e-6)
                assert (embedding.source == "history") == where.of_history[0]
                assert (embedding.listens, embedding.event_time) == (where.listens[0], where.event_time[0])

    with asyncio.Runner() as runner:
        client = async_client(redis_settings)

        @settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
        @given(
            events=courses(),
            seed=st.integers(0, 2**32),
        )
        def property_holds(events: list[Listen | Forget], seed: int) -> None:
            runner.run(ends_the_same(client, events, seed))

        property_holds()
        runner.run(client.aclose())
