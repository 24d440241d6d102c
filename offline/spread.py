"""One function over many shards, by processes of this machine or by a Ray cluster; each shard's result is sealed.

    def count(shard: Sequence[str]) -> dict[str, bytes]:  # in a module that every process can import
        return {"lines.txt": b"%d" % sum(map(lines_of, shard))}

    shards = {"00000": ["a.txt", "b.txt"], "00001": ["c.txt"]}
    with progress_bar() as bar:
        given_up = spread(count, shards, out=Path("counts"), progress=bar, label="Counting")

makes counts/00000/lines.txt and counts/00001/lines.txt. Each folder appears whole, with a manifest of its files, and is
written by this process alone, so nothing is there twice. A run that was killed goes on where it was: what has a folder
is not done again.

The processes are our own few lines, as those of a dump are. In concurrent.futures and loky one process that dies breaks
the pool and does not tell which work it had; pebble's pool breaks where a process dies between two works. Ray is
imported here and nowhere else, and only where it is asked for.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import msgspec
from rich.progress import Progress
from threadpoolctl import threadpool_limits

from models.errors import SettingsError, TastewaveError
from models.sealed_folder import SealedFile, SealedKind, describe_bytes
from offline.files import new_folder

Files = Mapping[str, bytes]
"""What a shard comes to: the contents of its files, by their names."""

Shard_ = TypeVar("Shard_", bound=Sequence[Any])

MOST_DEATHS = 3
"""Processes that a shard may kill before it is given up."""

_GIVEN_UP_IN_A_ROW = 5  # with none done between them, not the shards are to blame
_AHEAD_ON_RAY = 2  # shards in hand for each core: none waits for this process, and a cluster that grows has a reason to
_ANSWER_S = 10.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class SpreadFailed(TastewaveError):
    """The processes die, whatever they are given."""


class ShardManifest(msgspec.Struct, frozen=True, kw_only=True):
    """shard.json."""

    files: dict[str, SealedFile]


SHARD = SealedKind(
    what="a sealed shard",
    manifest="shard.json",
    decode=lambda content, _: msgspec.json.decode(content, type=ShardManifest),
    check=lambda *_: None,
    advice="remove its folder, and run this again",
)
"""For models.sealed_folder.load_sealed, which verifies a shard."""


def spread(
    work: Callable[[Shard_], Files],
    shards: Mapping[str, Shard_],
    *,
    out: Path,
    progress: Progress,
    label: str,
    processes: int | None = None,
    ray: str | None = None,
) -> list[str]:
    """Do a work for each shard, and seal what it comes to in a folder of the shard's name.

    A process that dies is replaced, and its shard is done again. A shard that has killed three processes is given up,
    and the others are done.

    Args:
        work: a function of a module, or an object that can be pickled and called; it runs with one thread.
        shards: by their names. Their lengths are what the progress bar counts.
        out: where the folders are made. The caller keeps other runs out of it (offline.files.locked).
        progress: bars to which one is added.
        label: of the bar.
        processes: on this machine; as many as it has cores for this process when None.
        ray: address of a Ray cluster, as ray.init takes it, which does the work in the place of these processes.

    Returns:
        The names of the shards that were given up, in the order of `shards`.

    Raises:
        SettingsError: Ray is not installed, does not answer, or its nodes cannot load the work.
        SpreadFailed: several shards in a row killed their processes.
        Exception: what the work raised.
        OSError: a shard cannot be written.
    """
    waiting = deque(name for name in shards if not (out / name).exists())
    done = sum(map(len, shards.values())) - sum(len(shards[name]) for name in waiting)
    bar = progress.add_task(label, total=sum(map(len, shards.values())), completed=done)
    if not waiting:
        return []
    deaths = _Deaths()
    with _ray_crew(work, ray) if ray else _process_crew(work, min(processes or cores(), len(waiting))) as crew:
        come = list[tuple[str, Files]]()
        while waiting or crew.in_hand or come:
            while waiting and len(crew.in_hand) < crew.size():
                name = waiting.popleft()
                crew.give(name, shards[name])
            for name, files in come:  # while the crew works on
                seal(out / name, files)
                progress.advance(bar, len(shards[name]))
            come = []
            for name, outcome in crew.finished() if crew.in_hand else ():
                if isinstance(outcome, Exception):
                    raise outcome
                if outcome is not None:
                    come.append((name, outcome))
                    deaths.end()
                elif deaths.allow_another(name):
                    waiting.appendleft(name)
    return [name for name in shards if name in deaths.given_up]


class _Deaths:
    """Who is to blame for the processes that die: a shard, or the machine.

    Attributes:
        given_up: the shards that have killed too many.
    """

    def __init__(self) -> None:
        self.given_up: set[str] = set()
        self._of = Counter[str]()
        self._in_a_row = 0

    def end(self) -> None:
        """Note that a shard was done."""
        self._in_a_row = 0

    def allow_another(self, name: str) -> bool:
        """Note that a process of this shard died, and tell whether another may try. Raises SpreadFailed."""
        self._of[name] += 1
        if self._of[name] < MOST_DEATHS:
            return True
        self.given_up.add(name)
        self._in_a_row += 1
        if self._in_a_row == _GIVEN_UP_IN_A_ROW:
            raise SpreadFailed(
                f"{self._in_a_row} shards in a row killed {MOST_DEATHS} processes each; look for a lack of memory "
                "(fewer processes need less), and run this again: what is done stays"
            )
        return False


def seal(folder: Path, files: Files) -> None:
    """Write the files of a shard, and a manifest of them where they have none yet, to a folder that appears whole."""
    with new_folder(folder) as draft:
        for name, content in _with_manifest(files).items():
            (draft / name).write_bytes(content)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def _with_manifest(files: Files) -> Files:
    if SHARD.manifest in files:
        return files
    manifest = ShardManifest(files={name: describe_bytes(content) for name, content in files.items()})
    return {**files, SHARD.manifest: msgspec.json.encode(manifest)}


def _outcome(work: Callable[[Shard_], Files], shard: Shard_) -> Files | Exception:
    """What a process answers: the files with their manifest, or what was raised."""
    try:
        return _with_manifest(work(shard))
    except (TastewaveError, OSError) as error:
        return error
    except Exception:  # noqa: BLE001 - a bug of the work: its traceback goes where the run ends
        return RuntimeError(traceback.format_exc())


class _Crew(Protocol):
    """Those who work.

    Attributes:
        in_hand: what they work on: each shard's name by a token of the crew.
    """

    in_hand: dict[Any, str]

    def size(self) -> int:
        """How many shards may be in hand now."""
        ...

    def give(self, name: str, shard: Sequence[Any]) -> None:
        """Take a shard in hand."""
        ...

    def finished(self) -> Iterator[tuple[str, Files | Exception | None]]:
        """Wait for the next shards that are in hand no longer: what each came to, None where its process died."""
        ...


class _Processes:
    """Processes of this machine, each with a pipe."""

    def __init__(self, work: Callable[[Any], Files], most: int) -> None:
        self.in_hand: dict[Any, str] = {}
        self._work, self._most = work, most
        self._processes: dict[Connection, BaseProcess] = {}
        resource_tracker.ensure_running()  # the first process would start it, and it would let SIGINT through

    def size(self) -> int:
        return self._most

    def give(self, name: str, shard: Sequence[Any]) -> None:
        for pipe in self._processes.keys() - self.in_hand.keys():
            try:
                pipe.send(shard)
            except OSError:  # it died since its last shard
                self._end(pipe)
            else:
                self.in_hand[pipe] = name
                return
        pipe = self._start()
        with contextlib.suppress(OSError):  # it died at once; finished() sees that
            pipe.send(shard)
        self.in_hand[pipe] = name

    def finished(self) -> Iterator[tuple[str, Files | Exception | None]]:
        for pipe in cast(list[Connection], wait(list(self.in_hand))):
            name = self.in_hand.pop(pipe)
            try:
                outcome = pipe.recv()
            except (EOFError, OSError):
                self._end(pipe)
                outcome = None
            yield name, outcome

    def _start(self) -> Connection:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        # Ctrl-C reaches all processes of a terminal; this one ends the others, which never see it.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()  # or its end would not be seen
        self._processes[ours] = process
        return ours

    def _end(self, pipe: Connection) -> None:
        process = self._processes.pop(pipe)
        process.kill()
        process.join()
        pipe.close()

    def close(self) -> None:
        for pipe in list(self._processes):
            self._end(pipe)


def _serve(pipe: Connection, work: Callable[[Any], Files]) -> None:
    """What a process does until it is ended, or the one that started it has ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # in the middle of a shard as well
    with contextlib.suppress(EOFError, OSError), threadpool_limits(1):
        while True:
            pipe.send(_outcome(work, pipe.recv()))


