from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.history import IS_NEGATIVE, IS_TARGET, IS_USABLE, Signal
from models.user_tower import UserTower, load_user_tower
from offline.audio_encoder.pairs import Pairs, liked_tracks
from offline.interactions.log import InteractionLog
from tests.offline.audio_encoder.tones import IDS
from tests.offline.small_logs import log_of

MANY = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
SIGNALS = [signal for signal in Signal if signal != Signal.NONE]
TRACKS = 20


@pytest.fixture(scope="module")
def tower(tones_tower) -> UserTower:
    return load_user_tower(tones_tower)


def random_log(seed: int, *, users: int = 5) -> InteractionLog:
    """A log in which many listens of a user share a moment."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 25, users)
    histories = [rng.integers(TRACKS, size=length).tolist() for length in lengths]
    signals = [rng.choice(SIGNALS, length).tolist() for length in lengths]
    times = [(1000 * np.sort(rng.integers(12, size=length))).tolist() for length in lengths]
    log = log_of(histories, tracks=TRACKS, signals=signals, times=times)
    return replace(log, tracks=pl.Series(IDS[:TRACKS]))


def listens(log: InteractionLog, user: int) -> list[tuple[int, int, int]]:
    """Track, time and signal of each, in order."""
    places = range(log.offsets[user], log.offsets[user + 1])
    return [(int(log.track[place]), int(log.at[place]), int(log.signal[place])) for place in places]


def places_of(tower: UserTower, log: InteractionLog) -> dict[tuple[int, int, int], np.ndarray]:
    """The place of each liked track's person then, by user, track and time."""
    rows, trained = tower.items.rows(log.tracks), np.ones(TRACKS, bool)
    liked = liked_tracks(tower, log, rows, trained, until_ms=None, most=10_000, seed=0)
    keys = zip(liked.users.tolist(), liked.tracks.tolist(), liked.at.tolist(), strict=True)
    return dict(zip(keys, liked.vectors, strict=True))


@given(st.integers(0, 10_000))
@MANY
def test_a_person_is_where_the_listens_strictly_before_the_moment_put_them(tower: UserTower, seed: int):
    log, trained = random_log(seed), np.arange(TRACKS) % 4 > 0
    row_of = np.where(trained, tower.items.rows(log.tracks), -1)
    liked = liked_tracks(tower, log, row_of, trained, until_ms=9000, most=10_000, seed=0)
    expected = []
    for user in range(len(log.users)):
        heard = listens(log, user)
        for track, at, signal in heard:
            before = [one for one in heard if one[1] < at][-tower.manifest.history :]
            rows = [row_of[one[0]] for one in before]
            known = any(IS_USABLE[one[2]] and row >= 0 for one, row in zip(before, rows, strict=True))
            if trained[track] and IS_TARGET[signal] and at < 9000 and known:
                vector = tower.embed([rows], [[one[2] for one in before]], [[one[1] for one in before]])[0]
                expected.append((user, track, at, vector))
    found = zip(liked.users.tolist(), liked.tracks.tolist(), liked.at.tolist(), strict=True)
    assert list(found) == [one[:3] for one in expected]
    if expected:
        np.testing.assert_allclose(liked.vectors, [one[3] for one in expected], atol=1e-5)


@given(st.integers(0, 10_000))
@MANY
def test_what_comes_at_the_moment_or_later_changes_nothing(tower: UserTower, seed: int):
    log, rng = random_log(seed), np.random.default_rng(seed)
    moment = 6000
    later = (log.at >= moment) & ~((log.at == moment) & IS_TARGET[log.signal])
    track, signal = log.track.copy(), log.signal.copy()
    track[later], signal[later] = rng.integers(TRACKS, size=later.sum()), rng.choice(SIGNALS, later.sum())
    changed = replace(log, track=track, signal=signal)
    one, other = places_of(tower, log), places_of(tower, changed)
    for key in [key for key in one if key[2] <= moment]:
        np.testing.assert_array_equal(one[key], other[key])


@given(st.integers(0, 10_000))
@MANY
def test_the_disliked_are_what_a_person_turned_from_or_had_not_heard_by_then(tower: UserTower, seed: int):
    log, trained = random_log(seed), np.arange(TRACKS) % 4 > 0
    row_of = np.where(trained, tower.items.rows(log.tracks), -1)
    liked = liked_tracks(tower, log, row_of, trained, until_ms=9000, most=10_000, seed=0)
    if not len(liked.users):
        return
    batch = Pairs(log, liked, trained, until_ms=9000).draw(np.random.default_rng(seed), count=64, negatives=3)
    assert trained[batch.liked].all()
    assert trained[batch.disliked].all()
    assert set(zip(batch.users.tolist(), batch.liked.tolist(), batch.at.tolist(), strict=True)) <= set(
        zip(liked.users.tolist(), liked.tracks.tolist(), liked.at.tolist(), strict=True)
    )
    for user, at, disliked, counts in zip(batch.users, batch.at, batch.disliked, batch.counts, strict=True):
        heard = listens(log, user)
        targets = {track for track, _, signal in heard if IS_TARGET[signal]}
        turned_from = {track for track, then, signal in heard if IS_NEGATIVE[signal] and then < 9000 and trained[track]}
        turned_from -= targets
        by_then = {track for track, then, _ in heard if then <= at}
        for track, counted in zip(disliked.tolist(), counts.tolist(), strict=True):
            if turned_from:
                assert track in turned_from
                assert counted
            else:
                assert counted == (track not in by_then)


def test_unheard_tracks_are_drawn_as_often_as_they_are_liked(tower: UserTower):
    histories = [[0, 1], *[[0, 2]] * 30, *[[0, 3]] * 10, [4, 5]]
    log = replace(log_of(histories, tracks=TRACKS), tracks=pl.Series(IDS[:TRACKS]))
    trained = np.ones(TRACKS, bool)
    liked = liked_tracks(tower, log, tower.items.rows(log.tracks), trained, until_ms=None, most=100, seed=0)
    batch = Pairs(log, liked, trained, until_ms=None).draw(np.random.default_rng(0), count=4000, negatives=1)
    of_last = batch.disliked[batch.users == len(histories) - 1, 0]  # which liked 5, and has heard neither 1, 2 nor 3
    assert set(of_last.tolist()) == {1, 2, 3}
    assert np.mean(batch.disliked[batch.users == 0] == 2) == pytest.approx(30 / 41, abs=0.12)  # 2, 3 or 5


def test_where_a_log_has_more_some_are_drawn_and_others_by_another_seed(tower: UserTower):
    log = replace(log_of([list(range(20))] * 10, tracks=TRACKS), tracks=pl.Series(IDS[:TRACKS]))
    row_of, trained = tower.items.rows(log.tracks), np.ones(TRACKS, bool)
    drawn = [liked_tracks(tower, log, row_of, trained, until_ms=None, most=50, seed=seed) for seed in (0, 0, 1)]
    keys = [list(zip(one.users.tolist(), one.tracks.tolist(), strict=True)) for one in drawn]
    assert keys[0] == keys[1] != keys[2]
    assert 40 <= len(set(keys[0])) == len(keys[0]) <= 50  # the first listens are of people without a history
