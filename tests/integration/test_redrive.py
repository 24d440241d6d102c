"""Dead letters are sent again by the command, on real servers; what it sends is read from the source topics."""

import json
import subprocess
from typing import Any

import pytest

from models.contract import DEAD_LETTER, FORGOTTEN, LISTENS, TRACKS_UPLOADED
from models.events import TrackUploaded, encode_event
from stream.broker.redrive import Choice, Source, redrive
from tests.platform.clock import until
from tests.platform.commands import TASTEWAVE
from tests.platform.letters import put_letter, upload
from tests.platform.music import write_music
from tests.platform.tracks import Platform

pytestmark = pytest.mark.servers

HEADERS = [("trace", b"\x00\xff"), ("empty", b""), ("tastewave.reason", b"of its producer"), ("trace", b"2")]


def put(platform: Platform, offset: int, **letter: Any) -> None:
    put_letter(platform.producer, platform.settings, offset, **letter)


def keys(platform: Platform, topic: str = TRACKS_UPLOADED) -> list[str]:
    return sorted(record.key.decode() for record in platform.read(topic))


def lines(printed: str) -> list[str]:
    return [" ".join(line.split()) for line in printed.splitlines() if line.strip()]


def test_a_redriven_upload_is_answered_after_its_cause_was_mended(platform: Platform) -> None:
    audio = platform.folder / "song.wav"
    event = TrackUploaded(event_id="e", track_id="song", uri=audio.as_uri(), uploaded_at=1_700_000_000_000, title="x")
    send: Any = platform.producer.send
    topic = platform.settings.topics.named(TRACKS_UPLOADED)
    send(topic, key=b"producer's key", value=encode_event(event), headers=HEADERS, partition=2).get(30)
    platform.start_worker()
    until(lambda: platform.read(DEAD_LETTER))
    platform.run("dead-letters", "redrive")  # the cause is not mended: a new letter, which this run leaves alone
    until(lambda: len(platform.read(DEAD_LETTER)) == 2)
    write_music(audio)
    done = platform.try_to_run("dead-letters", "redrive", "--reason", "not_found")
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout) == ["events sent again 1 (1 not_found)", "further letters of these events 1"]
    until(lambda: platform.wait_for(event).status in ("tagged", "abstained"))  # it was failed before
    assert platform.wait_for(event).title == "x"
    assert len(platform.read(DEAD_LETTER)) == 2
    first, second, third = platform.read(TRACKS_UPLOADED)
    for record in (first, second, third):
        assert (record.key, record.value, record.partition) == (b"producer's key", encode_event(event), 2)
        assert list(record.headers) == HEADERS


def test_reason_and_time_choose_letters_and_truncated_and_foreign_ones_are_refused(platform: Platform) -> None:
    put(platform, 1, at=1_764_158_399_999)
    put(platform, 2, at=1_764_158_400_000)  # 2025-11-26 12:00 UTC
    put(platform, 3, reason="silent", at=1_764_158_400_000)
    put(platform, 4, topic=LISTENS, value=b"{}", at=1_764_158_400_001)
    put(platform, 5, value=b"x" * 5_000, max_bytes=3_000, at=1_764_158_400_001)
    put(platform, 6, topic=FORGOTTEN, at=1_764_158_400_001)
    chosen = ("dead-letters", "redrive", "--reason", "not_found", "--since", "2025-11-26T13:00+01:00")
    refused = ["refused, truncated 1", "refused, not of a topic that workers read 1"]
    assert lines(platform.run(*chosen, "--dry-run")) == ["events to send again 2 (2 not_found)", *refused]
    assert (keys(platform), keys(platform, LISTENS)) == ([], [])
    done = platform.try_to_run(*chosen)
    assert lines(done.stdout) == ["events sent again 2 (2 not_found)", *refused]
    assert (keys(platform), keys(platform, LISTENS)) == (["t2"], ["t4"])
    begin, end = [json.loads(line) for line in done.stderr.splitlines() if line.strip()]
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert (begin["event"], begin["by"]) == ("dead_letters.redrive", user)
    assert begin["choice"] == {"reason": "not_found", "since_ms": 1_764_158_400_000}
    assert (end["event"], end["by"]) == ("dead_letters.redriven", user)
    assert (end["sent"], end["truncated"], end["foreign"]) == ({"not_found": 2}, 1, 1)
    no_time = platform.try_to_run("dead-letters", "redrive", "--since", "yesterday")
    assert (no_time.returncode, "2026-11-26T13:00" in no_time.stderr) == (1, True)


def test_letters_are_chosen_by_the_place_of_their_event_and_an_event_is_sent_once(platform: Platform) -> None:
    for offset in (1, 2, 3):
        put(platform, offset, partition=1)
    put(platform, 7, key=b"t2", value=upload("t2"))  # the event of offset 2, which was redriven and failed again
    topic = platform.settings.topics.named(TRACKS_UPLOADED)
    choice = Choice(sources=frozenset({Source(topic, 1, 2), Source(topic, 0, 7), Source(topic, 0, 3)}))
    redriven = redrive(platform.settings, choice, by="somebody", rate=1000)
    assert (redriven.sent, redriven.repeated) == ({"not_found": 1}, 1)
    assert keys(platform) == ["t2"]


def test_a_redrive_that_was_killed_is_run_again_and_loses_nothing(platform: Platform) -> None:
    numbers = range(30)
    for number in numbers:
        put(platform, number, partition=number % 3)
    killed = subprocess.Popen(
        [TASTEWAVE, "dead-letters", "redrive", "--rate", "5"], env=platform.environment, stderr=subprocess.DEVNULL
    )
    until(lambda: len(keys(platform)) >= 3)
    killed.kill()
    killed.wait(30)
    sent_before = keys(platform)
    assert 3 <= len(sent_before) < len(numbers)
    assert lines(platform.run("dead-letters", "redrive"))[0] == "events sent again 30 (30 not_found)"
    assert keys(platform) == sorted([*sent_before, *(f"t{number}" for number in numbers)])
    assert all(record.partition == int(record.key[1:]) % 3 for record in platform.read(TRACKS_UPLOADED))
    assert lines(platform.run("dead-letters", "--last", "1"))[-1].split()[2:] in [
        ["not_found", f"t{number}", "m"] for number in numbers
    ]
