"""What the listens on Kafka say of a user, where Kafka no longer holds all of them."""

from pathlib import Path
from typing import NamedTuple

import pytest
from kafka.structs import TopicPartition

from models.errors import SettingsError
from models.events import Listen, UserEmbedded, encode_event
from models.history import StoredHistory, feedback_member, feedback_score, history_member
from stream.commands.parity import Difference, Held, Report, _Expected, _Stretch, _write_metrics
from stream.settings import load_settings
from stream.store.histories import UserState

NOON = 1_767_225_600_000
SECOND = 1000
PLACE = TopicPartition("listens", 0)


class Record(NamedTuple):
    offset: int
    timestamp: int
    value: bytes
    topic: str = PLACE.topic
    partition: int = PLACE.partition


def like(track_id: str, second: int, user_id: str = "u", *, excluded: bool = False) -> Listen:
    at = NOON + second * SECOND
    return Listen(event_id="e", user_id=user_id, track_id=track_id, kind="like", at=at, excluded=excluded)


def held(*listens: Listen, forgotten_at: int = 0) -> Held:
    stored = StoredHistory(
        sorted(history_member(one) for one in listens),
        [(feedback_member(one), feedback_score(one.at)) for one in sorted(listens, key=lambda one: one.at)],
    )
    embedded = UserEmbedded(
        user_id="u", release="r", embedding=(), source="history", listens=1, event_time=1, revision=1, refreshed_at=1
    )
    return Held(UserState(1, stored, 0, 0), embedded, forgotten_at)


def expected(of_redis: Held, *listens: Listen, complete_s: int = -1, answered: int = 99, **settings: str) -> _Expected:
    """What is expected of a user after records of these listens, each produced at noon."""
    complete_ms = NOON + complete_s * SECOND if complete_s >= 0 else 0
    stretch = _Stretch({PLACE: 0}, {PLACE: len(listens)}, complete_ms)
    found = _Expected(load_settings(**settings), {"u": of_redis}, stretch, {PLACE: answered})
    for offset, listen in enumerate(listens):
        found.add(Record(offset, NOON, encode_event(listen)))
    found.add(Record(len(listens), NOON, b"no listen"))
    return found


def test_what_redis_holds_from_before_the_stretch_is_taken_as_it_is_and_later_things_are_not() -> None:
    old, foreign, told = like("old", 5), like("foreign", 15), like("told", 12)
    found = expected(held(old, foreign, told), told, complete_s=10)
    assert found.stored()["u"] == held(old, told).state.stored
    assert expected(held(old, foreign, told), told).stored()["u"] == held(told).state.stored


def test_listens_of_others_and_excluded_and_forgotten_ones_are_not_expected() -> None:
    after = like("b", 3)
    found = expected(
        held(forgotten_at=NOON + 2 * SECOND), like("a", 2), after, like("c", 4, "v"), like("d", 5, excluded=True)
    )
    assert found.stored() == {"u": held(after).state.stored}
    assert found.unanswered == set()


def test_a_user_with_a_listen_that_may_not_be_answered_yet_is_named() -> None:
    found = expected(held(), like("a", 1), like("b", 2, "v"), like("c", 3), answered=2)
    assert found.unanswered == {"u"}
    assert expected(held(), like("a", 1), like("b", 2, "v"), answered=1).unanswered == set()


def test_a_listen_dated_ahead_of_kafka_may_have_been_refused_or_taken() -> None:
    ahead = like("a", 60)
    settings = {"future_tolerance_s": "30"}
    assert expected(held(), ahead, **settings).stored()["u"] == held().state.stored
    assert expected(held(ahead), ahead, **settings).stored()["u"] == held(ahead).state.stored
    assert expected(held(), ahead).stored()["u"] == held(ahead).state.stored


def test_a_difference_is_a_member_a_count_or_an_angle() -> None:
    same = Difference(user_id="u", missing=0, extra=0, cosine=1.0, listens=3, expected=3)
    assert not same.is_one
    for changed in ({"missing": 1}, {"extra": 1}, {"cosine": 0.9999}, {"expected": 2}):
        fields = {name: getattr(same, name) for name in Difference.__struct_fields__} | changed
        assert Difference(**fields).is_one
    assert not Difference(user_id="u", missing=0, extra=0, cosine=None, listens=3, expected=3).is_one


def test_metrics_that_cannot_be_written_are_told_with_what_to_do(tmp_path: Path) -> None:
    report = Report(release="r", sampled=1, compared=1, differing=0, differences=())
    with pytest.raises(SettingsError, match=r"cannot be written \(No such file or directory\); give --metrics-file"):
        _write_metrics(report, tmp_path / "none" / "parity.prom")
