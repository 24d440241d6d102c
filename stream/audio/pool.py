"""The process pool that hears tracks: sandboxed processes of one thread, each task with a time and a memory limit.

A pool process may be taken over by the file that it hears. So it has no way to this process but a socket, over
which it gets open files and gives back msgpack of fixed structs; and nothing of the worker's environment.
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
    FetchFailed,
    NotAudio,
    OutOfMemory,
    ProcessCrashed,
    ProcessTimedOut,
    ReleaseError,
    Silent,
    TastewaveError,
    TooLong,
    TooShort,
)
from stream.audio import sandbox
from stream.audio.pool_process import LENGTH, Heard, Message, Ready, Refused

log = structlog.get_logger(__name__)

CRASH_TRIES = 2
_MAX_MESSAGE_BYTES = 16 * 2**20
_ERRORS = {
    error.__name__: error for error in (FetchFailed, NotAudio, OutOfMemory, ReleaseError, Silent, TooLong, TooShort)
}
_ENVIRONMENT = ("PATH", "LANG", "LC_", "LD_", "MALLOC_", "PYTHON")  # what names a program and its libraries


class PoolUnusable(TastewaveError):
    """No pool process can be started now."""


class _Died(Exception):
    """A pool process ended, or spoke what it should not."""


class _Process:
    """A pool process and our end of its socket. Raises OSError when it cannot be started."""

    def __init__(self, release: str, max_duration_s: float, memory_bytes: int) -> None:
        self.guards: dict[str, bool] = {}
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
        """Whether it lives, and has no question to answer."""
        return not self._asked and self._process.poll() is None

    async def load(self) -> None:
        """Return when it can hear. Raises _Died, or ReleaseError when it refuses the release."""
        if self.guards:
            return
        message = await self._receive()
        if isinstance(message, Refused):
            raise _error(message)
        if isinstance(message, Heard):
            raise _Died("it answered before it was asked")
        self.guards = message.guards

    async def hear(self, file: IO[bytes]) -> Heard:
        """Raises _Died, or what models.errors has for the file."""
        try:  # for reading alone, and at its start
            descriptor = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise FetchFailed(f"the audio cannot be read ({error.strerror}); check its file") from None
        self._asked = True
        try:
            socket.send_fds(self._channel, [b"."], [descriptor])
        except OSError as error:
            raise _Died(str(error)) from None
        finally:
            os.close(descriptor)
        message = await self._receive()
        if isinstance(message, Ready):
            raise _Died("it answered what it was not asked")
        self._asked = False
        if isinstance(message, Refused):
            raise _error(message)
        return message

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._channel.close()

    def wait(self) -> int:
        """Its exit status, once it has ended."""
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
        self.trouble: PoolUnusable | None = None
        """Why the last try to replace a lost process failed; None when none did, or one came later."""
        self._timeout_s = timeout_s
        self._on_restart = on_restart
        self._arguments = (release, max_duration_s, memory_mb * 2**20)
        self._processes: set[_Process] = set()
        self._idle: asyncio.LifoQueue[_Process] = asyncio.LifoQueue()

    def launch(self) -> None:
        """Start the processes; they load the release while the caller goes on. Raises OSError."""
        for _ in range(self.processes):
            self._idle.put_nowait(self._start())

    async def ready(self) -> dict[str, bool]:
        """Return when the processes have loaded the release: which guards of stream.audio.sandbox hold in all of them.

        Raises ReleaseError where they refuse it, PoolUnusable where they die of it.
        """
        try:
            await asyncio.gather(*(process.load() for process in self._processes))
        except _Died as error:
            raise PoolUnusable(f"a pool process ended while it loaded the release ({error}); see the log") from None
        return {name: all(process.guards[name] for process in self._processes) for name in sandbox.GUARDS}

    async def tag(self, file: IO[bytes]) -> Heard:
        """Hear an open file; the pool is ready.

        Raises:
            AudioError: what models.audio.windows says of the file.
            FetchFailed: the file cannot be read.
            ProcessingError: the process died, twice; ran past its time; or wanted too much memory.
            PoolUnusable: no process can be started now.
        """
        process = await self._idle.get()
        try:
            for tries in range(1, CRASH_TRIES + 1):
                if not process.usable:
                    process = await self._replacement(process)
                try:
                    async with asyncio.timeout(self._timeout_s):
                        return await process.hear(file)
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
            if not process.usable:  # it hangs, or nobody waits for its answer
                await self._lose(process)
            self._idle.put_nowait(process)

    def stop(self) -> None:
        """End the processes; what they were hearing is given up."""
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
        """End a process for good, and count it once; returns its exit status."""
        if process in self._processes:
            self._processes.discard(process)
            self._on_restart()
        return await process.end()

    async def _replacement(self, lost: _Process) -> _Process:
        """A new process in the place of a lost one."""
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
            self.trouble = PoolUnusable(f"no pool process can be started ({reason}); see what the machine lacks")
            raise self.trouble from None
        self.trouble = None
        return process
