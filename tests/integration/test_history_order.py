"""A user's history stands in Redis in the order in which it was trained on."""

import numpy as np
import polars as pl
import pytest
import redis

from models.events import Listen
from models.history import KINDS, history_member
from offline.interactions.log import read_log

pytestmark = pytest.mark.servers


def test_redis_orders_a_history_as_the_interaction_log_does(environment, tmp_path):
    rng = np.random.default_rng(0)
    listens = [
        Listen(
            event_id=str(number),
            user_id="u",
            track_id=["a", "B", "é", "z", "\U0001f3b5", "10", "9"][rng.integers(7)],
            kind=KINDS[rng.integers(len(KINDS))],
            at=1_700_000_000_000 + int(rng.integers(4)),
            played_ms=int(rng.integers(3)) * 40_000,
            duration_ms=100_000 + int(rng.integers(2)),
        )
        for number in range(300)
    ]
    columns = ("user_id", "track_id", "at", "kind", "played_ms", "duration_ms")
    pl.DataFrame([{name: getattr(listen, name) for name in columns} for listen in listens]).write_parquet(
        tmp_path / "log.parquet"
    )
    log = read_log(str(tmp_path / "log.parquet"))
    with redis.Redis.from_url(environment["TASTEWAVE_REDIS_URL"]) as client:
        says = [listen for listen in listens if listen.kind not in ("unlike", "undislike", "remove", "exclude")]
        for listen in rng.permutation(np.array(says, dtype=object)):
            client.zadd("tw:history:{u}", {history_member(listen): listen.at})
        stored = client.zrange("tw:history:{u}", 0, -1, withscores=True)
    online = [(member[13:].decode(), int(at)) for member, at in stored]
    offline = [(log.tracks[int(track)], int(at)) for track, at in zip(log.track, log.at, strict=True)]
    assert online == offline
    assert len(online) < len(says)
