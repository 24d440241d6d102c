"""Where users stand, in Redis: the embeddings of one release."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from models.contract import KEY_PREFIX, forgotten_user_key, live_key, releases_key, user_answer, user_fields, user_key
from models.events import UserEmbedded
from stream.store.away import named
from stream.store.scripts import UserCall, UsersScript, as_text, packed_args, rehearsal


class UserStore:
    """Reads and writes the users of one release.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        release: release_id under which the embeddings are kept.
        key_prefix: of all keys.
        cluster: whether the client is one of a Cluster.
        ttl: seconds that an embedding is kept after it was written.
    """

    def __init__(
        self, client: Any, release: str, *, key_prefix: str = KEY_PREFIX, cluster: bool = False, ttl: int
    ) -> None:
        self._release = release
        self._prefix = key_prefix
        self._put = UsersScript(client, "put_users", cluster=cluster)
        self._get = UsersScript(client, "get_users", cluster=cluster)
        self._revisions = UsersScript(client, "user_revisions", cluster=cluster)
        self._rehearsal = rehearsal(client, "put_users")
        self._shared = (ttl,)

    async def put(self, users: Sequence[UserEmbedded]) -> list[UserEmbedded | None]:
        """Write users; returns what Redis holds of each afterwards, None where it holds nothing.

        Nothing is written where what is held has a greater revision, and where the user was forgotten since its history
        was read. Of one revision the embedding stands that was computed last.

        Args:
            users: each with an embedding of float32 values.

        Raises:
            What stream.store.away.is_redis_away knows. Some users may have been written; writing again does no harm.
        """
        calls = [UserCall(self._keys(user.user_id), _arguments(user)) for user in users]
        results = await self._put(calls, shared=self._shared)
        return [
            user if result == 1 else self._user(user.user_id, result)
            for user, (result,) in zip(users, results, strict=True)
        ]

    async def get(self, user_ids: Sequence[str]) -> list[UserEmbedded | None]:
        """What is held of users; None for one that is not known."""
        results = await self._get([UserCall([self._key(user_id)]) for user_id in user_ids])
        return [self._user(user_id, result) for user_id, (result,) in zip(user_ids, results, strict=True)]

    async def revisions(self, user_ids: Sequence[str]) -> list[int | None]:
        """The revision of what is held of users; None for one that is not known.

        After publishing it shows whether what was published is what is held.
        """
        results = await self._revisions([UserCall([self._key(user_id)]) for user_id in user_ids])
        return [int(result) if result else None for (result,) in results]

    async def rehearse(self) -> None:
        """Write what an embedding writes, under an id of its own, and delete it at once.

        Raises:
            What stream.store.away.is_redis_away knows, where Redis would refuse an embedding.
        """
        nobody = UserEmbedded(
            user_id=f"rehearsal-{uuid4().hex}",
            release=self._release,
            embedding=(),
            source="global",
            listens=0,
            event_time=0,
            revision=1,
            refreshed_at=0,
        )
        call = UserCall(self._keys(nobody.user_id), _arguments(nobody))
        await self._rehearsal(keys=call.keys, args=[*self._shared, packed_args([call])] * 2)

    def _key(self, user_id: str) -> str:
        return user_key(self._release, user_id, prefix=self._prefix)

    def _keys(self, user_id: str) -> list[str]:
        """The keys of put_users.lua."""
        return [self._key(user_id), forgotten_user_key(user_id, prefix=self._prefix)]

    def _user(self, user_id: str, flat: list[bytes]) -> UserEmbedded | None:
        if not flat:
            return None
        with named(self._key(user_id)):
            return user_answer(user_id, self._release, dict(zip(flat[::2], flat[1::2], strict=True)))


async def register_release(client: Any, release: str, *, key_prefix: str = KEY_PREFIX) -> None:
    """Note that workers of a release write, so that forgetting finds what they wrote.

    client: a redis.asyncio client (or RedisCluster).
    """
    await client.sadd(releases_key(prefix=key_prefix), release)


async def known_releases(client: Any, *, key_prefix: str = KEY_PREFIX) -> list[str]:
    """The releases that may have written: those that were noted, the live one and the one before."""
    held: Any = await client.smembers(releases_key(prefix=key_prefix))
    live: Any = await client.hmget(live_key(prefix=key_prefix), ["release", "previous"])
    return sorted({release.decode() for release in (*held, *live) if release})


def _arguments(user: UserEmbedded) -> list[Any]:
    """The arguments of put_users.lua, of one user."""
    fields = user_fields(user)
    embedding = as_text(fields.pop("embedding"))
    texts = [text for name, value in fields.items() for text in (name, value.decode())]
    return [user.revision, user.refreshed_at, embedding, texts]
