"""`make demo`, as a person runs it: answers and reasons on the screen, and nothing left behind."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from offline.synth.music import write_tracks
from tests.platform.clock import until

pytestmark = pytest.mark.servers
ROOT = Path(__file__).parents[2]


@contextmanager
def demo(scratch: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The demo, its temporary folders below scratch; killed if the test fails."""
    command = [sys.executable, "-m", "deploy.local.demo", *map(str, arguments)]
    environment = os.environ | {"TMPDIR": str(scratch), "TASTEWAVE_TOPIC_PREFIX": "not.ours."}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def left_behind(scratch: Path) -> list[object]:
    """Files below scratch, and processes that name it."""
    processes = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    return [*scratch.iterdir(), *(words for words in processes if words and str(scratch) in " ".join(words))]


def test_a_demo_that_is_kept_answers_every_track_says_what_failed_has_a_page_and_cleans_up(tmp_path: Path):
    music, scratch = tmp_path / "music of mine", tmp_path / "scratch"
    scratch.mkdir()
    names = [path.stem for path in write_tracks(music, tracks=2, duration_s=5.0)]
    with demo(scratch, "--keep", music) as process:
        lines = list(itertools.takewhile(lambda line: line != "All of it runs until Ctrl-C.\n", process.stdout))
        address, _, token = lines[-1].removeprefix("The page: ").strip().partition("/#token=")
        assert "<title>tastewave" in httpx.get(f"{address}/").text
        user = httpx.get(f"{address}/v1/users/ann", headers={"Authorization": f"Bearer {token}"})
        assert user.json()["listens"] == 8
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    output = "".join(lines) + rest
    assert process.returncode == 0, output
    assert output.endswith("Stopped; everything is cleaned up.\n")
    assert all(name in output for name in names)
    assert "not_audio" in output
    assert "not_found" in output
    assert "is a demonstration, learned from a made-up platform" in output
    offered = {tuple(line.split()[:2]): line for line in output.splitlines() if line.split()[:1] in (["ann"], ["bob"])}
    assert "Metal no. " in offered["ann", "after"]
    assert "Classical no. " in offered["bob", "after"]
    assert "The HTTP API answers at http://127.0.0.1:" in output
    assert "Where to look next" in output
    until(lambda: left_behind(scratch) == [], timeout_s=10)  # pool processes end a moment after their worker


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("line", ["Starting Kafka", "Creating topics"])
def test_a_demo_that_is_stopped_cleans_up(tmp_path: Path, line: str, number: signal.Signals):
    with demo(tmp_path, *([tmp_path] if line == "Creating topics" else [])) as process:
        assert any(said.startswith(line) for said in process.stdout)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert output.endswith("Stopped; everything is cleaned up.\n")
    until(lambda: left_behind(tmp_path) == [], timeout_s=10)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    with demo(tmp_path, tmp_path / "nowhere") as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert output.endswith(f"Error: Invalid value for '[AUDIO]': Directory '{tmp_path / 'nowhere'}' does not exist.\n")
