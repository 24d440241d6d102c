"""What users listened to and said, in Redis.

Adding is commutative and idempotent: a history is the newest listens of all that were ever told, in whatever order, and
feedback is the latest that was said of each kind and track. So two owners during a rebalance agree.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from models.contract import KEY_PREFIX, feedback_key, forgotten_user_key, history_key
from models.errors import EventError
from models.events import Listen
from models.history import StoredHistory, feedback_member, feedback_score, history_member, statement
from stream.settings import UserSettings
from stream.store.pipelines import packed_word
from stream.store.scripts import UserCall, UsersScript, as_text, packed_args, rehearsal

DAY_S = 86_400
# ZRANGE of all but the revision, and of all with scores, as Redis reads them: what is the same for all is packed once.
_READ_HISTORY = b"*4\r\n$6\r\nZRANGE\r\n%b$1\r\n1\r\n$2\r\n-1\r\n"
_READ_FEEDBACK = b"*5\r\n$6\r\nZRANGE\r\n%b$1\r\n0\r\n$2\r\n-1\r\n$10\r\nWITHSCORES\r\n"


class Change(NamedTuple):
    """What a batch says of one user.

    Attributes:
        history: members as models.history.history_member gives them, each with its `at`.
        feedback: members as models.history.feedback_member gives them, each with its `at`.
    """

    history: Mapping[bytes, int]
    feedback: Mapping[bytes, int]


NOTHING = Change({}, {})
"""Of a user of whom a batch says nothing."""


class UserState(NamedTuple):
    """What Redis holds of a user after a change.

    Attributes:
        revision: grows with every change of history or feedback; 0 where Redis holds neither.
        stored: history and feedback.
        outdated: so many members of the change are older than all that is kept, and had no effect.
        forgotten: so many are not later than the time up to which the user was forgotten, and had no effect.
    """

    revision: int
    stored: StoredHistory
    outdated: int
    forgotten: int


class HistoryStore:
    """Adds to histories and feedback, and reads them.

        states = await store.add({"u1": Change({history_member(listen): listen.at}, {})})
        refresh(tower, [states["u1"].stored])

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        settings: how much is kept, and for how long.
        key_prefix: of all keys.
        cluster: whether the client is one of a Cluster.
    """

    def __init__(
        self, client: Any, settings: UserSettings, *, key_prefix: str = KEY_PREFIX, cluster: bool = False
    ) -> None:
        self._settings = settings
        self._prefix = key_prefix
        self._cluster = cluster
        self._script = UsersScript(client, "add_listens", cluster=cluster)
        self._rehearsal = rehearsal(client, "add_listens")
        # A single server reads histories cheaper by commands than through a script: it makes no Lua values of them.
        self._shared = (settings.history, settings.feedback, settings.ttl_days * DAY_S, int(cluster))

    async def add(self, changes: Mapping[str, Change]) -> dict[str, UserState]:
        """Add what a batch says of users, and read what is held of them afterwards, in one trip.

        Raises:
            EventError: a user_id cannot be used on a Cluster.
            What stream.store.away.is_redis_away knows. Some users may have changed; adding again does no harm.
        """
        calls = [self._call(user_id, change) for user_id, change in changes.items()]
        held = await self._script(calls, shared=self._shared)
        return {
            user_id: self._state(change, *of_script, *reads)
            for (user_id, change), (of_script, *reads) in zip(changes.items(), held, strict=True)
        }

    async def read(self, user_ids: Sequence[str]) -> dict[str, UserState]:
        """What is held of users. Raises as add does."""
        return await self.add(dict.fromkeys(user_ids, NOTHING))

    async def rehearse(self) -> None:
        """Write what a listen and a like write, under an id of its own, and delete it at once.

        Raises:
            What stream.store.away.is_redis_away knows, where Redis would refuse a listen.
        """
        like, again = (
            Listen(event_id="any", user_id="any", track_id="any", kind="like", at=at) for at in (2**40, 2**40 + 1)
        )
        changes = [Change({history_member(one): one.at}, {feedback_member(one): one.at}) for one in (like, again)]
        calls = [UserCall(self._keys("rehearsal-" + uuid4().hex), self._arguments(change)) for change in changes]
        arguments = [argument for call in calls for argument in (*self._shared, packed_args([call]))]
        await self._rehearsal(keys=calls[0].keys, args=arguments)

    def _call(self, user_id: str, change: Change) -> UserCall:
        keys = self._keys(user_id)
        if self._cluster:
            return UserCall(keys, self._arguments(change))
        history, feedback, _ = keys
        # Read after the revision was taken, they are of that revision or of a later one, whose owner writes again.
        reads = (_READ_HISTORY % packed_word(history), _READ_FEEDBACK % packed_word(feedback))
        return UserCall(keys, self._arguments(change), reads)

    def _keys(self, user_id: str) -> list[str]:
        """The keys of add_listens.lua."""
        if self._cluster:
            check_id(user_id)
        return [key(user_id, prefix=self._prefix) for key in (history_key, feedback_key, forgotten_user_key)]

    def _arguments(self, change: Change) -> list[Any]:
        """The arguments of add_listens.lua, of one user."""
        listens: Collection[bytes] = change.history
        said: Collection[tuple[int, bytes]] = [(feedback_score(at), member) for member, at in change.feedback.items()]
        if len(listens) > self._settings.history:
            listens = heapq.nlargest(self._settings.history, listens)  # members sort by time
        if len(said) > self._settings.feedback:
            latest = {statement(entry[1]): entry for entry in sorted(said)}
            said = heapq.nlargest(self._settings.feedback, latest.values())
        return [
            [one for member in listens for one in (0, as_text(member))],
            [one for score, member in said for one in (score, as_text(member))],
        ]

    def _state(
        self, change: Change, revision: int, forgotten_at: int, members: list[bytes], scored: list[Any]
    ) -> UserState:
        """From what Redis answers of one user."""
        feedback: list[tuple[bytes, float]] = scored
        if scored and isinstance(scored[0], bytes):  # of a script, or of a connection with RESP2
            feedback = list(zip(scored[::2], map(float, scored[1::2]), strict=True))
        outdated = forgotten = 0
        if forgotten_at:
            forgotten = sum(at <= forgotten_at for entries in change for at in entries.values())
        if change.history and len(members) >= self._settings.history:
            outdated += sum(member < members[0] and at > forgotten_at for member, at in change.history.items())
        if change.feedback and len(feedback) >= self._settings.feedback:
            (oldest, since), kept = feedback[0], {statement(member) for member, _ in feedback}
            outdated += sum(
                (feedback_score(at), member) < (since, oldest) and at > forgotten_at and statement(member) not in kept
                for member, at in change.feedback.items()
            )
        return UserState(revision, StoredHistory(members, feedback), outdated, forgotten)


def check_id(user_id: str) -> None:
    """Refuse an id whose keys a Cluster puts into several slots. Raises EventError."""
    if user_id.startswith("}"):
        raise EventError(
            f"the user_id {user_id!r} begins with a brace, and a Redis Cluster cannot keep the keys of such a user "
            "together; use another id"
        )
