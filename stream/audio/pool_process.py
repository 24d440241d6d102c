"""A pool process: `python -m stream.audio.pool_process SOCKET RELEASE MAX_DURATION_S MEMORY_BYTES`.

It loads the release, gives up every right that it does not need (stream.audio.sandbox), then hears one file after
another. For each it gets a byte and a descriptor, and gives back one message: its length in 4 bytes, then
msgpack. The other side decodes no more than these structs, whatever a file has made of this process.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import os
import pkgutil
import signal
import socket
import struct
import sys
import traceback
from typing import TYPE_CHECKING, Literal

import msgspec

from models.events import WindowFeatures
from stream.audio import sandbox

if TYPE_CHECKING:
    from models.tagger import Tagger

LENGTH = struct.Struct(">I")
_PR_SET_PDEATHSIG = 1


class Ready(msgspec.Struct, tag=True):
    """The release is loaded; which guards hold, by name."""

    guards: dict[str, bool]


class Heard(msgspec.Struct, tag=True, kw_only=True):
    """models.tagger.Tagging, with the taggram as models.contract encodes it."""

    status: Literal["tagged", "abstained"]
    genre: str | None
    confidence: float
    genres: tuple[tuple[str, float], ...]
    tags: tuple[tuple[str, float], ...]
    taggram: bytes
    windows: dict[str, tuple[WindowFeatures, ...]]
    duration_s: float
    timings_ms: dict[str, float]


class Refused(msgspec.Struct, tag=True):
    """An error of ours: the name of its class in models.errors, and what it says."""

    error: str
    message: str


Message = Ready | Heard | Refused


def main(channel_fd: int, release: str, max_duration_s: float, memory_bytes: int) -> None:
    """Hear files until the other side closes its end."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # die with the worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    from models.contract import encode_taggram
    from models.errors import FetchFailed, OutOfMemory, TastewaveError
    from models.release import load_release
    from models.tagger import Tagger

    channel = socket.socket(fileno=channel_fd)
    answers = open(channel_fd, "wb", closefd=False)  # noqa: SIM115 - open as long as the process is

    def answer(message: Message) -> None:
        data = msgspec.msgpack.encode(message)
        answers.write(LENGTH.pack(len(data)) + data)
        answers.flush()

    def hear(descriptor: int) -> Message:
        try:
            with open(descriptor, "rb") as file:
                tagging = tagger.tag(file)
        except TastewaveError as error:
            return Refused(type(error).__name__, str(error))
        except MemoryError:
            advice = "check the file or raise TASTEWAVE_TASK_MEMORY_MB"
            return Refused(
                OutOfMemory.__name__, f"hearing the track needs more memory than a pool process may take; {advice}"
            )
        except OSError as error:
            return Refused(
                FetchFailed.__name__, f"the audio cannot be read ({error.strerror or error}); check its file"
            )
        except Exception:  # noqa: BLE001 - a fault of ours, for the log of the worker
            return Refused("", traceback.format_exc())
        return Heard(
            status=tagging.status,
            genre=tagging.genre,
            confidence=tagging.confidence,
            genres=tagging.genres,
            tags=tagging.tags,
            taggram=encode_taggram(tagging.taggram),
            windows=tagging.windows,
            duration_s=tagging.duration_s,
            timings_ms=tagging.timings_ms,
        )

    try:
        tagger = Tagger(load_release(release), max_duration_s=max_duration_s)
    except TastewaveError as error:
        answer(Refused(type(error).__name__, str(error)))
        return
    _warm_up(tagger)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write what they think of a file there
    answer(Ready(sandbox.enter(memory_bytes=memory_bytes)))
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        if not request:
            return
        answer(hear(descriptors[0]))


def _warm_up(tagger: Tagger) -> None:
    """Have libraries open their files and take their working memory, which they do at first use."""
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
    tagger.tag(wav.replace(wav[36:44], b"data\0\0\0\0"))  # of unknown length: PyAV reads it


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
