"""A log holds what a history in Redis would hold that was long enough: the same listens, in the same order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import SettingsError
from models.history import HISTORY_KINDS, CountingRule, NewestEvents, history_member, read_histories
from offline.interactions.log import InteractionLog, read_log
from tests.offline.interactions.random_listens import NOON, random_listens, write_forgotten, write_log

MINUTE = 60_000
SAYS = set(HISTORY_KINDS) - {"remove"}


def content(log: InteractionLog) -> list[tuple[str, bytes, int, int]]:
    return [
        (log.users[user], log.tracks[int(log.track[place])].encode(), int(log.at[place]), int(log.signal[place]))
        for user in range(len(log.users))
        for place in range(log.offsets[user], log.offsets[user + 1])
    ]


def standing(listens) -> list[tuple[str, bytes, int, int]]:
    """The same by way of what Redis would hold without limits."""
    rows = []
    for user in sorted({listen.user_id for listen in listens}):
        newest = NewestEvents(history=10**6, feedback=10**6)
        for listen in listens:
            if listen.user_id == user:
                newest.add(listen)
        histories = read_histories([newest.stored()])
        signals = CountingRule().signals(histories.kind, histories.played_ms, histories.duration_ms)
        rows += [(user, *row) for row in zip(histories.track_ids, histories.at.tolist(), signals.tolist(), strict=True)]
    return rows


@settings(max_examples=150)
@given(random_listens)
def test_a_log_holds_what_a_history_without_limits_holds(tmp_path_factory, listens):
    path = write_log(tmp_path_factory.mktemp("log") / "log.parquet", listens)
    expected = standing(listens)
    if not expected:
        with pytest.raises(SettingsError, match="says anything"):
            read_log(path)
        return
    log = read_log(path)
    assert content(log) == expected
    assert log.excluded == sum(listen.excluded for listen in listens)
    told = {(one.user_id, history_member(one)) for one in listens if one.kind in SAYS and not one.excluded}
    assert log.taken_back == len(told) - len(expected)


@settings(max_examples=60)
@given(random_listens, st.integers(0, 8), st.integers(0, 8))
def test_what_was_forgotten_is_no_part_of_a_log(tmp_path_factory, listens, ann, note):
    folder = tmp_path_factory.mktemp("log")
    ann_until, note_until = NOON + ann * MINUTE, NOON + note * MINUTE
    forgotten = write_forgotten(
        folder / "forgotten.parquet",
        ("user", "ann", ann_until),
        ("user", "ann", ann_until - MINUTE),
        ("track", "\U0001f3b5", note_until),
        ("user", "\U0001f3b5", NOON + 99 * MINUTE),
    )
    left = [
        listen
        for listen in listens
        if not (listen.user_id == "ann" and listen.at <= ann_until)
        and not (listen.track_id == "\U0001f3b5" and listen.at <= note_until)
    ]
    path = write_log(folder / "log.parquet", listens)
    if not standing(left):
        with pytest.raises(SettingsError, match="says anything"):
            read_log(path, forgotten=forgotten)
        return
    log = read_log(path, forgotten=forgotten)
    assert content(log) == standing(left)
    assert log.fingerprint == read_log(write_log(folder / "left.parquet", left)).fingerprint
    assert log.forgotten == sum(not listen.excluded for listen in listens) - sum(not one.excluded for one in left)


def test_a_dump_of_something_else_is_refused(tmp_path):
    log = write_log(tmp_path / "log.parquet", [])
    with pytest.raises(SettingsError, match=r"log.parquet is no dump of tastewave.forgotten \(No match .*: dump it"):
        read_log(log, forgotten=log)
    with pytest.raises(SettingsError, match=r"has no Parquet file; name a dump of tastewave.forgotten"):
        read_log(log, forgotten=str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=r"cannot be opened .* name a dump of tastewave.forgotten"):
        read_log(log, forgotten="nowhere://forgotten")
