"""A user's history stands in Redis in the order in which it was trained on, and the same listens of it count."""

import numpy as np
import pytest
import redis

from models.events import Listen
from models.history import (
    FEEDBACK_KINDS,
    HISTORY_KINDS,
    KINDS,
    StoredHistory,
    feedback_member,
    feedback_score,
    history_member,
    read_histories,
)
from offline.interactions.log import read_log
from tests.offline.interactions.random_listens import write_log

pytestmark = pytest.mark.servers


def test_redis_orders_a_history_as_the_interaction_log_does(environment, tmp_path):
    rng = np.random.default_rng(0)
    listens = [
        Listen(
            event_id=str(number),
            user_id="u",
            track_id=["a", "B", "é", "z", "\U0001f3b5", "10", "9"][rng.integers(7)],
            kind=KINDS[rng.choice(len(KINDS), p=[0.5, 0.2, 0.1, 0.02, 0.1, 0.02, 0.03, 0.02, 0.01])],
            at=1_700_000_000_000 + int(rng.integers(12)),
            played_ms=int(rng.integers(3)) * 40_000,
            duration_ms=100_000 + int(rng.integers(2)),
        )
        for number in range(300)
    ]
    log = read_log(write_log(tmp_path / "log.parquet", listens))
    with redis.Redis.from_url(environment["TASTEWAVE_REDIS_URL"]) as client:
        for listen in rng.permutation(np.array(listens, dtype=object)):
            if listen.kind in HISTORY_KINDS:
                client.zadd("tw:history:{u}", {history_member(listen): 0})
            if listen.kind in FEEDBACK_KINDS:
                client.zadd("tw:feedback:{u}", {feedback_member(listen): feedback_score(listen.at)}, gt=True)
        members = client.zrange("tw:history:{u}", 0, -1)
        said = client.zrange("tw:feedback:{u}", 0, -1, withscores=True)
    held = read_histories([StoredHistory(members, said)])
    online = [(track_id.decode(), at) for track_id, at in zip(held.track_ids, held.at.tolist(), strict=True)]
    offline = [(log.tracks[int(track)], int(at)) for track, at in zip(log.track, log.at, strict=True)]
    assert online == offline
    assert 50 < len(online) < len(members) - 20
