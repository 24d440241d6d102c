"""The corpus of hostile files through a real worker: right outcomes, good tracks tagged, nothing else reached."""

from collections import Counter
from pathlib import Path

import pytest

from models.events import TrackTagged
from tests.platform.hostile_audio.canary import watched
from tests.platform.hostile_audio.corpus import corpus
from tests.platform.hostile_audio.inputs import unharmed
from tests.platform.tracks import Platform

pytestmark = pytest.mark.servers

TASK_TIMEOUT_S = 10  # two of the files use all of it
NEIGHBOUR_EVERY = 20


def outcome(answer: TrackTagged) -> str:
    return str(answer.reason) if answer.status == "failed" else "heard"


def restarts(platform: Platform) -> int:
    name = "tastewave_pool_restarts_total "
    lines = [line for line in platform.health("/metrics")[1].splitlines() if line.startswith(name)]
    return int(float(lines[0].removeprefix(name)))


@pytest.mark.timeout(900)
def test_every_hostile_upload_is_answered_or_a_dead_letter_its_neighbours_are_tagged_and_nothing_else_is_reached(
    platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> None:
    good = platform.folder / "neighbour.wav"
    good.write_bytes(unharmed("wav", 3.4))
    worker = platform.start_worker(pool_size="2", task_timeout_s=str(TASK_TIMEOUT_S), task_memory_mb="512")
    with watched(tmp_path_factory.mktemp("outside")) as (target, touched):
        inputs = {f"hostile-{number}": hostile for number, hostile in enumerate(corpus(target))}
        neighbours = []
        for number, (track_id, hostile) in enumerate(inputs.items()):
            platform.upload(hostile.write(platform.folder).as_uri(), track_id=track_id, title=hostile.name[:200])
            if number % NEIGHBOUR_EVERY == 0:
                neighbours.append(platform.upload(good.as_uri(), track_id=f"neighbour-{number}"))
        platform.settled(timeout_s=600)
        # The pool replaces a lost process when it needs one. Eight tracks at once need all of them.
        neighbours += [platform.upload(good.as_uri(), track_id=f"late-{number}") for number in range(8)]
        platform.settled()
        assert worker.poll() is None
        platform.until_ready()
        answers = platform.output()
    assert touched == []
    assert not list(platform.folder.glob("touched*"))
    assert not list(Path.cwd().glob("touched*"))

    assert len(inputs) >= 300
    assert answers.keys() == inputs.keys() | {event.track_id for event in neighbours}
    wrong = {
        hostile.name: (outcome(answers[track_id]), sorted(hostile.outcomes))
        for track_id, hostile in inputs.items()
        if outcome(answers[track_id]) not in hostile.outcomes
    }
    assert wrong == {}
    assert {outcome(answers[event.track_id]) for event in neighbours} == {"heard"}

    letters = {letter["key"].decode(): letter["reason"] for letter in platform.dead_letters()}
    assert letters == {track_id: answer.reason for track_id, answer in answers.items() if answer.status == "failed"}
    reasons = Counter(letters.values())
    assert "process_crashed" not in reasons
    assert restarts(platform) == reasons["process_timed_out"]
    assert "Traceback" not in platform.worker_log()
