"""The process pool that hears tracks: single-threaded processes, each task with a time and a memory limit."""

from __future__ import annotations

import asyncio
import ctypes
import io
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from pebble import ProcessExpired, ProcessPool

from models.errors import FetchFailed, NotFound, OutOfMemory, ProcessCrashed, ProcessTimedOut, TastewaveError

if TYPE_CHECKING:
    from models.tagger import Tagger, Tagging

log = structlog.get_logger(__name__)

CRASH_TRIES = 2
_PR_SET_PDEATHSIG = 1
_tagger: Tagger | None = None
_refusal: TastewaveError | None = None


def _start_process(release: str, max_duration_s: float, memory_bytes: int) -> None:
    """In a new process: die with the parent, leave Ctrl-C to it, load and warm up, then bound memory."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported
    from models.release import load_release
    from models.tagger import Tagger

    global _tagger, _refusal  # noqa: PLW0603
    try:
        _tagger = Tagger(load_release(release), max_duration_s=max_duration_s)
    except TastewaveError as error:
        _refusal = error
        return
    _tagger.tag(_noise())  # libraries take their working memory at first use, and end the process when refused
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write what they think of a file there
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _noise() -> bytes:
    import numpy as np
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).uniform(-0.1, 0.1, 64_000), 16_000, format="WAV")
    return file.getvalue()


def _loaded() -> Tagger:
    if _refusal:
        raise _refusal
    if _tagger is None:
        raise RuntimeError("the process was not started by TaggerPool")
    return _tagger


def _tag(path: str) -> Tagging:
    try:
        return _loaded().tag(Path(path))
    except MemoryError:
        raise OutOfMemory(
            "hearing the track needs more memory than task_memory_mb; check the file or raise it"
        ) from None
    except FileNotFoundError:
        raise NotFound("the audio is not there; check its address") from None
    except OSError as error:
        raise FetchFailed(f"the audio cannot be read ({error.strerror}); check its file") from None


def _ready() -> None:
    _loaded()


class TaggerPool:
    """Hears tracks in other processes; a crash, a hang or a bloated decoder costs its own track alone.

    Args:
        release: folder of the release.
        processes: how many.
        timeout_s: for one track, then its process is ended.
        memory_mb: MiB that a process may add to what it has with the release loaded.
        max_duration_s: longest track.
        on_restart: called for every process that was lost.
    """

    def __init__(
        self,
        release: str,
        *,
        processes: int,
        timeout_s: float,
        memory_mb: int,
        max_duration_s: float,
        on_restart: Callable[[], None] = lambda: None,
    ) -> None:
        self.processes = processes
        self._timeout_s = timeout_s
        self._on_restart = on_restart
        self._launched: list[Future[Any]] = []
        self._stopped = False
        self._start_arguments = (release, max_duration_s, memory_mb * 2**20)
        self._pool = self._new_pool()

    def launch(self) -> None:
        """Start the processes; they load the release while the caller goes on."""
        self._launched = [self._schedule(_ready) for _ in range(self.processes)]

    async def ready(self) -> None:
        """Return when the processes have loaded the release. Raises ReleaseError where they cannot."""
        await asyncio.gather(*map(asyncio.wrap_future, self._launched))

    async def tag(self, path: str) -> Tagging:
        """Hear the file at path, which a process of the same user can open.

        Raises:
            AudioError: what models.audio says of the file.
            ProcessingError: the process died, twice; ran past its time; or wanted too much memory.
        """
        for tries in range(1, CRASH_TRIES + 1):
            try:
                return await asyncio.wrap_future(self._schedule(_tag, path))
            except TimeoutError:
                self._on_restart()
                raise ProcessTimedOut(
                    f"hearing the track took over {self._timeout_s:g} s and was ended; check the file"
                ) from None
            except (ProcessExpired, BrokenProcessPool) as error:
                self._on_restart()
                exit_code = getattr(error, "exitcode", None)
                log.warning("pool.process_lost", exit_code=exit_code, tries=tries)
                if tries == CRASH_TRIES:
                    raise ProcessCrashed(
                        f"the process hearing the track died {tries} times (exit code {exit_code}); check the file"
                    ) from None
        raise AssertionError  # pragma: no cover

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self.processes,
            initializer=_start_process,
            initargs=self._start_arguments,
            context=multiprocessing.get_context("spawn"),  # pyright: ignore[reportArgumentType]
        )

    def _schedule(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        if not self._pool.active and not self._stopped:  # pebble gives up when a process dies between two tasks
            self._on_restart()
            log.warning("pool.replaced")
            self._pool.stop()
            self._pool.join()
            self._pool = self._new_pool()
        return self._pool.schedule(function, args=arguments, timeout=self._timeout_s)

    def stop(self) -> None:
        """End the processes; what they were hearing is given up."""
        self._stopped = True
        self._pool.stop()
        self._pool.join()
