"""What each target of the Makefile asks of the machine before it starts."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHOUT_SERVERS = ("lint", "fuzz", "audit", "locks")
WITH_SERVERS = ("demo", "test", "soak", "bench", "up")
ASKS_FOR_PYTHON = "PYTHON=python3 deploy/local/system.sh python"
ASKS_FOR_SERVERS = "PYTHON=python3 deploy/local/system.sh"


def commands(target: str) -> list[str]:
    """What make would run for a target, in order."""
    environment = {"PATH": os.environ["PATH"]}  # without the flags and variables of a make that runs this test
    command = ["make", "--dry-run", target]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.splitlines()


@pytest.mark.parametrize("target", WITHOUT_SERVERS)
def test_a_target_that_starts_no_server_asks_for_no_java_and_no_redis(target: str):
    assert [line for line in commands(target) if "system.sh" in line] == [ASKS_FOR_PYTHON]


@pytest.mark.parametrize("target", WITH_SERVERS)
def test_a_target_that_starts_servers_asks_for_what_they_need_before_anything_else(target: str):
    assert commands(target)[:2] == [ASKS_FOR_PYTHON, ASKS_FOR_SERVERS]
