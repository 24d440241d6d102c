"""What a hostile input is, which outcomes are right for it, and the good files that most inputs are made from."""

import io
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from tests.platform.hostile_audio.containers import ogg_with
from tests.platform.music import write_music

# Outcomes: "heard", or the reason of a dead letter.
HEARD = frozenset({"heard"})  # tagged or abstained
NOT_AUDIO, TOO_SHORT = frozenset({"not_audio"}), frozenset({"too_short"})
TOO_LONG, SILENT = frozenset({"too_long"}), frozenset({"silent"})
REFUSED = NOT_AUDIO | TOO_SHORT
DAMAGED = HEARD | REFUSED | SILENT | frozenset({"damaged"})  # it depends on what the damage hit
TIMED_OUT = frozenset({"process_timed_out"})
TOO_LARGE = frozenset({"too_large"})  # the fetcher refuses it, no decoder sees it
OUT_OF_MEMORY = frozenset({"out_of_memory"})

FORMATS = ("wav", "flac", "mp3", "ogg", "opus", "m4a", "aac", "webm")
SECONDS = 6.0
RATE = 22_050


@dataclass(frozen=True)
class Hostile:
    """One hostile file.

    Attributes:
        group: the kind of attack; tests run group by group.
        name: the name of the file, with its suffix.
        make: returns the bytes of the file.
        outcomes: every outcome that is right: "heard", or the reason of a dead letter.
        hole_bytes: zeros that follow the bytes. They take no space on disk.
    """

    group: str
    name: str
    make: Callable[[], bytes]
    outcomes: frozenset[str]
    hole_bytes: int = 0

    def write(self, folder: Path) -> Path:
        """Write the file into the folder, and return its path."""
        path = folder / self.name
        path.write_bytes(self.make())
        os.truncate(path, path.stat().st_size + self.hole_bytes)
        return path


@cache
def unharmed(suffix: str, seconds: float = SECONDS) -> bytes:
    """A good file of that format, the same bytes every time: the random ids that its writer chose are replaced."""
    with tempfile.TemporaryDirectory() as folder:
        data = write_music(Path(folder) / f"track.{suffix}", seconds=seconds).read_bytes()
    if suffix in ("ogg", "opus"):
        return ogg_with(data, serial=1)
    for unique_id in (b"\x73\xa4\x90", b"\x73\xc5\x88", b"\x63\xc5\x88"):  # of Matroska's segment and track
        if suffix == "webm" and unique_id in data:
            size = unique_id[2] & 0x7F
            data = patched(data, unique_id, 3, b"\x01" * size)
    return data


def encoded(samples: np.ndarray, rate: int = RATE, **arguments: str) -> bytes:
    """Samples in a format of libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **arguments)
    return file.getvalue()


def patched(data: bytes, marker: bytes, offset: int, value: bytes, *, all_of_them: bool = False) -> bytes:
    """Replace bytes at an offset from the start of the first marker, or from the start of each."""
    if marker not in data:
        raise ValueError(f"there is no {marker!r} in the data")
    changed = bytearray(data)
    place = data.find(marker)
    while place >= 0:
        changed[place + offset : place + offset + len(value)] = value
        place = data.find(marker, place + 1) if all_of_them else -1
    return bytes(changed)
