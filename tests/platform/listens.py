"""A music platform whose users listen, and what each user must end with."""

import random
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import msgspec
from kafka import KafkaProducer

from models.contract import LISTENS, USERS_EMBEDDED, feedback_key, history_key, user_answer, user_key
from models.events import Listen, UserEmbedded, encode_event
from models.history import KINDS
from tests.platform.tracks import DELIVERY_TIMEOUT_S, Platform

NOON = 1_767_225_600_000
TRACKS = tuple(f"t{number}" for number in range(40))


class UserEnd(NamedTuple):
    """What a platform holds of a user; without the times of refreshes, and revisions, which differ between runs."""

    history: list[bytes]
    feedback: list[tuple[bytes, float]]
    embedded: UserEmbedded | None
    published: UserEmbedded | None


class ListenPlatform(Platform):
    """A Platform with listens workers."""

    role: ClassVar[str] = "listens"
    events: ClassVar[str] = LISTENS

    def listen(self, listens: Iterable[Listen | bytes]) -> None:
        """Publish listens, or bytes that are none; returns when Kafka has all of them."""
        producer = KafkaProducer(bootstrap_servers=list(self.settings.kafka.brokers), acks="all", linger_ms=20)
        topic = self.settings.topics.named(LISTENS)
        for one in listens:
            key, value = (b"key", one) if isinstance(one, bytes) else (one.user_id.encode(), encode_event(one))
            producer.send(topic, key=key, value=value)
        producer.flush(DELIVERY_TIMEOUT_S)
        producer.close()

    def user(self, user_id: str) -> UserEmbedded | None:
        """Where a user stands, as Redis holds it."""
        fields: Any = self.redis.hgetall(user_key(self.release, user_id))
        return user_answer(user_id, self.release, fields) if fields else None

    def published(self) -> dict[str, UserEmbedded | None]:
        """The last value of each user on the output topic."""
        return {
            record.key.decode().partition(":")[2]: msgspec.json.decode(record.value, type=UserEmbedded)
            if record.value
            else None
            for record in self.read(USERS_EMBEDDED)
        }

    def ends(self, user_ids: Iterable[str]) -> dict[str, UserEnd]:
        """What is held of users. Asserts that the last value on the topic is what Redis holds."""
        published, ends = self.published(), {}
        for user_id in user_ids:
            held, last = self.user(user_id), published.get(user_id)
            assert (held and held.revision, held and held.embedding) == (
                last and last.revision,
                last and last.embedding,
            )
            ends[user_id] = UserEnd(
                self.redis.zrange(history_key(user_id), 1, -1),
                self.redis.zrange(feedback_key(user_id), 0, -1, withscores=True),
                _timeless(held),
                _timeless(last),
            )
        return ends


def _timeless(embedded: UserEmbedded | None) -> UserEmbedded | None:
    if embedded is None:
        return None
    rounded = tuple(round(value, 5) for value in embedded.embedding)
    return msgspec.structs.replace(embedded, embedding=rounded, revision=0, refreshed_at=0)


def made_up_listens(*, users: int = 40, each: int = 100, seed: int = 0) -> list[Listen]:
    """Listens of all kinds in no order, some of them twice; removes and excludes name what was heard."""
    rng = random.Random(seed)
    listens = list[Listen]()
    for number in range(users * each):
        user = f"u{rng.randrange(users)}"
        track, at = rng.choice(TRACKS), NOON + 1000 * rng.randrange(each * 10)
        kind = rng.choices(KINDS, (60, 10, 8, 2, 4, 2, 3, 8, 3))[0]
        if kind == "remove" and listens:
            taken_back = rng.choice(listens)
            user, track, at = taken_back.user_id, taken_back.track_id, taken_back.at
        played_ms = rng.randrange(200_000) if kind in ("play", "skip") else None
        listens.append(Listen(
            event_id=f"e{number}", user_id=user, track_id=track, kind=kind, at=at, played_ms=played_ms,
            duration_ms=None if played_ms is None else 200_000, excluded=rng.random() < 0.03,
        ))  # fmt: skip
    listens += rng.sample(listens, len(listens) // 20)
    rng.shuffle(listens)
    return listens
