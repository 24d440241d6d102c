"""What the listens worker is measured against: Quix Streams with the same functions, and reading alone."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from environments import ROOT, python_of

from models.contract import LISTENS
from models.release import load_release

if TYPE_CHECKING:
    from listens_path import Rig

QUIX_GROUP = "quix.listens"
READERS = ("confluent-kafka", "aiokafka", "quix")
_READING_TIMEOUT_S = 120.0


@contextlib.contextmanager
def quix_worker(rig: Rig, release: Path, *, records: int) -> Iterator[psutil.Process]:
    """A Quix Streams application that does the worker's work, so many records at a time."""
    group = f"{QUIX_GROUP}.{load_release(release).release_id}"
    command = [*_script("quix_listens.py"), group, str(records)]
    with rig.process(command, release=release, PYTHONPATH=str(ROOT)) as process:
        yield process


def reading_alone(rig: Rig, count: int) -> dict[str, dict[str, float]]:
    """For each client listens/s and us of CPU, when it reads so many listens and does nothing with them."""
    figures = {}
    for reader in READERS:
        command = [*_script("listens_readers.py"), reader, rig.kafka.brokers, LISTENS, str(count)]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=_READING_TIMEOUT_S)
        figures[reader] = json.loads(answer.stdout.splitlines()[-1])
    return figures


def _script(name: str) -> list[str]:
    return [str(python_of("quix")), "-W", "ignore", str(Path(__file__).with_name(name))]
