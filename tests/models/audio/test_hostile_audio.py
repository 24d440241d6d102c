"""Every hostile input through the decoder, in a child process: a crash or a hang is told as a failure of its input."""

import hashlib
import multiprocessing
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from models.audio.windows import WindowPlan, decode_windows
from models.errors import AudioError, OutOfMemory
from tests.platform.hostile_audio.canary import Target, watched
from tests.platform.hostile_audio.corpus import corpus
from tests.platform.hostile_audio.inputs import TOO_LARGE, Hostile, unharmed

MAX_DURATION_S = 3 * 3600.0
MEMORY_MB = 128
LONGEST_S = 5.0
"""Of CPU time: the wall clock would judge a busy machine."""
HANGS_S = 120.0
NOWHERE = Target(Path("/nowhere/canary.aac"), 9)
GROUPS = sorted({hostile.group for hostile in corpus(NOWHERE)})


class Result(NamedTuple):
    """What became of an input, the memory (MiB, resident) that it took at most, and how long."""

    outcome: str
    memory_mb: float = 0.0
    seconds: float = 0.0


def _resident_mb(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def _decode_for(channel: Connection) -> None:
    """In the child: decode one file after another, and say what became of each."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel.send("ready")
    while True:
        path: Path = channel.recv()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before_mb, started = _resident_mb("VmRSS"), time.monotonic()
        try:
            decode_windows(path, plan=WindowPlan(), sample_rate=16_000, max_duration_s=MAX_DURATION_S)
            outcome = "heard"
        except AudioError as error:
            outcome = error.reason
        except MemoryError:
            outcome = OutOfMemory.reason
        except Exception as error:  # noqa: BLE001 - the test tells it
            outcome = repr(error)
        channel.send(Result(outcome, _resident_mb("VmHWM") - before_mb, time.monotonic() - started))


class Decoder:
    """A child process that decodes; a new one after a crash or a hang."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._channel, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_decode_for, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._channel.recv()  # it has imported what it needs, which counts for no file

    def decode(self, path: Path) -> Result:
        self._channel.send(path)
        before_s, started = self._cpu_s(), time.monotonic()
        while not (done := self._channel.poll(0.05)):
            if self._cpu_s() - before_s > LONGEST_S or time.monotonic() - started > HANGS_S:
                break
        if done:
            try:
                return self._channel.recv()
            except EOFError:
                self.close()
                crash = Result(f"crashed with exit code {self._process.exitcode}")
                self._start()
                return crash
        self.close()
        self._start()
        return Result("process_timed_out", seconds=time.monotonic() - started)

    def _cpu_s(self) -> float:
        with suppress(psutil.NoSuchProcess):  # it crashed, which the channel tells
            return sum(psutil.Process(self._process.pid).cpu_times()[:2])
        return 0.0

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._channel.close()


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder()
    yield decoder
    decoder.close()


def members(group: str, target: Target) -> list[Hostile]:
    """The inputs of a group that the fetcher lets through."""
    return [hostile for hostile in corpus(target) if hostile.group == group and hostile.outcomes != TOO_LARGE]


@pytest.mark.parametrize("group", GROUPS)
def test_every_input_ends_as_it_may_within_bounds_and_nothing_else_is_reached(
    group: str, decoder: Decoder, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with watched(tmp_path_factory.mktemp("outside")) as (target, touched):
        wrong = {}
        for hostile in members(group, target):
            path = hostile.write(tmp_path)
            result = decoder.decode(path)
            path.unlink()
            if result.outcome not in hostile.outcomes or result.memory_mb > MEMORY_MB:
                wrong[hostile.name] = (result, sorted(hostile.outcomes))
    assert wrong == {}
    assert touched == []


def test_the_corpus_is_large_and_every_input_has_a_name_of_its_own() -> None:
    inputs = corpus(NOWHERE)
    assert len(inputs) == 698
    assert len({hostile.name for hostile in inputs}) == len(inputs)
    assert all(hostile.outcomes for hostile in inputs)


def test_the_corpus_is_the_same_every_time() -> None:
    def digests() -> dict[str, str]:
        return {
            hostile.name: hashlib.sha256(hostile.make()).hexdigest()
            for hostile in corpus(NOWHERE)
            if hostile.group not in ("bombs", "signals", "tags")  # large, and made by no library
        }

    first = digests()
    unharmed.cache_clear()
    assert digests() == first


def test_the_watch_notices_an_opening_a_connection_and_a_datagram(tmp_path: Path) -> None:
    import socket

    with watched(tmp_path) as (target, touched):
        assert target.path.read_bytes()
        assert touched == ["the file was opened"]
        with (
            socket.create_connection(("127.0.0.1", target.port)),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            sender.sendto(b"?", ("127.0.0.1", target.port))
    assert len(touched) == 3
