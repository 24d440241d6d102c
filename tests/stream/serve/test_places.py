import pytest

from models.contract import TRACKS_TAGGED, USERS_EMBEDDED
from stream.serve.event_log import EventLog
from stream.serve.places import Places
from stream.serve.taste import Change


def test_places_are_read_from_their_text() -> None:
    places = Places.read("t12.0.7-u3")
    assert not places.passes(TRACKS_TAGGED, 0, 11)
    assert places.passes(TRACKS_TAGGED, 2, 7)
    assert not places.passes(TRACKS_TAGGED, 2, 7)
    assert places.passes(USERS_EMBEDDED, 1, 4)  # a partition that came later
    assert str(places) == "t12.0.8-u3.5"
    assert str(Places.read("t-u1")) == "t-u1"


@pytest.mark.parametrize(
    "text", ["", "x1", "t1,2", "t1.", "t-1", "t1-", "u1 ", "t1\n", "t" + "9" * 19, "t" + "1." * 60_000]
)
def test_a_text_that_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no event id"):
        Places.read(text)


def test_what_the_ring_has_lost_or_nobody_waits_for_begins_later() -> None:
    log = EventLog(size=3)
    for offset in range(5):
        log.take(0, offset, Change("track", f"t{offset}", at=1))
    log.take(1, 4, Change("track", "old", at=1), is_old=True)
    log.take(1, 5, None)
    log.reach(2, 9)
    assert (log.begin, log.end, log.begins, log.ends) == (2, 5, [2, 5, 0], [5, 6, 9])
    assert [log[number].offset for number in range(2, 5)] == [2, 3, 4]
    with pytest.raises(IndexError):
        log[1]
    behind = Places.read("t1.5.9")
    assert behind.skip_lost(TRACKS_TAGGED, log)
    assert str(behind) == "t2.5.9"
    assert not Places.read("t2.6.9").skip_lost(TRACKS_TAGGED, log)
    beyond = Places.read("t3.5.10")
    assert not beyond.skip_lost(TRACKS_TAGGED, log)
    assert beyond.skip_lost(TRACKS_TAGGED, log, were_handed_in=True)
    assert str(beyond) == "t3.5.0"
