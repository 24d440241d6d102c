import msgspec
import pytest
from aiokafka.structs import ConsumerRecord

from models.errors import EventError, FutureEvent
from models.events import Listen, encode_event
from models.history import feedback_member, history_member
from stream.listens.changes import Changes, read_changes

NOON = 1_767_225_600_000


def listen(track_id: str, *, user_id: str = "u1", kind: str = "play", at: int = 0, **fields: object) -> Listen:
    lengths = {"played_ms": 200_000, "duration_ms": 210_000} if kind in ("play", "skip") else {}
    values = {"event_id": "e", "user_id": user_id, "track_id": track_id, "kind": kind, "at": NOON + at}
    return msgspec.convert(values | lengths | fields, Listen)


def record(value: bytes | None, offset: int = 0) -> ConsumerRecord:
    return ConsumerRecord("tastewave.listens", 0, offset, NOON, 0, b"u1", value, None, 3, 0, ())


async def changes_of(*values: Listen | bytes | None, cluster: bool = False) -> Changes:
    encoded = [value if value is None or isinstance(value, bytes) else encode_event(value) for value in values]
    records = [record(value, offset) for offset, value in enumerate(encoded)]
    return await read_changes(records, now_ms=NOON, future_tolerance_ms=60_000, cluster=cluster)


async def test_listens_are_grouped_by_user_and_kind() -> None:
    play, like, exclude = listen("a"), listen("a", kind="like", at=5), listen("b", kind="exclude", at=7)
    other = listen("a", user_id="u2", kind="unlike", at=3)
    changes = await changes_of(play, like, other, exclude)
    assert changes.of_user.keys() == {"u1", "u2"}
    assert changes.of_user["u1"].history == {history_member(play): NOON, history_member(like): NOON + 5}
    assert changes.of_user["u1"].feedback == {feedback_member(like): NOON + 5, feedback_member(exclude): NOON + 7}
    assert changes.of_user["u2"].history == {}
    assert changes.of_user["u2"].feedback == {feedback_member(other): NOON + 3}


async def test_what_a_cluster_cannot_keep_together_is_refused_on_a_cluster_alone() -> None:
    braced = listen("a", user_id="}u")
    assert (await changes_of(braced)).of_user.keys() == {"}u"}
    changes = await changes_of(braced, listen("a"), cluster=True)
    assert changes.of_user.keys() == {"u1"}
    assert ["begins with a brace" in str(error) for _, error in changes.refused] == [True]


async def test_what_is_excluded_goes_nowhere() -> None:
    changes = await changes_of(listen("a", excluded=True), listen("b", user_id="u2", excluded=True))
    assert (changes.of_user, changes.excluded) == ({}, 2)


def changed(**fields: object) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(listen("a")) | fields)


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (b"{", EventError, "not a Listen event"),
        (None, EventError, "got an empty one"),
        (changed(kind="hum"), EventError, "Invalid enum value 'hum'"),
        (changed(at=NOON // 1000), EventError, "looks like seconds"),
        (changed(at=NOON + 60_001), FutureEvent, "at is 60 s ahead of this clock"),
        (changed(played_ms=200_000_000), EventError, r"<= 86400000 - at `\$\.played_ms`"),
        (changed(duration_ms=210_000_000), EventError, r"<= 86400000 - at `\$\.duration_ms`"),
        (changed(duration_ms=-1), EventError, r"duration_ms"),
    ],
)
async def test_what_is_no_listen_is_refused_and_its_neighbours_are_not(
    value: bytes | None, kind: type[EventError], said: str
) -> None:
    changes = await changes_of(listen("a"), value, listen("b", at=60_000))
    ((refused, error),) = changes.refused
    assert (refused.offset, type(error)) == (1, kind)
    with pytest.raises(kind, match=said):
        raise error
    assert len(changes.of_user["u1"].history) == 2
