"""A process that hears tracks: `python -m stream.audio.pool_process SOCKET RELEASE MAX_DURATION_S MEMORY_BYTES`.

TaggerPool starts it with one end of a socket pair. It loads the release, gives up the rights that it no longer needs
(stream.audio.sandbox), and sends Ready. From then on, each Request comes with the descriptor of an open file, and its
answer is a Tagging or a Refused (stream.audio.messages). It ends when the worker closes the socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import os
import pkgutil
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from models.errors import FetchFailed, OutOfMemory, TastewaveError
from stream.audio import sandbox
from stream.audio.messages import LENGTH, Message, Ready, Refused, Request

if TYPE_CHECKING:
    from models.tagger import Tagger

_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_MORE_OOM_SCORE, _MOST_OOM_SCORE = 300, 1000  # thousandths of the memory: so much more a process seems to take


class PoolProcess:
    """Hears the files that come over a socket, one after another, in the process that it is made in.

    Args:
        channel_fd: descriptor of this process's end of the socket pair.
    """

    def __init__(self, channel_fd: int) -> None:
        self._channel = socket.socket(fileno=channel_fd)
        # A file over the same descriptor, since the sandbox allows write(2) and not send(2).
        self._answers = open(channel_fd, "wb", closefd=False)  # noqa: SIM115 - open as long as the process is

    def run(self, release: str, *, max_duration_s: float, memory_bytes: int) -> None:
        """Load the release, enter the sandbox, and answer requests until the worker closes its end."""
        from models.release import load_release
        from models.tagger import Tagger

        try:
            tagger = Tagger(load_release(release), max_duration_s=max_duration_s)
            _warm_up(tagger)
        except TastewaveError as error:
            self._send(_refused(error))
            return
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders print warnings about a file there
        self._send(Ready(sandbox.enter(memory_bytes=memory_bytes), tagger.dim, tagger.genre_shares))
        while request := self._receive():
            self._send(_hear(tagger, *request))

    def _receive(self) -> tuple[int, Request] | None:
        """The descriptor of the next file and what else is known; None when the worker has closed its end."""
        head, descriptors, _, _ = socket.recv_fds(self._channel, LENGTH.size, 1)
        if not descriptors:
            return None
        head = self._read_on(head, LENGTH.size)
        return descriptors[0], msgspec.msgpack.decode(self._read_on(b"", *LENGTH.unpack(head)), type=Request)

    def _read_on(self, data: bytes, size: int) -> bytes:
        """What was read of a part of the request, and the rest of it."""
        while len(data) < size:
            piece, _, _, _ = socket.recv_fds(self._channel, size - len(data), 1)
            if not piece:
                raise EOFError("the worker closed its end within a request")
            data += piece
        return data

    def _send(self, message: Message) -> None:
        data = msgspec.msgpack.encode(message)
        self._answers.write(LENGTH.pack(len(data)) + data)
        self._answers.flush()


def _warm_up(tagger: Tagger) -> None:
    """Hear a short piece, so that libraries open their files and take their working memory before the sandbox."""
    import av
    import numpy as np
    import soundfile

    for module in pkgutil.walk_packages(av.__path__, "av."):
        if module.name != "av.__main__":
            importlib.import_module(module.name)
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).uniform(-0.1, 0.1, 64_000), 16_000, format="WAV")
    wav = file.getvalue()
    tagger.tag(wav)
    tagger.tag(wav.replace(wav[36:44], b"data\0\0\0\0"))  # without its length, PyAV reads it


def _hear(tagger: Tagger, descriptor: int, request: Request) -> Message:
    try:
        with open(descriptor, "rb") as file:
            return tagger.tag(file, track_id=request.track_id, artist_id=request.artist_id)
    except TastewaveError as error:
        return _refused(error)
    except MemoryError:
        return _refused(
            OutOfMemory(
                "hearing the track needs more memory than a pool process may take; "
                "check the file or raise TASTEWAVE_TASK_MEMORY_MB"
            )
        )
    except OSError as error:
        return _refused(FetchFailed(f"the audio cannot be read ({error.strerror or error}); check its file"))
    except Exception:  # noqa: BLE001 - a bug of ours: the worker logs the traceback
        return Refused("", traceback.format_exc())


def _refused(error: TastewaveError) -> Refused:
    return Refused(type(error).__name__, str(error))


def _end_before_the_worker() -> None:
    """Where memory runs out, have the kernel choose this process: another one takes its place, and no record is lost.

    Any process may raise its own score; lowering that of the worker would take rights.
    """
    with contextlib.suppress(OSError):  # /proc may be read-only
        _OOM_SCORE.write_text(str(min(_MOST_OOM_SCORE, int(_OOM_SCORE.read_text()) + _MORE_OOM_SCORE)))


def main(channel_fd: int, release: str, max_duration_s: float, memory_bytes: int) -> None:
    """Run the process; before anything that takes long, settle how it ends."""
    _end_before_the_worker()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # die with the worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the worker handles it
    PoolProcess(channel_fd).run(release, max_duration_s=max_duration_s, memory_bytes=memory_bytes)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
