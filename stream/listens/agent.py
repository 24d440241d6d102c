"""The parts of the agent for listens, put together from settings: for the worker, and for the command that rebuilds."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from models.errors import SettingsError
from models.release import Release
from models.user_tower import UserTower
from stream.broker.publish import Publisher
from stream.listens.cold import ColdTracks
from stream.listens.handler import ListenHandler
from stream.settings import Settings
from stream.store.histories import DAY_S, HistoryStore
from stream.store.users import UserStore


class ListensAgent(NamedTuple):
    """A handler and the stores that it writes to."""

    handler: ListenHandler
    histories: HistoryStore
    users: UserStore


def usable_tower(settings: Settings, release: Release) -> UserTower:
    """The user tower of a release.

    Raises:
        ReleaseError: it has none.
        SettingsError: it reads more listens than are kept of a user.
    """
    tower = release.user_tower()
    if tower.manifest.history > settings.users.history:
        raise SettingsError(
            f"TASTEWAVE_USER_HISTORY is {settings.users.history}, and the user tower of release {release.release_id} "
            f"reads the newest {tower.manifest.history} listens; raise it to that"
        )
    return tower


def listens_agent(
    settings: Settings, release: Release, tower: UserTower, client: Any, publisher: Publisher
) -> ListensAgent:
    """The agent of a release.

    Args:
        settings: of Redis, the users and the worker.
        release: under whose id users are kept.
        tower: of that release.
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        publisher: sends what Redis holds.
    """
    release_id, key_prefix, cluster = release.release_id, settings.redis.key_prefix, settings.redis.cluster
    histories = HistoryStore(client, settings.users, key_prefix=key_prefix, cluster=cluster)
    users = UserStore(client, release_id, key_prefix=key_prefix, cluster=cluster, ttl=settings.users.ttl_days * DAY_S)
    has_encoder = release.configuration.audio_encoder is not msgspec.UNSET
    handler = ListenHandler(
        release=release_id,
        tower=tower,
        histories=histories,
        users=users,
        cold=ColdTracks(client, release_id, dim=tower.manifest.dim, key_prefix=key_prefix) if has_encoder else None,
        publisher=publisher,
        future_tolerance_ms=int(settings.worker.future_tolerance_s * 1000),
        cluster=cluster,
    )
    return ListensAgent(handler, histories, users)
