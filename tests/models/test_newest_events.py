"""What Redis comes to hold of a user, whatever the order in which the events come."""

from hypothesis import given
from hypothesis import strategies as st

from models.events import Listen
from models.history import (
    FEEDBACK_KINDS,
    HISTORY_KINDS,
    KINDS,
    NewestEvents,
    StoredHistory,
    feedback_member,
    feedback_members,
    feedback_score,
    history_member,
    history_members,
)

LATER_SCORE = 52 * 2**35  # from this time on, in August 2026, the score of feedback is 52

listens = st.lists(
    st.builds(
        Listen,
        event_id=st.just("e"),
        user_id=st.just("u"),
        track_id=st.sampled_from(["a", "b", "é"]),
        kind=st.sampled_from(KINDS),
        at=st.integers(LATER_SCORE - 3, LATER_SCORE + 2),
        played_ms=st.integers(0, 2**26),
        duration_ms=st.integers(0, 2**26),
        excluded=st.sampled_from([False, False, False, True]),
    ),
    max_size=60,
)


@given(listens, st.integers(1, 4), st.integers(1, 4), st.randoms())
def test_the_newest_members_of_all_events_are_kept_whatever_their_order(events, history, feedback, chance):
    counted = [event for event in events if not event.excluded]
    members = sorted({history_member(event) for event in counted if event.kind in HISTORY_KINDS})
    latest = {}
    for event in sorted(counted, key=lambda event: event.at):
        if event.kind in FEEDBACK_KINDS:
            latest[event.kind, event.track_id] = event
    order = sorted(latest.values(), key=lambda event: (event.at, KINDS.index(event.kind), event.track_id.encode()))
    said = [(feedback_member(event), feedback_score(event.at)) for event in order]
    newest = NewestEvents(history=history, feedback=feedback)
    for event in chance.sample(events * 2, 2 * len(events)):
        newest.add(event)
    assert newest.stored() == StoredHistory(members[-history:], said[-feedback:])


@given(listens)
def test_many_members_at_once_are_those_of_each_listen(events):
    columns = zip(*[(e.at, KINDS.index(e.kind), e.played_ms, e.duration_ms) for e in events], strict=True)
    at, kinds, played, duration = columns if events else ([], [], [], [])
    track_ids = [event.track_id.encode() for event in events]
    assert history_members(at, kinds, played, duration, track_ids) == [history_member(event) for event in events]
    assert feedback_members(at, kinds, track_ids) == [
        (feedback_member(event), feedback_score(event.at)) for event in events
    ]
