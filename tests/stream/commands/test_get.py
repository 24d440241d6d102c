import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

import stream.commands.get
from models.contract import LIVE_KEY, track_fields, track_key
from models.events import TrackTagged, encode_event
from stream.commands.get import NoAnswer, show_track
from stream.settings import RedisSettings

RELEASE = "0123456789ab"
ANSWER = TrackTagged(
    track_id="t1",
    release=RELEASE,
    status="tagged",
    event_time=1795378728800,
    event_id="e1",
    tagged_at=1795378730927,
    genre="jazz",
    confidence=0.81,
    genres=(("jazz", 0.81), ("blues", 0.1)),
    tags=(("[slow]", 0.5),),
    title="[x] é",
    embedding=(1.0, 0.0),
)
FAILED = TrackTagged(
    track_id="t2", release=RELEASE, status="failed", event_time=1000, event_id="e2", tagged_at=1234, reason="not_audio"
)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[bytes, bytes]]:
    """The hashes that the Redis of the command holds."""
    hashes = {LIVE_KEY: {b"release": RELEASE.encode()}}
    for answer in (ANSWER, FAILED):
        fields = {name.encode(): value for name, value in track_fields(answer).items()}
        hashes[track_key(RELEASE, answer.track_id)] = fields

    @contextlib.contextmanager
    def client(_: RedisSettings) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(
            hget=lambda key, field: hashes.get(key, {}).get(field.encode()), hgetall=lambda key: hashes.get(key, {})
        )

    monkeypatch.setattr(stream.commands.get, "sync_client", client)
    return hashes


def facts(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    rows = (line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    return {name: value.strip() for name, value in rows}


@pytest.mark.usefixtures("held")
def test_an_answer_is_printed_fact_by_fact(capsys: pytest.CaptureFixture[str]) -> None:
    show_track(RedisSettings(), "t1")
    assert facts(capsys) == {
        "track": "t1",
        "title": "[x] é",
        "genre": "jazz",
        "confidence": "0.81",
        "genres": "jazz 0.81, blues 0.10",
        "tags": "[slow] 0.50",
        "embedding": "2 dimensions",
        "release": RELEASE,
        "uploaded": "2026-11-22 20:18:48.800 UTC",
        "tagged": "2026-11-22 20:18:50.927 UTC, 2127 ms later",
    }


@pytest.mark.usefixtures("held")
def test_a_failure_is_printed_with_its_reason_and_without_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    show_track(RedisSettings(), "t2")
    told = facts(capsys)
    assert told["genre"] == "failed: not_audio"
    assert told.keys() == {"track", "genre", "release", "uploaded", "tagged"}


@pytest.mark.usefixtures("held")
def test_json_is_the_answer_as_it_was_published(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    show_track(RedisSettings(), "t1", as_json=True)
    assert capsysbinary.readouterr().out == encode_event(ANSWER) + b"\n"


def test_what_is_not_there_is_an_error_that_says_what_to_do(held: dict[str, dict[bytes, bytes]]) -> None:
    with pytest.raises(NoAnswer, match="release 0123456789ab knows no track t9; upload it"):
        show_track(RedisSettings(), "t9")
    with pytest.raises(NoAnswer, match="release ffffffffffff knows no track t1"):
        show_track(RedisSettings(), "t1", release="ffffffffffff")
    del held[LIVE_KEY]
    with pytest.raises(NoAnswer, match="no release is live; start a worker"):
        show_track(RedisSettings(), "t1")
    show_track(RedisSettings(), "t1", release=RELEASE)