@contextlib.contextmanager
def _process_crew(work: Callable[[Any], Files], most: int) -> Iterator[_Crew]:
    crew = _Processes(work, most)
    try:
        yield crew
    finally:
        crew.close()


class _OnRay:
    """Processes of a Ray cluster. Tries are counted here, so that a shard means the same there as here."""

    def __init__(self, ray: Any, work: Callable[[Any], Files], address: str) -> None:
        self.in_hand: dict[Any, str] = {}
        self._ray, self._address = ray, address
        self._work = ray.put(work)
        self._task = ray.remote(num_cpus=1, max_retries=0)(_outcome)
        died = ("WorkerCrashedError", "NodeDiedError", "ObjectLostError", "OutOfMemoryError")
        self._died = tuple(getattr(ray.exceptions, name) for name in died)

    def size(self) -> int:
        return max(1, _AHEAD_ON_RAY * int(self._ray.cluster_resources().get("CPU", 0)))

    def give(self, name: str, shard: Sequence[Any]) -> None:
        self.in_hand[self._task.remote(self._work, shard)] = name

    def finished(self) -> Iterator[tuple[str, Files | Exception | None]]:
        ready, _ = self._ray.wait(list(self.in_hand), num_returns=1)
        for token in ready:
            name = self.in_hand.pop(token)
            try:
                outcome = self._ray.get(token)
            except self._died:
                outcome = None
            except self._ray.exceptions.RayError as error:
                why = str(error).strip().rpartition("\n")[2]
                raise SettingsError(
                    f"a node of the Ray cluster {self._address} cannot do the work ({why}); install the same tastewave "
                    "on all of its nodes"
                ) from error
            yield name, outcome


@contextlib.contextmanager
def _ray_crew(work: Callable[[Any], Files], address: str) -> Iterator[_Crew]:
    try:
        import ray as ray_library
    except ModuleNotFoundError:
        raise SettingsError("ray is not installed here; install tastewave[ray], or leave --ray out") from None
    ray: Any = ray_library
    try:
        _check_answers(address)
        ray.init(address, logging_level="ERROR", log_to_driver=False)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise SettingsError(
            f"the Ray cluster {address} cannot be used ({error}); name the address that `ray start --head` prints, "
            "on a machine of the cluster"
        ) from error
    try:
        yield _OnRay(ray, work, address)
    finally:
        ray.shutdown()  # ends what its processes still do for this one


def _check_answers(address: str) -> None:
    """Raise OSError where nothing listens at an address; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
