"""Strangers' files: a corpus of hostile inputs, the same bytes every time, each with what may become of it."""

import base64
import bz2
import fcntl
import gzip
import io
import lzma
import os
import signal
import socket
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import av
import numpy as np
import soundfile

from tests.platform.tracks import music, write_music

HEARD = frozenset({"heard"})  # tagged or abstained
NOT_AUDIO, TOO_SHORT = frozenset({"not_audio"}), frozenset({"too_short"})
TOO_LONG, SILENT = frozenset({"too_long"}), frozenset({"silent"})
REFUSED = NOT_AUDIO | TOO_SHORT
DAMAGED = HEARD | REFUSED | SILENT
ENDED = frozenset({"process_timed_out"})
TOO_LARGE = frozenset({"too_large"})  # the fetcher's word
TOO_MUCH = frozenset({"out_of_memory"})
FORMATS = ("wav", "flac", "mp3", "ogg", "opus", "m4a", "aac", "webm")
SECONDS = 6.0
RATE = 22_050
FLIPS = 12
DAY_S = 24 * 3600
LIMIT_S = 3 * 3600
"""Longest track that a worker takes by default."""

_HUGE = 2**32 - 1


@dataclass(frozen=True)
class Target:
    """What the inputs try to reach: a file outside the folders of uploads, and a port of loopback."""

    path: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/canary.aac"


@dataclass(frozen=True)
class Hostile:
    """An input.

    Attributes:
        group: its kind.
        name: its file's.
        make: its bytes.
        outcomes: "heard" and the reasons of dead letters that are right.
        hole_bytes: zeros behind the bytes, which take no space on disk.
    """

    group: str
    name: str
    make: Callable[[], bytes]
    outcomes: frozenset[str]
    hole_bytes: int = 0

    def write(self, folder: Path) -> Path:
        path = folder / self.name
        path.write_bytes(self.make())
        os.truncate(path, path.stat().st_size + self.hole_bytes)
        return path


def corpus(target: Target) -> list[Hostile]:
    """Every hostile input, under names of their own."""
    return [
        *truncated(),
        *bit_flipped(),
        *lying_wav(),
        *lying_flac(),
        *lying_ogg(),
        *lying_mp3(),
        *lying_mp4(),
        *lying_adts(),
        *lying_matroska(),
        *bombs(),
        *extreme_signals(),
        *chained(),
        *swollen_tags(),
        *other_files(),
        *playlists(target),
        *references(target),
        *file_names(),
        *findings(),
    ]


