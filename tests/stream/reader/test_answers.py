from models.contract import LIVE_KEY, track_fields, track_key
from models.events import TrackTagged
from stream.reader.answers import live_release, read_track

ANSWER = TrackTagged(
    track_id="t1", release="0123456789ab", status="abstained", event_time=1, event_id="e1", tagged_at=2
)


class Client:
    """A Redis that holds one answer, and counts what it is asked."""

    def __init__(self, live: bytes | None) -> None:
        self.live, self.asked = live, []
        self.key = track_key(ANSWER.release, ANSWER.track_id)
        self.fields = {name.encode(): value for name, value in track_fields(ANSWER).items()}

    def hget(self, key: str, field: str) -> bytes | None:
        self.asked.append(key)
        return self.live if (key, field) == (LIVE_KEY, "release") else None

    def hgetall(self, key: str) -> dict[bytes, bytes]:
        self.asked.append(key)
        return self.fields if key == self.key else {}


def test_an_answer_is_read_from_the_live_release() -> None:
    client = Client(b"0123456789ab")
    assert live_release(client) == "0123456789ab"
    assert read_track(client, "t1") == ANSWER
    assert read_track(client, "t2") is None


def test_a_release_that_is_named_is_asked_without_a_look_at_the_live_one() -> None:
    client = Client(None)
    assert read_track(client, "t1", release="0123456789ab") == ANSWER
    assert client.asked == [client.key]


def test_where_no_release_is_live_there_is_no_answer_and_no_error() -> None:
    client = Client(None)
    assert live_release(client) is None
    assert read_track(client, "t1") is None
