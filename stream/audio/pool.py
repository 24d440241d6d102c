"""The process pool that hears tracks: sandboxed processes of one thread, with a time and a memory limit for each track.

A malicious file may exploit a decoder and take over its pool process. Such a process has no way to the worker but one
socket: it receives open files over it, and sends msgpack that decodes to the structs of stream.audio.messages alone.
It gets no variables of the worker's environment but those that name programs and libraries, so it knows no password.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import IO

import msgspec
import structlog

from models.errors import (
    AudioError,
    FetchFailed,
    OutOfMemory,
    ProcessCrashed,
    ProcessTimedOut,
    ReleaseError,
    TastewaveError,
)
from models.tagging import Tagging
from stream.audio import sandbox
from stream.audio.machine import lacking
from stream.audio.messages import LENGTH, Message, Ready, Refused, Request

log = structlog.get_logger(__name__)

CRASH_TRIES = 2
_MAX_MESSAGE_BYTES = 16 * 2**20
_ERRORS = {error.__name__: error for error in (FetchFailed, OutOfMemory, ReleaseError, *AudioError.__subclasses__())}
_ENVIRONMENT = ("PATH", "LANG", "LC_", "LD_", "MALLOC_", "PYTHON")  # starts of the variables that are passed on


class PoolUnusable(TastewaveError):
    """No pool process can be started now."""


class _Died(Exception):
    """A pool process has ended, or sent something that it should not."""


class _Process:
    """The worker's side of a pool process: the child process and the worker's end of the socket.

    Raises OSError when the process cannot be started.
    """

    def __init__(self, release: str, max_duration_s: float, memory_bytes: int) -> None:
        self.guards: dict[str, bool] = {}
        self._dim: int | None = None
        self.genre_shares: dict[str, float] = {}
        self._asked = False
        self._channel, theirs = socket.socketpair()
        self._channel.setblocking(False)
        environment = {name: text for name, text in os.environ.items() if name.startswith(_ENVIRONMENT)}
        arguments = [str(theirs.fileno()), release, str(max_duration_s), str(memory_bytes)]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "stream.audio.pool_process", *arguments],
                pass_fds=[theirs.fileno()],
                env=environment | {"OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    @property
    def usable(self) -> bool:
        """Whether it is running and owes no answer."""
        return not self._asked and self._process.poll() is None

    async def load(self) -> None:
        """Wait until it has loaded the release. Raises _Died, or ReleaseError when it refuses the release."""
        if self.guards:
            return
        message = await self._receive()
        if isinstance(message, Refused):
            raise _error(message)
        if isinstance(message, Tagging):
            raise _Died("it sent an answer before it got a file")
        self.guards, self._dim, self.genre_shares = message.guards, message.dim, message.genre_shares

    async def hear(self, file: IO[bytes], request: Request) -> Tagging:
        """Send it a file and what else is known of its track, and wait for the answer.

        Raises _Died, MachineUnusable, or the error that it answers with.
        """
        try:  # opened again: the process can only read, and reads from the start
            descriptor = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            problem = FetchFailed(f"the audio cannot be read ({error.strerror}); check its file")
            raise lacking(error) or problem from None
        self._asked = True
        data = msgspec.msgpack.encode(request)
        try:  # a few hundred bytes into an empty buffer: all of them are taken
            socket.send_fds(self._channel, [LENGTH.pack(len(data)), data], [descriptor])
        except OSError as error:
            raise lacking(error) or _Died(str(error)) from None
        finally:
            os.close(descriptor)
        message = await self._receive()
        if isinstance(message, Ready):
            raise _Died("it said that it is ready instead of answering")
        if isinstance(message, Tagging) and message.embedding is not None and len(message.embedding) != self._dim:
            raise _Died(f"its answer has an embedding of {len(message.embedding)} dimensions")
        self._asked = False
        if isinstance(message, Refused):
            raise _error(message)
        return message

    def kill(self) -> None:
        """Kill it, and close the socket."""
        self._process.kill()
        self._channel.close()

    def wait(self) -> int:
        """Wait until it has ended; returns its exit status."""
        return self._process.wait()

    async def end(self) -> int:
        """Kill and wait; may be called again."""
        self.kill()
        return await asyncio.to_thread(self.wait)

    async def _receive(self) -> Message:
        (length,) = LENGTH.unpack(await self._read(LENGTH.size))
        if length > _MAX_MESSAGE_BYTES:
            raise _Died(f"it announced an answer of {length} bytes")
        try:
            return msgspec.msgpack.decode(await self._read(length), type=Message)
        except msgspec.MsgspecError as error:
            raise _Died(f"its answer cannot be read: {error}") from None

    async def _read(self, count: int) -> bytearray:
        data = bytearray()
        while len(data) < count:
            try:
                piece = await asyncio.get_running_loop().sock_recv(self._channel, count - len(data))
            except OSError as error:
                raise _Died(str(error)) from None
            if not piece:
                raise _Died("it closed its socket")
            data += piece
        return data


def _error(refused: Refused) -> Exception:
    if kind := _ERRORS.get(refused.error):
        return kind(refused.message)
    return RuntimeError(f"hearing failed in the pool process: {refused.message}")


def _unusable(reason: str) -> PoolUnusable:
    return PoolUnusable(f"no pool process can be started ({reason}); see what the machine lacks")


class TaggerPool:
    """Hears tracks in other processes, so that a decoder that crashes, hangs or needs too much memory fails its own
    track and no other.

        pool = TaggerPool(str(release.folder), processes=2, timeout_s=60, memory_mb=1024, max_duration_s=3600)
        pool.launch()
        await pool.ready()
        with open("song.mp3", "rb") as file:
            tagging = await pool.tag(file)
        pool.stop()

    Args:
        release: folder of the release.
        processes: how many processes; each hears one track at a time.
        timeout_s: the longest that hearing one track may take; then its process is killed.
        memory_mb: MiB that a process may take beyond its memory with the release loaded.
        max_duration_s: longest track.
        on_restart: called once for every process that ended or was killed before `stop`.
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
        self.trouble: PoolUnusable | None = None
        """Why a lost process could not be replaced the last time; None once a replacement has succeeded."""
        self._timeout_s = timeout_s
        self._on_restart = on_restart
        self._arguments = (release, max_duration_s, memory_mb * 2**20)
        self._processes: set[_Process] = set()
        self._idle: asyncio.LifoQueue[_Process] = asyncio.LifoQueue()

    def launch(self) -> None:
        """Start the processes and return at once, while they load the release. Raises PoolUnusable."""
        try:
            for _ in range(self.processes):
                self._idle.put_nowait(self._start())
        except OSError as error:
            raise _unusable(error.strerror or str(error)) from None

    async def ready(self) -> dict[str, bool]:
        """Wait until the processes have loaded the release.

        Returns:
            For each guard of stream.audio.sandbox, whether it holds in all of them.

        Raises:
            ReleaseError: the release cannot be used.
            PoolUnusable: a process ended while it loaded the release.
        """
        try:
            await asyncio.gather(*(process.load() for process in self._processes))
        except _Died as error:
            raise PoolUnusable(f"a pool process ended while it loaded the release ({error}); see the log") from None
        return {name: all(process.guards[name] for process in self._processes) for name in sandbox.GUARDS}

    @property
    def genre_shares(self) -> dict[str, float]:
        """Share of each genre among the tracks that the genre head was trained on, once the pool is `ready`."""
        return next(iter(self._processes)).genre_shares

    async def tag(self, file: IO[bytes], *, track_id: str | None = None, artist_id: str | None = None) -> Tagging:
        """Hear an open file, from its start, in a pool process that is `ready`.

        A file whose process dies is heard once more by a new process.

        Args:
            file: the audio.
            track_id: by which the user tower of the release may know the track.
            artist_id: of its artist, which counts where the release has a table of artists.

        Raises:
            AudioError: the file cannot be decoded, or is too short, too long or silent.
            FetchFailed: the file cannot be read.
            MachineUnusable: it cannot be handed over, since the machine lacks what that needs.
            ProcessCrashed: the process died, and so did the next one.
            ProcessTimedOut: hearing took longer than timeout_s.
            OutOfMemory: hearing needed more memory than memory_mb.
            PoolUnusable: a new process was needed, and could not be started.
        """
        process = await self._idle.get()
        try:
            for tries in range(1, CRASH_TRIES + 1):
                if not process.usable:
                    process = await self._replacement(process)
                try:
                    async with asyncio.timeout(self._timeout_s):
                        return await process.hear(file, Request(track_id=track_id, artist_id=artist_id))
                except TimeoutError:
                    raise ProcessTimedOut(
                        f"hearing the track took over {self._timeout_s:g} s and was ended; check the file"
                    ) from None
                except _Died as error:
                    status = await self._lose(process)
                    log.warning("pool.process_lost", exit_status=status, error=str(error), tries=tries)
                    if tries == CRASH_TRIES:
                        raise ProcessCrashed(
                            f"the process hearing the track died {tries} times (exit status {status}); check the file"
                        ) from None
            raise AssertionError  # pragma: no cover
        finally:
            if not process.usable:  # it timed out, or the caller was cancelled: its answer must not reach the next one
                await self._lose(process)
            self._idle.put_nowait(process)

    def stop(self) -> None:
        """Kill the processes, with the tracks that they are hearing."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes.clear()

    def _start(self) -> _Process:
        process = _Process(*self._arguments)
        self._processes.add(process)
        return process

    async def _lose(self, process: _Process) -> int:
        """Kill a process and count it as lost, once; returns its exit status."""
        if process in self._processes:
            self._processes.discard(process)
            self._on_restart()
        return await process.end()

    async def _replacement(self, lost: _Process) -> _Process:
        """Start a process in the place of a lost one, and wait until it is ready. Raises PoolUnusable."""
        await self._lose(lost)
        try:
            process = self._start()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await process.load()
            except BaseException:
                await self._lose(process)
                raise
        except (OSError, _Died, ReleaseError) as error:  # TimeoutError is an OSError
            reason = str(error) or f"it did not load within {self._timeout_s:g} s"
            self.trouble = _unusable(reason)
            raise self.trouble from None
        self.trouble = None
        return process
