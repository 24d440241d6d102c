"""A user is embedded as of a moment from what Redis would have held then."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from models.history import NewestEvents
from offline.interactions.left_out import read_forgotten
from offline.interactions.log import sorted_rows
from offline.progress import progress_bar
from offline.users.as_of import stored_as_of
from tests.offline.interactions.random_listens import NOON, random_listens, write_log

MINUTE = 60_000
USERS = ["ann", "bob", "c", "nobody"]
moments_of = st.lists(st.tuples(st.sampled_from(USERS), st.integers(-1, 9)), min_size=1, max_size=20)


@settings(max_examples=150)
@given(random_listens, moments_of, st.integers(1, 6), st.integers(1, 4))
def test_what_redis_held_then_is_what_the_events_up_to_then_leave(tmp_path_factory, listens, found, history, feedback):
    path = write_log(tmp_path_factory.mktemp("log") / "log.parquet", listens)
    found = sorted((USERS.index(user), NOON + minute * MINUTE) for user, minute in found)
    moments = np.array(found, [("user", "<i4"), ("at", "<i8")])
    with (
        progress_bar() as progress,
        sorted_rows(
            path, progress=progress, scratch=None, forgotten=read_forgotten(None), users=pl.Series(USERS)
        ) as rows,
    ):
        (part,) = rows.parts()
        stored = list(stored_as_of(part, moments, rows.tracks, history=history, feedback=feedback))
    for (user, at), one in zip(found, stored, strict=True):
        newest = NewestEvents(history=history, feedback=feedback)
        for listen in listens:
            if listen.user_id == USERS[user] and listen.at <= at:
                newest.add(listen)
        assert one == newest.stored()
