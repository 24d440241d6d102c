"""Damaged files: cut short, with flipped bits, or joined to other files."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tests.platform.hostile_audio.containers import ogg_page, ogg_pages, ogg_with
from tests.platform.hostile_audio.inputs import (
    DAMAGED,
    FORMATS,
    HEARD,
    NOT_AUDIO,
    OUT_OF_MEMORY,
    REFUSED,
    TOO_SHORT,
    Hostile,
    encoded,
    unharmed,
)
from tests.platform.music import music

FLIPS = 12
"""Damaged copies of each format."""


def truncated() -> Iterator[Hostile]:
    """Every format, cut at every tenth."""
    for suffix in FORMATS:
        for tenth in range(1, 10):
            outcomes = DAMAGED if 3 < tenth < 8 else REFUSED if tenth < 4 else HEARD
            if suffix == "wav":
                outcomes = HEARD if tenth > 5 else TOO_SHORT
            if suffix == "m4a":
                outcomes = NOT_AUDIO  # its index stands at the end
            yield Hostile("truncated", f"{suffix}-{tenth}-tenths.{suffix}", partial(_cut, suffix, tenth), outcomes)


def _cut(suffix: str, tenth: int) -> bytes:
    data = unharmed(suffix)
    return data[: len(data) * tenth // 10]


def bit_flipped() -> Iterator[Hostile]:
    """Every format with 2 to 128 flipped bits; with every second seed all of them are in the first 512 bytes."""
    for suffix in FORMATS:
        for seed in range(FLIPS):
            yield Hostile("bit-flipped", f"{suffix}-seed-{seed}.{suffix}", partial(_flipped, suffix, seed), DAMAGED)


def _flipped(suffix: str, seed: int) -> bytes:
    data = np.frombuffer(unharmed(suffix), np.uint8).copy()
    rng = np.random.default_rng([seed, FORMATS.index(suffix)])
    region = 512 if seed % 2 else len(data)
    places = rng.integers(0, region, 2 ** rng.integers(1, 8))
    np.bitwise_xor.at(data, places, (1 << rng.integers(0, 8, len(places))).astype(np.uint8))
    return data.tobytes()


def chained() -> Iterator[Hostile]:
    """Files with several streams, one after another or interleaved."""

    def ogg(samples: np.ndarray, rate: int, serial: int) -> bytes:
        return ogg_with(encoded(samples, rate, format="OGG", subtype="VORBIS"), serial=serial)

    stereo = np.stack([music(seconds=4), music(seconds=4, seed=1)], axis=1)
    piece = partial(ogg, music(seconds=4))
    parts: dict[str, Callable[[], bytes]] = {
        "rates.ogg": lambda: piece(22_050, 1) + piece(48_000, 2) + piece(8000, 3),
        "channels.ogg": lambda: piece(22_050, 1) + ogg(stereo, 22_050, 2),
        "codecs.ogg": lambda: unharmed("opus") + piece(22_050, 2),
        "codecs-turned.ogg": lambda: piece(22_050, 2) + unharmed("opus"),
        "one-serial.ogg": lambda: piece(22_050, 1) + piece(44_100, 1),
        "many.ogg": lambda: b"".join(ogg(music(seconds=0.1), 22_050, serial) for serial in range(1, 101)),
        "side-by-side.ogg": lambda: b"".join(
            one + other for one, other in zip(_ogg_split(piece(22_050, 1)), _ogg_split(piece(48_000, 2)), strict=False)
        ),
        "many-beginnings.ogg": lambda: b"".join(
            ogg_page(lacing, body, flags=2, serial=serial)
            for _, _, _, lacing, body in [next(ogg_pages(unharmed("ogg")))]
            for serial in range(2000)
        ),
        "rates.mp3": lambda: b"".join(encoded(music(seconds=4), rate, format="MP3") for rate in (22_050, 48_000, 8000)),
        "rates.flac": lambda: b"".join(encoded(music(seconds=4), rate, format="FLAC") for rate in (22_050, 48_000)),
        "formats.wav": lambda: b"".join(map(unharmed, FORMATS)),
        "formats-turned.webm": lambda: b"".join(map(unharmed, FORMATS[::-1])),
        "layers.mp3": lambda: unharmed("aac") + unharmed("mp3"),
    }
    for name, make in parts.items():
        yield Hostile("chained", f"chained-{name}", make, OUT_OF_MEMORY if name == "many-beginnings.ogg" else DAMAGED)


def _ogg_split(data: bytes) -> list[bytes]:
    return [b"OggS" + page for page in data.split(b"OggS")[1:]]