@contextmanager
def watched(target_folder: Path) -> Iterator[tuple[Target, list[str]]]:
    """A target and what touched it so far: openings of the file (by a lease on it), connections, datagrams.

    The file is audio, so that a track which leads to it would be heard.
    """
    path = target_folder / "canary.aac"
    path.write_bytes(unharmed("aac"))
    touched: list[str] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        path.open("r+b") as canary,
    ):
        datagrams.bind(listener.getsockname())
        for waiting in (listener, datagrams):
            waiting.setblocking(False)

        def opened(*_: object) -> None:
            touched.append("the file was opened")
            fcntl.fcntl(canary, fcntl.F_SETLEASE, fcntl.F_UNLCK)  # or its opener would wait

        previous = signal.signal(signal.SIGIO, opened)
        fcntl.fcntl(canary, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        try:
            yield Target(path, listener.getsockname()[1]), touched
        finally:
            with suppress(BlockingIOError):
                listener.accept()[0].close()
                touched.append("the port was connected to")
            with suppress(BlockingIOError):
                datagrams.recv(1)
                touched.append("the port got a datagram")
            with suppress(BlockingIOError):  # there is no lease any more
                fcntl.fcntl(canary, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            signal.signal(signal.SIGIO, previous)


@cache
def unharmed(suffix: str, seconds: float = SECONDS) -> bytes:
    """A piece of music in a format, without the random numbers that its writer puts in."""
    with tempfile.TemporaryDirectory() as folder:
        data = write_music(Path(folder) / f"track.{suffix}", seconds=seconds).read_bytes()
    if suffix in ("ogg", "opus"):
        return _ogg_with(data, serial=1)
    for unique_id in (b"\x73\xa4\x90", b"\x73\xc5\x88", b"\x63\xc5\x88"):  # of Matroska's segment and track
        if suffix == "webm" and unique_id in data:
            size = unique_id[2] & 0x7F
            data = _patched(data, unique_id, 3, b"\x01" * size)
    return data


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
    """Every format with a few to many bits turned over, half of the seeds in its first 512 bytes alone."""
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


def _patched(data: bytes, marker: bytes, offset: int, value: bytes, *, all_of_them: bool = False) -> bytes:
    """The data with bytes replaced at an offset behind the start of the first marker (or of each)."""
    if marker not in data:
        raise ValueError(f"there is no {marker!r} in the data")
    changed = bytearray(data)
    place = data.find(marker)
    while place >= 0:
        changed[place + offset : place + offset + len(value)] = value
        place = data.find(marker, place + 1) if all_of_them else -1
    return bytes(changed)


def _lies(group: str, suffix: str, lies: dict[str, tuple[Callable[[], bytes], frozenset[str]]]) -> Iterator[Hostile]:
    for name, (make, outcomes) in lies.items():
        yield Hostile(group, f"{group}-{name}.{suffix}", make, outcomes)


def lying_wav() -> Iterator[Hostile]:
    """RIFF, RF64, Wave64 and AIFF headers against which the audio says otherwise."""

    def fmt(offset: int, form: str, value: int) -> Callable[[], bytes]:
        return lambda: _patched(unharmed("wav"), b"fmt ", 8 + offset, struct.pack(form, value))

    def size(marker: bytes, value: int) -> Callable[[], bytes]:
        return lambda: _patched(unharmed("wav"), marker, 4, struct.pack("<I", value))

    def inserted(chunk: bytes) -> Callable[[], bytes]:
        return lambda: unharmed("wav")[:12] + chunk + unharmed("wav")[12:]

    def written(form: str, marker: bytes, offset: int, value: bytes) -> Callable[[], bytes]:
        return lambda: _patched(_written(music(seconds=4), format=form), marker, offset, value)

    yield from _lies(
        "lying-wav",
        "wav",
        {
            **{f"channels-{value}": (fmt(2, "<H", value), REFUSED) for value in (0, 255, 65_535)},
            **{f"rate-{value}": (fmt(4, "<I", value), REFUSED) for value in (0, 1, 10_000_000, _HUGE)},
            **{f"bits-{value}": (fmt(14, "<H", value), DAMAGED) for value in (0, 1, 7, 255, 65_535)},
            **{f"block-align-{value}": (fmt(12, "<H", value), DAMAGED) for value in (0, 1, 65_535)},
            **{f"format-{value:#x}": (fmt(0, "<H", value), DAMAGED) for value in (0, 2, 0x11, 0x31, 0x50, 0x55, 0x161)},
            **{f"format-{value:#x}": (fmt(0, "<H", value), DAMAGED) for value in (0xFF, 0xF1AC, 0xFFFE, 0xFFFF)},
            **{f"data-{value}-bytes": (size(b"data", value), HEARD) for value in (2**31, _HUGE)},
            "data-of-no-bytes": (size(b"data", 0), DAMAGED),
            "data-of-one-byte": (size(b"data", 1), REFUSED),
            **{f"fmt-{value}-bytes": (size(b"fmt ", value), DAMAGED) for value in (0, 2, 2**31, _HUGE)},
            **{f"riff-{value}-bytes": (size(b"RIFF", value), HEARD) for value in (0, 7, _HUGE)},
            "huge-unknown-chunk": (inserted(b"junk" + struct.pack("<I", _HUGE)), DAMAGED),
            "huge-list": (inserted(b"LIST" + struct.pack("<I", 2**31 - 1) + b"INFOINAM\xff\xff\xff\x7f"), DAMAGED),
            "many-chunks": (inserted((b"junk" + bytes(4)) * 20_000), DAMAGED),
            "fact": (inserted(b"fact\x04\0\0\0\xff\xff\xff\xff"), HEARD),
            "cues": (inserted(b"cue \x04\0\0\0\xff\xff\xff\xff"), DAMAGED),
            "rf64": (written("RF64", b"ds64", 8, b"\xff" * 24), DAMAGED),
            "w64": (written("W64", b"data", 16, b"\xff" * 7 + b"\x7f"), DAMAGED),
            "aiff-frames": (written("AIFF", b"COMM", 10, b"\xff" * 4), DAMAGED),
            "aiff-channels": (written("AIFF", b"COMM", 8, b"\0\xff"), REFUSED),
            "aiff-rate": (written("AIFF", b"COMM", 16, b"\x7f\xff" + b"\xff" * 8), DAMAGED),
            "caf-packets": (written("CAF", b"data", 4, b"\x7f" + b"\xff" * 7), DAMAGED),
            "au-header": (written("AU", b".snd", 4, b"\xff" * 8), DAMAGED),
        },
    )


def lying_flac() -> Iterator[Hostile]:
    """STREAMINFO and metadata blocks."""

    def info(**lie: int) -> Callable[[], bytes]:
        def make() -> bytes:
            data = unharmed("flac")
            packed = int.from_bytes(data[18:26], "big")
            for name, value in lie.items():
                shift, bits = {"rate": (44, 20), "channels": (41, 3), "bits": (36, 5), "samples": (0, 36)}[name]
                packed = packed & ~((2**bits - 1) << shift) | value << shift
            return data[:18] + packed.to_bytes(8, "big") + data[26:]

        return make

    def block(kind: int, length: int, content: bytes = b"") -> Callable[[], bytes]:
        return lambda: unharmed("flac")[:42] + bytes([kind]) + length.to_bytes(3, "big") + content

    def before_audio(kind: int, content: bytes) -> Callable[[], bytes]:
        def make() -> bytes:
            data = unharmed("flac")
            return data[:42] + bytes([kind]) + len(content).to_bytes(3, "big") + content + data[42:]

        return make

    yield from _lies(
        "lying-flac",
        "flac",
        {
            **{f"samples-{value}": (info(samples=value), HEARD) for value in (0, 2**36 - 1)},
            "one-sample": (info(samples=1), DAMAGED),
            **{f"rate-{value}": (info(rate=value), DAMAGED) for value in (0, 1, 655_350, 2**20 - 1)},
            "channels-8": (info(channels=7), DAMAGED),
            **{f"bits-{value + 1}": (info(bits=value), DAMAGED) for value in (0, 31)},
            "blocks-of-no-samples": (lambda: _patched(unharmed("flac"), b"fLaC", 8, bytes(4)), DAMAGED),
            "blocks-of-65535": (lambda: _patched(unharmed("flac"), b"fLaC", 8, b"\xff" * 4), DAMAGED),
            "huge-picture": (block(6, 2**24 - 1, bytes(100)), REFUSED),
            "seek-table": (before_audio(3, b"\xff" * 18 * 1000), DAMAGED),
            "comments": (before_audio(4, struct.pack("<II", 0, _HUGE)), DAMAGED),
            "comment-length": (before_audio(4, struct.pack("<I", _HUGE)), DAMAGED),
            "cue-sheet": (before_audio(5, bytes(395) + b"\xff"), DAMAGED),
            "reserved-block": (before_audio(126, bytes(1000)), DAMAGED),
            "padding-without-end": (lambda: unharmed("flac")[:42] + (b"\x01" + bytes(3)) * 50_000, REFUSED),
        },
    )


@cache
def _crc_table(bits: int, polynomial: int) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value >> bits - 1 & 1 else 0)
        table.append(value & 2**bits - 1)
    return tuple(table)


def _crc(data: bytes, bits: int, polynomial: int) -> bytes:
    table, mask, value = _crc_table(bits, polynomial), 2**bits - 1, 0
    for byte in data:
        value = (value << 8 & mask) ^ table[value >> bits - 8 ^ byte]
    return value.to_bytes(bits // 8, "big")


def _ogg_page(
    lacing: bytes, body: bytes, *, flags: int = 0, granule: int = 0, serial: int = 1, number: int = 0
) -> bytes:
    head = b"OggS" + struct.pack("<BBqII", 0, flags, granule, serial, number)
    tail = bytes([len(lacing)]) + lacing + body
    return head + _crc(head + bytes(4) + tail, 32, 0x04C11DB7)[::-1] + tail


def _ogg_pages(data: bytes) -> Iterator[tuple[bytes, int, int, bytes, bytes]]:
    """Flags, granule position and number of each page, its lacing values and its body."""
    place = 0
    while place < len(data):
        flags, granule, _, number = struct.unpack_from("<BqII", data, place + 5)
        lacing = data[place + 27 : place + 27 + data[place + 26]]
        start = place + 27 + len(lacing)
        place = start + sum(lacing)
        yield flags, granule, number, lacing, data[start:place]


def _ogg_with(
    data: bytes, *, serial: int, change: Callable[[bytes], bytes] = bytes, granule: int | None = None
) -> bytes:
    """An Ogg file with another serial number, changed bodies, other granule positions (of its audio)."""
    pages = []
    for flags, held, number, lacing, body in _ogg_pages(data):
        stated = held if granule is None or held <= 0 else granule
        pages.append(_ogg_page(lacing, change(body), flags=flags, granule=stated, serial=serial, number=number))
    return b"".join(pages)


def lying_ogg() -> Iterator[Hostile]:
    """Identification headers of Vorbis and Opus, granule positions, pages."""

    def header(suffix: str, marker: bytes, offset: int, value: bytes) -> Callable[[], bytes]:
        def change(body: bytes) -> bytes:
            return _patched(body, marker, offset, value) if body.startswith(marker) else body

        return lambda: _ogg_with(unharmed(suffix), serial=1, change=change)

    def granule(suffix: str, value: int) -> Callable[[], bytes]:
        return lambda: _ogg_with(unharmed(suffix), serial=1, granule=value)

    vorbis, opus = partial(header, "ogg", b"\x01vorbis"), partial(header, "opus", b"OpusHead")
    comments = partial(header, "ogg", b"\x03vorbis")
    yield from _lies(
        "lying-vorbis",
        "ogg",
        {
            **{f"channels-{value}": (vorbis(11, bytes([value])), DAMAGED) for value in (0, 2, 255)},
            **{f"rate-{value}": (vorbis(12, struct.pack("<I", value)), REFUSED) for value in (0, 1, 10_000_000)},
            "rate-negative": (vorbis(12, b"\xff" * 4), REFUSED),
            **{f"blocks-{value:#x}": (vorbis(28, bytes([value])), DAMAGED) for value in (0x00, 0x66, 0xDD, 0xFF)},
            "comment-vendor": (comments(7, b"\xff" * 4), DAMAGED),
            **{f"ends-at-{value}": (granule("ogg", value), DAMAGED) for value in (1, 2**40, 2**63 - 1)},
            "pages-without-end": (lambda: unharmed("ogg") + _ogg_page(b"\xff" * 255, bytes(65_025)) * 30, HEARD),
            "empty-pages": (lambda: unharmed("ogg") + _ogg_page(b"", b"") * 50_000, HEARD),
            "no-body": (lambda: _ogg_page(b"\xff" * 255, b"\x01vorbis", flags=2), NOT_AUDIO),
        },
    )
    yield from _lies(
        "lying-opus",
        "opus",
        {
            **{f"channels-{value}": (opus(9, bytes([value])), DAMAGED) for value in (0, 2, 255)},
            "skip": (opus(10, b"\xff\xff"), DAMAGED),
            **{f"rate-{value}": (opus(12, struct.pack("<I", value)), HEARD) for value in (0, 1, 10_000_000)},
            **{f"gain-{value}": (opus(16, struct.pack("<h", value)), HEARD | SILENT) for value in (32_767, -32_768)},
            **{f"family-{value}": (opus(18, bytes([value])), DAMAGED) for value in (1, 2, 255)},
            **{f"ends-at-{value}": (granule("opus", value), DAMAGED) for value in (1, 2**40, 2**63 - 1)},
        },
    )


def lying_mp3() -> Iterator[Hostile]:
    """The Xing header, frame headers, the size of the tag in front."""

    def xing(offset: int, value: bytes) -> Callable[[], bytes]:
        def make() -> bytes:
            data = unharmed("mp3")
            return _patched(data, b"Xing" if b"Xing" in data else b"Info", offset, value)

        return make

    def frames(offset: int, value: int) -> Callable[[], bytes]:
        return lambda: _patched(unharmed("mp3"), unharmed("mp3")[:2], offset, bytes([value]), all_of_them=True)

    yield from _lies(
        "lying-mp3",
        "mp3",
        {
            **{f"frames-{value}": (xing(8, struct.pack(">I", value)), DAMAGED) for value in (0, 1, 2**31, _HUGE)},
            **{f"bytes-{value}": (xing(12, struct.pack(">I", value)), DAMAGED) for value in (0, _HUGE)},
            "seek-table": (xing(16, b"\xff" * 100), DAMAGED),
            "delay": (xing(8, b"\xff" * 150), DAMAGED),
            **{f"second-byte-{value:#x}": (frames(1, value), DAMAGED) for value in (0xE3, 0xFB, 0xFD, 0xFF)},
            **{f"third-byte-{value:#x}": (frames(2, value), DAMAGED) for value in (0x00, 0x0C, 0xF0, 0xFF)},
        },
    )


def lying_mp4() -> Iterator[Hostile]:
    """Atoms: sizes, durations, tables of samples."""

    def atom(name: bytes, offset: int, value: bytes) -> Callable[[], bytes]:
        """offset: behind the name, version and flags included."""
        return lambda: _patched(unharmed("m4a"), name, 4 + offset, value)

    tables = {
        f"{name.decode()}-{value}-entries": (
            atom(name, 8 if name == b"stsz" else 4, struct.pack(">I", value)),
            DAMAGED | TOO_MUCH,
        )
        for name in (b"stts", b"stsc", b"stsz", b"stco", b"stsd", b"dref")
        for value in (0, 2**24, _HUGE)
    }
    sizes = {
        f"{name.decode()}-{value}-bytes": (
            lambda name=name, value=value: _patched(unharmed("m4a"), name, -4, struct.pack(">I", value)),
            DAMAGED,
        )
        for name in (b"ftyp", b"moov", b"trak", b"mdat", b"stsd", b"esds")
        for value in (0, 1, 7, _HUGE)
    }
    yield from _lies(
        "lying-mp4",
        "m4a",
        {
            **tables,
            **sizes,
            **{
                f"mdhd-scale-{value}": (atom(b"mdhd", 12, struct.pack(">I", value)), DAMAGED) for value in (0, 1, _HUGE)
            },
            "mdhd-duration": (atom(b"mdhd", 16, b"\xff" * 4), HEARD),
            "mvhd-scale": (atom(b"mvhd", 12, bytes(4)), DAMAGED),
            "one-size-for-all-samples": (atom(b"stsz", 4, struct.pack(">I", 2**31)), DAMAGED),
            "sample-of-4-gb": (atom(b"stsz", 12, b"\xff" * 4), DAMAGED),
            "samples-that-last": (atom(b"stts", 8, struct.pack(">II", _HUGE, _HUGE)), DAMAGED | TOO_LONG),
            "chunks-far-away": (atom(b"stco", 8, b"\xff" * 4), DAMAGED),
            **{
                f"channels-{value}": (atom(b"mp4a", 16, struct.pack(">H", value)), DAMAGED)
                for value in (0, 255, 65_535)
            },
            **{f"rate-{value}": (atom(b"mp4a", 24, struct.pack(">I", value)), DAMAGED) for value in (0, 1, _HUGE)},
            "edit-list": (atom(b"elst", 4, b"\xff" * 16), DAMAGED),
            "index-that-inflates": (lambda: _inflating_index(claimed_bytes=_HUGE), TOO_MUCH),
            "index-of-256-mb": (lambda: _inflating_index(claimed_bytes=2**28), NOT_AUDIO),
            "atoms-in-atoms": (lambda: _nested_atoms(2000), NOT_AUDIO),
            "many-tracks": (_many_tracks, TOO_MUCH),  # FFmpeg's word for over 1,000 streams
        },
    )


def _atom(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def _inflating_index(*, claimed_bytes: int) -> bytes:
    """A compressed index that states its size."""
    packed = zlib.compress(_atom(b"moov", bytes(2**24)))
    compressed = _atom(b"dcom", b"zlib") + _atom(b"cmvd", struct.pack(">I", claimed_bytes) + packed)
    return _atom(b"ftyp", b"qt  \0\0\0\0qt  ") + _atom(b"moov", _atom(b"cmov", compressed))


def _nested_atoms(depth: int) -> bytes:
    nested = b""
    for _ in range(depth):
        nested = _atom(b"udta", _atom(b"meta", bytes(4) + nested))
    return _atom(b"ftyp", b"M4A \0\0\0\0isom") + _atom(b"moov", nested)


def _many_tracks() -> bytes:
    data = unharmed("m4a")
    start = data.index(b"moov") - 4
    track = data[data.index(b"trak") - 4 :][: int.from_bytes(data[data.index(b"trak") - 4 :][:4], "big")]
    return data[:start] + _atom(b"moov", data[start + 8 :] + track * 2000)


def lying_adts() -> Iterator[Hostile]:
    """AAC frame headers."""

    def frames(offset: int, value: bytes) -> Callable[[], bytes]:
        return lambda: _patched(unharmed("aac"), unharmed("aac")[:3], offset, value, all_of_them=True)

    yield from _lies(
        "lying-adts",
        "aac",
        {
            **{f"third-byte-{value:#x}": (frames(2, bytes([value])), DAMAGED) for value in (0x00, 0x3C, 0x51, 0xFF)},
            "no-channels": (frames(3, b"\0"), DAMAGED),
            "frames-of-no-bytes": (frames(3, b"\x40\0\0\xfc"), DAMAGED),
            "frames-of-8191-bytes": (frames(3, b"\x43\xff\xff\xfc"), DAMAGED),
        },
    )


def _element(name: str, content: bytes | int | float | str) -> bytes:
    """An element of EBML."""
    if isinstance(content, int):
        content = content.to_bytes(8, "big")
    elif isinstance(content, float):
        content = struct.pack(">d", content)
    elif isinstance(content, str):
        content = content.encode()
    return bytes.fromhex(name) + (2**56 | len(content)).to_bytes(8, "big") + content


def _matroska(
    *,
    rate: float = 8000.0,
    channels: int = 1,
    bits: int = 16,
    codec: str = "A_PCM/INT/LIT",
    scale: int = 1_000_000,
    duration: float = 4000.0,
    cluster_at: int = 0,
    in_info: bytes = b"",
    in_track: bytes = b"",
    in_segment: bytes = b"",
    audio: bytes | None = None,
) -> bytes:
    """4 s of music in blocks of 0.1 s, with the lies asked for."""
    samples = (music(seconds=4, sample_rate=8000) * 32_767).astype("<i2").tobytes() if audio is None else audio
    blocks = [samples[start : start + 1600] for start in range(0, len(samples), 1600)] if audio is None else [samples]
    track = _element("d7", 1) + _element("73c5", 1) + _element("83", 2) + _element("86", codec) + in_track
    track += _element("e1", _element("b5", rate) + _element("9f", channels) + _element("6264", bits))
    cluster = _element("e7", cluster_at) + b"".join(
        _element("a3", b"\x81" + struct.pack(">hB", 100 * number, 0x80) + block) for number, block in enumerate(blocks)
    )
    info = _element("2ad7b1", scale) + _element("4489", duration) + in_info
    segment = _element("1549a966", info) + _element("1654ae6b", _element("ae", track)) + in_segment
    return _element("1a45dfa3", _element("4282", "matroska")) + _element(
        "18538067", segment + _element("1f43b675", cluster)
    )


def lying_matroska() -> Iterator[Hostile]:
    """Elements of Matroska and WebM."""

    def webm(marker: str, offset: int, value: bytes) -> Callable[[], bytes]:
        return lambda: _patched(unharmed("webm"), bytes.fromhex(marker), offset, value)

    nan, infinity = float("nan"), float("inf")
    zlib_on = _element("6d80", _element("6240", _element("5034", _element("4254", 0))))
    yield from _lies(
        "lying-matroska",
        "mka",
        {
            "no-lie": (_matroska, HEARD),
            **{
                f"rate-{value}": (partial(_matroska, rate=value), DAMAGED)
                for value in (0.0, 1.0, -1.0, 1e7, 1e300, nan, infinity)
            },
            **{f"channels-{value}": (partial(_matroska, channels=value), DAMAGED) for value in (0, 255, 2**63)},
            **{f"bits-{value}": (partial(_matroska, bits=value), DAMAGED) for value in (0, 7, 2**63)},
            **{
                f"scale-{value}": (partial(_matroska, scale=value), DAMAGED | TOO_LONG)
                for value in (0, 1, 2**63, 2**40)
            },
            **{
                f"duration-{value}": (partial(_matroska, duration=value), DAMAGED)
                for value in (0.0, -1.0, 1e300, nan, infinity)
            },
            **{
                f"cluster-at-{value}": (partial(_matroska, cluster_at=value), DAMAGED)
                for value in (2**40, 2**62, 2**63 - 1, 2**64 - 1)
            },
            "skip": (partial(_matroska, in_track=_element("56aa", 2**62) + _element("56bb", 2**62)), DAMAGED),
            "huge-private": (
                partial(_matroska, in_track=bytes.fromhex("63a2") + (2**56 | 2**31).to_bytes(8, "big")),
                REFUSED,
            ),
            "block-that-inflates": (
                lambda: _matroska(in_track=zlib_on, audio=zlib.compress(bytes(2**28))),
                DAMAGED,
            ),
            "lacing": (partial(_matroska, audio=b"\xff" * 4000), DAMAGED),
            "other-codec": (partial(_matroska, codec="V_MPEG4/ISO/AVC"), NOT_AUDIO),
            "elements-in-elements": (partial(_matroska, in_segment=_nested_elements(500)), DAMAGED),
            "huge-segment": (webm("18538067", 4, b"\x01\x7f\xff\xff\xff\xff\xff\xff"), DAMAGED),
            "huge-tracks": (webm("1654ae6b", 4, b"\x1f"), DAMAGED),
            "huge-header": (webm("1a45dfa3", 4, b"\x0f"), DAMAGED),
            "document-version": (webm("4287", 3, b"\xff"), DAMAGED),
        },
    )


def _nested_elements(depth: int) -> bytes:
    nested = _element("ec", b"")
    for _ in range(depth):
        nested = _element("b6", nested)
    return _element("1043a770", _element("45b9", nested))


def flac_of(seconds: float, *, rate: int, channels: int = 1, value: int = 0, states_length: bool = True) -> bytes:
    """A FLAC file of one sample value: about 14 bytes for each 65,535 samples."""
    blocks = -(-int(seconds * rate) // 65_535)
    total = blocks * 65_535 if states_length else 0
    packed = rate << 44 | (channels - 1) << 41 | 15 << 36 | total
    info = struct.pack(">HH", 65_535, 65_535) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    constant = (b"\0" + struct.pack(">h", value)) * channels
    frames = []
    for number in range(blocks):
        head = b"\xff\xf8\x70" + bytes([(channels - 1) << 4]) + chr(number).encode(errors="surrogatepass") + b"\xff\xfe"
        frame = head + _crc(head, 8, 0x07) + constant
        frames.append(frame + _crc(frame, 16, 0x8005))
    return b"fLaC\x80\0\0\x22" + info + b"".join(frames)


def opus_of(seconds: float) -> bytes:
    """An Opus file of packets in which nothing is sent: 3 bytes for each 120 ms."""
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 312, 48_000, 0, 0)
    tags = b"OpusTags" + struct.pack("<II", 0, 0)
    pages = [_ogg_page(bytes([len(head)]), head, flags=2), _ogg_page(bytes([len(tags)]), tags, number=1)]
    packets = int(seconds / 0.12)
    for start in range(0, packets, 255):
        count = min(255, packets - start)
        body = (b"\xe3\x30") * count  # 48 frames of 2.5 ms, each of no bytes
        pages.append(_ogg_page(b"\x02" * count, body, granule=(start + count) * 5760, number=2 + start // 255))
    return b"".join(pages)


def mp3_of(seconds: float) -> bytes:
    """An MP3 file (MPEG 2.5, 8 kHz, 8 kbit/s) of empty frames of 72 ms, without a statement of its length."""
    return (b"\xff\xe3\x18\xc4" + bytes(68)) * int(seconds / 0.072)


def wav_head(data_bytes: int, *, rate: int = 8000, channels: int = 1, bits: int = 8) -> bytes:
    frame = channels * bits // 8
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * frame, frame, bits)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + data_bytes)
        + b"WAVEfmt \x10\0\0\0"
        + fmt
        + b"data"
        + struct.pack("<I", data_bytes)
    )


def bombs() -> Iterator[Hostile]:
    """Little that becomes much, and much that is nothing."""
    longer_s, shorter_s = LIMIT_S + 60, LIMIT_S - 60

    def bomb(name: str, make: Callable[[], bytes], outcomes: frozenset[str], hole_bytes: int = 0) -> Hostile:
        return Hostile("bombs", name, make, outcomes, hole_bytes)

    yield bomb("hours-of-silence.flac", partial(flac_of, shorter_s, rate=8000), SILENT)
    yield bomb("hours-of-silence-unstated.flac", partial(flac_of, shorter_s, rate=8000, states_length=False), SILENT)
    yield bomb("a-little-too-long.flac", partial(flac_of, longer_s, rate=8000), TOO_LONG)
    yield bomb("a-little-too-long-unstated.flac", partial(flac_of, longer_s, rate=8000, states_length=False), TOO_LONG)
    yield bomb("a-day.flac", partial(flac_of, DAY_S, rate=8000), TOO_LONG)
    yield bomb("a-day-unstated.flac", partial(flac_of, DAY_S, rate=8000, states_length=False), TOO_LONG)
    yield bomb("a-day-at-48-khz.flac", partial(flac_of, DAY_S, rate=48_000), TOO_LONG)
    wide = partial(flac_of, shorter_s, rate=384_000, channels=8)
    yield bomb("hours-of-eight-channels.flac", wide, SILENT | ENDED)
    yield bomb("hours-of-eight-channels-unstated.flac", partial(wide, states_length=False), SILENT | ENDED)
    yield bomb("hours-of-nothing.opus", partial(opus_of, shorter_s), SILENT)
    yield bomb("a-day.opus", partial(opus_of, DAY_S), TOO_LONG)
    yield bomb("hours-of-nothing.mp3", partial(mp3_of, shorter_s), SILENT | NOT_AUDIO)
    yield bomb("a-day.mp3", partial(mp3_of, DAY_S // 4), TOO_LONG | NOT_AUDIO)
    day = DAY_S * 2000
    yield bomb("a-day.wav", partial(wav_head, day, rate=2000), TOO_LONG, day)
    yield bomb("a-day-unstated.wav", partial(wav_head, 0, rate=2000), TOO_LONG | NOT_AUDIO, day)
    yield bomb("too-many-bytes.wav", partial(wav_head, 250_000_000), TOO_LARGE, 250_000_000)
    yield bomb("zeros.bin", bytes, NOT_AUDIO, 190_000_000)
    yield bomb("zeros.mp3", lambda: unharmed("mp3")[:500], REFUSED, 190_000_000)
    yield bomb("zeros.m4a", lambda: unharmed("m4a")[:40], NOT_AUDIO, 190_000_000)
    yield bomb("frames-without-end.aac", lambda: b"\xff\xf1\x5c\x40\x01\x3f\xfc\x21\x1b\x80" * 100_000, DAMAGED)


def _written(samples: np.ndarray, rate: int = RATE, **arguments: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **arguments)
    return file.getvalue()


def extreme_signals() -> Iterator[Hostile]:
    """Samples as nobody records them."""
    size = 4 * RATE

    def signal_of(
        name: str, samples: Callable[[], np.ndarray], outcomes: frozenset[str], kind: str = "FLOAT"
    ) -> Hostile:
        return Hostile("signals", f"{name}.wav", lambda: _written(samples(), format="WAV", subtype=kind), outcomes)

    for value in (np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-40, 1.0, 0.25):
        outcomes = SILENT if value == 1e-40 or np.isnan(value) else HEARD
        yield signal_of(f"all-{value}", partial(np.full, size, value, np.float32), outcomes)
    yield signal_of("double-1e308", partial(np.full, size, 1e308), HEARD, "DOUBLE")
    yield signal_of("alternating-1e38", lambda: np.resize(np.float32([1e38, -1e38]), size), HEARD | SILENT)
    yield signal_of("inf-minus-inf", lambda: np.tile(np.float32([np.inf, -np.inf]), (size, 1)), SILENT)
    yield signal_of("some-nan", lambda: np.where(np.arange(size) % 100, music(seconds=4), np.nan), HEARD)
    yield signal_of("clipping", lambda: np.clip(1000 * music(seconds=4), -1, 1), HEARD, "PCM_16")
    yield signal_of("zeros", partial(np.zeros, size), SILENT, "PCM_16")
    yield signal_of("one-click", lambda: np.eye(1, size, size // 2)[0], HEARD, "PCM_16")
    noise = partial(np.random.default_rng(1).uniform, -1, 1)
    yield signal_of("noise", partial(noise, size), HEARD, "PCM_16")
    yield signal_of("64-channels", lambda: np.tile(music(seconds=4)[:, None], 64), HEARD, "PCM_16")
    yield signal_of("65-channels", lambda: np.tile(music(seconds=4)[:, None], 65), NOT_AUDIO, "PCM_16")
    yield signal_of("1000-channels", lambda: np.tile(music(seconds=0.2)[:, None], 1000), NOT_AUDIO, "PCM_U8")


def chained() -> Iterator[Hostile]:
    """Streams behind and beside one another."""

    def ogg(samples: np.ndarray, rate: int, serial: int) -> bytes:
        return _ogg_with(_written(samples, rate, format="OGG", subtype="VORBIS"), serial=serial)

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
            _ogg_page(lacing, body, flags=2, serial=serial)
            for _, _, _, lacing, body in [next(_ogg_pages(unharmed("ogg")))]
            for serial in range(2000)
        ),
        "rates.mp3": lambda: b"".join(
            _written(music(seconds=4), rate, format="MP3") for rate in (22_050, 48_000, 8000)
        ),
        "rates.flac": lambda: b"".join(_written(music(seconds=4), rate, format="FLAC") for rate in (22_050, 48_000)),
        "formats.wav": lambda: b"".join(map(unharmed, FORMATS)),
        "formats-turned.webm": lambda: b"".join(map(unharmed, FORMATS[::-1])),
        "layers.mp3": lambda: unharmed("aac") + unharmed("mp3"),
    }
    for name, make in parts.items():
        yield Hostile("chained", f"chained-{name}", make, TOO_MUCH if name == "many-beginnings.ogg" else DAMAGED)


def _ogg_split(data: bytes) -> list[bytes]:
    return [b"OggS" + page for page in data.split(b"OggS")[1:]]


def _syncsafe(value: int) -> bytes:
    return bytes(value >> shift & 0x7F for shift in (21, 14, 7, 0))


def _id3(content: bytes, claimed_bytes: int | None = None, *, version: int = 4, flags: int = 0) -> bytes:
    size = _syncsafe(len(content) if claimed_bytes is None else claimed_bytes)
    return b"ID3" + bytes([version, 0, flags]) + size + content


def swollen_tags() -> Iterator[Hostile]:
    """Tags that are huge, say that they are, or never end."""

    def before(tag: Callable[[], bytes], suffix: str = "mp3") -> Callable[[], bytes]:
        return lambda: tag() + unharmed(suffix)

    def frame3(name: bytes, content: bytes, flags: bytes = b"\0\0", size: int | None = None) -> bytes:
        return name + struct.pack(">I", len(content) if size is None else size) + flags + content

    picture = b"\0image/png\0\x03\0"

    def inflating() -> bytes:
        return struct.pack(">I", 2**31 - 1) + zlib.compress(bytes(2**26))

    def cover_atom() -> bytes:
        data = unharmed("m4a")
        start = data.index(b"moov") - 4
        cover = _atom(b"covr", _atom(b"data", struct.pack(">II", 14, 0) + bytes(12_000_000)))
        handler = _atom(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
        tags = _atom(b"udta", _atom(b"meta", bytes(4) + handler + _atom(b"ilst", cover)))
        return data[:start] + _atom(b"moov", data[start + 8 :] + tags)

    def flac_picture() -> bytes:
        data = unharmed("flac")
        head = struct.pack(">II", 3, 9) + b"image/png" + bytes(20) + struct.pack(">I", 16_000_000)
        size = (len(head) + 16_000_000).to_bytes(3, "big")
        return data[:42] + b"\x06" + size + head + bytes(16_000_000) + data[42:]

    tags: dict[str, tuple[Callable[[], bytes], frozenset[str]]] = {
        "id3-of-256-mb.mp3": (before(lambda: _id3(b"", 2**28 - 1)), DAMAGED),
        "id3-beyond-the-end.mp3": (before(lambda: _id3(bytes(10), 2**20)), DAMAGED),
        "id3-frame-of-4-gb.mp3": (before(lambda: _id3(frame3(b"TIT2", b"x", size=_HUGE), version=3)), HEARD),
        "id3-extended-header.mp3": (before(lambda: _id3(b"\x7f" * 40, flags=0x40)), HEARD),
        "id3-all-flags.mp3": (before(lambda: _id3(b"\xff\0" * 500, flags=0xFF)), DAMAGED),
        "id3-cover-of-20-mb.mp3": (
            before(lambda: _id3(frame3(b"APIC", picture + bytes(20_000_000)), version=3)),
            HEARD,
        ),
        "id3-cover-that-inflates.mp3": (
            before(lambda: _id3(frame3(b"APIC", inflating(), flags=b"\0\x80"), version=3)),
            HEARD,
        ),
        "id3-many-frames.mp3": (before(lambda: _id3(frame3(b"TXXX", b"\0a\0b") * 50_000, version=3)), HEARD),
        "id3-many-chapters.mp3": (
            before(lambda: _id3(frame3(b"CHAP", b"c\0" + bytes(16)) * 20_000, version=3)),
            HEARD,
        ),
        "id3-hundredfold.mp3": (before(lambda: _id3(bytes(100)) * 100), HEARD),
        "id3-alone.mp3": (lambda: _id3(bytes(1000)), NOT_AUDIO),
        "id3-before.flac": (before(lambda: _id3(bytes(1000)), "flac"), HEARD),
        "id3-before.wav": (before(lambda: _id3(bytes(1000)), "wav"), DAMAGED),
        "id3-before.m4a": (before(lambda: _id3(bytes(1000)), "m4a"), DAMAGED),
        "id3-before.aac": (before(lambda: _id3(bytes(1000)), "aac"), HEARD),
        "ape.mp3": (
            lambda: unharmed("mp3") + b"APETAGEX" + struct.pack("<IIII", 2000, _HUGE, _HUGE, 0) + bytes(8),
            HEARD,
        ),
        "cover.m4a": (cover_atom, HEARD),
        "cover.flac": (flac_picture, HEARD),
        "title-of-no-encoding.m4a": (lambda: _titled(b"\xff\xfe\xed\xa0\x80" * 3), HEARD),
    }
    for name, (make, outcomes) in tags.items():
        yield Hostile("tags", f"tag-{name}", make, outcomes)


def _titled(title: bytes) -> bytes:
    data = unharmed("m4a")
    start = data.index(b"moov") - 4
    name = _atom(b"\xa9nam", _atom(b"data", struct.pack(">II", 1, 0) + title))
    handler = _atom(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    tags = _atom(b"udta", _atom(b"meta", bytes(4) + handler + _atom(b"ilst", name)))
    return data[:start] + _atom(b"moov", data[start + 8 :] + tags)


def other_files() -> Iterator[Hostile]:
    """What is no music, under names of music."""
    rng = np.random.default_rng(3)
    noise = {f"random-{size}": rng.bytes(size) for size in (1, 100, 10_000, 300_000)}
    text = b"no music at all\n" * 200
    files: dict[str, Callable[[], bytes]] = {
        "empty": bytes,
        "one-byte": lambda: b"R",
        "text": lambda: text,
        "utf-16": lambda: text.decode().encode("utf-16"),
        "html": lambda: b"<!doctype html><html><body><audio src='a.mp3'></audio></body></html>",
        "json": lambda: b'{"format": "mp3", "samples": [0, 1, 2]}',
        "nulls": lambda: bytes(100_000),
        "ones": lambda: b"\xff" * 100_000,
        "png": lambda: _picture("png"),
        "jpeg": lambda: _picture("mjpeg"),
        "gif": lambda: _picture("gif", "rgb8"),
        "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "pdf": lambda: (
            b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF" + noise["random-10000"]
        ),
        "elf": lambda: b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 62, 1) + noise["random-10000"],
        "script": lambda: b"#!/bin/sh\ntouch touched-by-a-script\n",
        "pickle": lambda: b"cposix\nsystem\n(S'touch touched-by-a-pickle'\ntR.",
        "zip": partial(_zip, unharmed, "wav"),
        "zip-bomb": lambda: _zip(lambda _: bytes(50_000_000), ""),
        "gzip": lambda: gzip.compress(unharmed("wav"), mtime=0),
        "gzip-bomb": lambda: gzip.compress(bytes(50_000_000), mtime=0),
        "bzip2": lambda: bz2.compress(unharmed("wav")),
        "xz": lambda: lzma.compress(unharmed("wav")[:50_000]),
        "tar": _tar,
        "film": lambda: _film("mp4"),
        "film-in-matroska": lambda: _film("matroska"),
        "midi": lambda: b"MThd\0\0\0\x06\0\0\0\x01\0\x60MTrk\0\0\0\x08\0\x90\x3c\x40\0\xff\x2f\0",
        "tracker": lambda: b"Extended Module: name".ljust(60, b"\0") + noise["random-10000"],
        "subtitles": lambda: b"1\n00:00:01,000 --> 00:00:09,000\nla la la\n" * 100,
        **{name: partial(bytes, data) for name, data in noise.items()},
    }
    for name, make in files.items():
        yield Hostile("no-music", f"{name}.mp3", make, NOT_AUDIO)


def _picture(codec: str, pixels: str = "") -> bytes:
    context = av.CodecContext.create(codec, "w")
    context.width = context.height = 64
    context.pix_fmt = pixels or ("yuvj420p" if codec == "mjpeg" else "rgb24")
    context.time_base = Fraction(1)
    frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
    return b"".join(map(bytes, [*context.encode(frame.reformat(format=context.pix_fmt)), *context.encode(None)]))


def _film(container: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container, container_options={"fflags": "+bitexact"}) as writer:
        pictures = writer.add_stream("mpeg4", rate=5, width=64, height=64, pix_fmt="yuv420p")
        writer.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        writer.mux(pictures.encode(None))
    return file.getvalue()


def _zip(content: Callable[[str], bytes], argument: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("../../track.wav"), content(argument))
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        link = tarfile.TarInfo("track.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return file.getvalue()


def playlists(target: Target) -> Iterator[Hostile]:
    """Texts that name a file and an address, called .mp3 and what they are."""
    places = {"path": str(target.path), "file": target.path.as_uri(), "http": target.url}
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n{}\n#EXT-X-ENDLIST\n"
    forms = {
        "m3u": "#EXTM3U\n#EXTINF:5,a\n{}\n",
        "m3u8": hls.format("#EXTINF:10,\n{}"),
        "m3u8-variants": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{}\n",
        "m3u8-key": hls.format('#EXT-X-KEY:METHOD=AES-128,URI="{}"\n#EXTINF:10,\nsegment.ts'),
        "m3u8-map": hls.format('#EXT-X-MAP:URI="{}"\n#EXTINF:10,\nsegment.m4s'),
        "m3u8-part": hls.format("#EXT-X-BYTERANGE:1000@0\n#EXTINF:10,\n{}"),
        "m3u8-concat": hls.format("#EXTINF:10,\nconcat:{0}|{0}"),
        "pls": "[playlist]\nFile1={}\nNumberOfEntries=1\nVersion=2\n",
        "asx": '<asx version="3.0"><entry><ref href="{}"/></entry></asx>',
        "asx-old": "[Reference]\r\nRef1={0}\r\nRef2={0}\r\n",
        "xspf": '<playlist xmlns="http://xspf.org/ns/0/"><trackList><track><location>{}</location></track></trackList></playlist>',
        "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT5S"><Period><AdaptationSet mimeType="audio/aac"><Representation id="1" '
        'bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "entity": '<?xml version="1.0"?><!DOCTYPE MPD [<!ENTITY a SYSTEM "{}">]><MPD><Period>&a;</Period></MPD>',
        "ffconcat": "ffconcat version 1.0\nfile '{}'\n",
        "smil": '<smil><body><audio src="{}"/></body></smil>',
        "wpl": '<?wpl version="1.0"?><smil><body><seq><media src="{}"/></seq></body></smil>',
        "cue": 'FILE "{}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
        "imf": '<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>{}</Id></CompositionPlaylist>',
        "script": 'AviSource("{}")\n',
    }
    for form, text in forms.items():
        for kind, place in places.items():
            for ending in ("mp3", form.partition("-")[0]):
                yield Hostile("playlists", f"{form}-{kind}.{ending}", text.format(place).encode, NOT_AUDIO)
    session = f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {target.port} RTP/AVP 0\n"
    one_liners = {
        "session": session,
        "relative": hls.format(f"#EXTINF:10,\n../{target.path.parent.name}/{target.path.name}"),
        "concat": f"concat:{target.path}|{target.path}",
        "concatf": f"concatf:{target.path}",
        "subfile": f"subfile,,start,0,end,9999,,:{target.path}",
        "crypto": f"crypto+file:{target.path}",
        "cache": f"cache:{target.url}",
        "async": f"async:{target.url}",
        "data": "data:audio/wav;base64,UklGRiQAAABXQVZFZm10IBAAAAABAAEA",
        "hls": f"hls+{target.url}",
        "tcp": f"tcp://127.0.0.1:{target.port}",
        "udp": f"udp://127.0.0.1:{target.port}",
        "rtmp": f"rtmp://127.0.0.1:{target.port}/live",
        "rtsp": f"rtsp://127.0.0.1:{target.port}/live",
        "pipe": "pipe:0",
        "lavfi": "sine=frequency=440:duration=9",
        "lavfi-film": f"amovie={target.path}",
        "metadata": f";FFMETADATA1\ntitle=a\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=9\nfile={target.path}\n",
        "device": "/dev/zero",
    }
    for form, text in one_liners.items():
        yield Hostile("playlists", f"{form}.mp3", text.encode, NOT_AUDIO)
    tagged_list = partial(_id3, (hls.format(f"#EXTINF:10,\n{target.path}")).encode())
    yield Hostile("playlists", "m3u8-in-a-tag.mp3", tagged_list, NOT_AUDIO)


def references(target: Target) -> Iterator[Hostile]:
    """Containers whose audio lies elsewhere."""
    for name, entry in {
        "url": _atom(b"url ", bytes(4) + target.url.encode() + b"\0"),
        "file-url": _atom(b"url ", bytes(4) + target.path.as_uri().encode() + b"\0"),
        "urn": _atom(b"urn ", bytes(4) + b"a\0" + target.path.as_uri().encode() + b"\0"),
        "alias": _alias(target.path),
    }.items():
        yield Hostile("references", f"reference-{name}.m4a", partial(_with_data_reference, entry), DAMAGED)
    location = _atom(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(target.url) + 1) + target.url.encode() + b"\0")
    movie = _atom(b"ftyp", b"qt  \0\0\0\0qt  ") + _atom(b"moov", _atom(b"rmra", _atom(b"rmda", location)))
    yield Hostile("references", "reference-movie.m4a", partial(bytes, movie), NOT_AUDIO)
    url, path = target.url, str(target.path)
    links = _element("3c83ab", path) + _element("3e83bb", url) + _element("3eb923", bytes(16))
    yield Hostile("references", "linked-segments.mka", partial(_matroska, in_info=links), HEARD)
    for name, place in (("path", path), ("url", url)):
        attached = (
            _element("466e", place) + _element("4660", "audio/aac") + _element("46ae", 1) + _element("465c", place)
        )
        attachments = _element("1941a469", _element("61a7", attached))
        yield Hostile("references", f"attachment-{name}.mka", partial(_matroska, in_segment=attachments), HEARD)
    chapter = _element("b6", _element("73c4", 1) + _element("91", 0) + _element("6e67", bytes(16)))
    chapters = _element("1043a770", _element("45b9", _element("45dd", 1) + chapter))
    yield Hostile("references", "ordered-chapters.mka", partial(_matroska, in_segment=chapters), HEARD)


def _alias(path: Path) -> bytes:
    """An alias record of the Macintosh, as FFmpeg reads it."""
    there = str(path).replace("/", ":").encode()
    there += b"\0" * (len(there) % 2)
    head = bytes(10) + b"\0" * 28 + bytes(12) + b"\0" * 64 + bytes(16) + struct.pack(">HH", 1, 1) + bytes(16)
    return _atom(b"alis", bytes(4) + head + struct.pack(">hH", 2, len(there)) + there + struct.pack(">hH", -1, 0))


def _with_data_reference(entry: bytes) -> bytes:
    return _replaced(unharmed("m4a"), (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"), b"url ", entry)


def _replaced(data: bytes, path: Sequence[bytes], name: bytes, atom: bytes) -> bytes:
    """An MP4 file (its index at the end) with another atom in place of the one of that name on the path."""
    changed, place = bytearray(data), 0
    for outer in path:
        place = data.index(outer, place) - 4
    start = data.index(name, place) - 4
    held = int.from_bytes(data[start : start + 4], "big")
    place = 0
    for outer in path:
        place = data.index(outer, place) - 4
        size = int.from_bytes(data[place : place + 4], "big") + len(atom) - held
        changed[place : place + 4] = size.to_bytes(4, "big")
    changed[start : start + held] = atom
    return bytes(changed)


def file_names() -> Iterator[Hostile]:
    """Good music under names that a shell, a URL or a terminal reads otherwise."""
    for name in (
        "$(touch touched-by-a-name).wav",
        "`touch touched-by-a-name`.wav",
        "; touch touched-by-a-name;.wav",
        "| touch touched-by-a-name #.wav",
        "&& touch touched-by-a-name.wav",
        "-i.wav",
        "--help.wav",
        "-rf ~.wav",
        "*.wav",
        "new\nline.wav",
        "carriage\rreturn.wav",
        "tab\tand\bbell\a.wav",
        "\x1b[2J\x1b]0;title\a.wav",
        "percent%20encoded%2F..%2f.wav",
        "%00.wav",
        "%n%s%x.wav",
        "question?mark#hash&and=.wav",
        "quote'double\"back\\slash.wav",
        "..wav",
        "...wav",
        " space .wav",
        "user:pass@host.wav",
        "http:..wav",
        "concat:a|b.wav",
        "{brace},[bracket].wav",
        "Ünïcödé 音楽 موسيقى 🎵.wav",
        "e\u0301 composed.wav",
        "\u202egnp.wav",
        "\ufeffmark.wav",
        "no-suffix",
        "wrong.m3u8",
        "wrong.sdp",
        "frame%05d.wav",
        "a" * 251 + ".wav",
        "長" * 83 + ".wav",
    ):
        yield Hostile("names", name, partial(unharmed, "wav", 3.4), HEARD)


def findings() -> Iterator[Hostile]:
    """What fuzzing, and looking where it pointed, brought to light."""

    def found(name: str, make: Callable[[], bytes], outcomes: frozenset[str]) -> Hostile:
        return Hostile("findings", f"found-{name}", make, outcomes)

    # PyAV read past the planes of 8 channels and more; here 8 are right, and a damaged frame has 43.
    yield found("eight-channels.m4a", partial(_aac, "7.1"), HEARD)
    yield found("planes-without-end.aac", partial(bytes, _MANY_CHANNELS), REFUSED)
    # PyAV freed the channel layout twice where the container describes one that has no name.
    yield found("channels-turned.mov", partial(_with_channels, 2, 1), HEARD)
    yield found("one-channel-twice.mov", partial(_with_channels, 9, 9), HEARD)


def _aac(layout: str) -> bytes:
    channels = av.AudioLayout(layout).nb_channels
    file = io.BytesIO()
    with av.open(file, "w", format="ipod", container_options={"fflags": "+bitexact"}) as writer:
        stream = writer.add_stream("aac", rate=RATE, layout=layout)
        samples = np.repeat(music(seconds=4), channels)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
        frame.sample_rate = RATE
        converter = av.AudioResampler(stream.format, layout, RATE, frame_size=stream.frame_size)
        for part in [*converter.resample(frame), *converter.resample(None), None]:
            writer.mux(stream.encode(part))
    return file.getvalue()


def _with_channels(*labels: int) -> bytes:
    """A QuickTime file whose two channels bear these labels."""
    file = io.BytesIO()
    with av.open(file, "w", format="mov", container_options={"fflags": "+bitexact"}) as writer:
        stream = writer.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        samples = (np.repeat(music(seconds=4), 2) * 32_767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate = RATE
        for part in (frame, None):
            writer.mux(stream.encode(part))
    described = [struct.pack(">II", label, 0) + bytes(12) for label in labels]
    channels = _atom(b"chan", bytes(12) + struct.pack(">I", len(labels)) + b"".join(described))
    return _replaced(
        file.getvalue(), (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"sowt"), b"chan", channels
    )


_MANY_CHANNELS = base64.b64decode(
    "//FcQDmf/N4CAExhdmM2Mi4yOC4xMDIAAnCvWGO0jQ0LS2F/xqXyus+N3nnm769/bxF5Jjiqul1ELpN2//Qbq91OYQX0fbSWMzK3LURTLl32E3wz"
    "9P+/SEwEiix2DJyrRuhd0meMiREtwyskjbFO434wROTk5OTk5OTk5OTk5PgvFAAAAAAA5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk"
    "8NuQSJORJtwIPFsEIPNyJCzHW2XIm44gATgqAjOwQwGAkRCEmO9tz077Z8q75scc+MHdQrDAle0duSMz0NoAobwBLdu5Tx6QzLIQJViw35E7DA2y"
    "4OpwUpLtcxwBJ1LRWMJESyAMJw8wHCP5X4dwe9w1gZvFTpsYJCYugg7ZbcNnPR5CyV29wiqkKhLHQRhI0oa6ztcYm1sROuUcXya1VWBbPDRiRa21"
    "zsfiNIwltvSlcl6h+B4PHq6Pb6BSRC6Tdv/0G6vdTmEF9H20ljPDty1EUy5d9hN8M/T/v0hMBIosdgycq0boXdJnjIkRLcMrJKmU3yNPo6JWJLfd"
    "DfmNsU7jfjBE5OTl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk"
    "5OTk5OTk5OTk5OTw25BIk5Em3Ag8WwQy83Ikx1tlyJuOIAE4KgIzsEMBgJEQhJjvbc9O+2fKu+bHHPjB3UKwwJXtHbkjMtB8AKG8AS3buU8ekMyy"
    "ECVYsN+ROwwNsuDqcFKS7XMcASdS0VjCRCMMJxwwSw8g+V+HcHvcNYGbxU6bGCQmLoIO2W3DZ0I9yR5dyGzU52TRYiJzAAAAAFuQCUgxE0eiHkoc"
    "XK7CMNBIUYAvrchs1Odk0WLdInMAAAAAW5AJSDETR6IeShxcrsIx0EhRgAAAAC2ocZEhv1BI4LRLLJBpcgkNJg1EUJ3qq0lOvjgpeAAAIQEAAA7/"
    "8VxAAZ/8ARiBtHA="
)
