"""Headers that contradict the audio behind them, for each format."""

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from tests.platform.hostile_audio.containers import HUGE, atom, element, matroska, ogg_page, ogg_with
from tests.platform.hostile_audio.inputs import (
    DAMAGED,
    HEARD,
    NOT_AUDIO,
    OUT_OF_MEMORY,
    REFUSED,
    SILENT,
    TOO_LONG,
    Hostile,
    encoded,
    patched,
    unharmed,
)
from tests.platform.music import music


def _lies(group: str, suffix: str, lies: dict[str, tuple[Callable[[], bytes], frozenset[str]]]) -> Iterator[Hostile]:
    for name, (make, outcomes) in lies.items():
        yield Hostile(group, f"{group}-{name}.{suffix}", make, outcomes)


def lying_wav() -> Iterator[Hostile]:
    """Headers of RIFF, RF64, Wave64, AIFF, CAF and AU."""

    def fmt(offset: int, form: str, value: int) -> Callable[[], bytes]:
        return lambda: patched(unharmed("wav"), b"fmt ", 8 + offset, struct.pack(form, value))

    def size(marker: bytes, value: int) -> Callable[[], bytes]:
        return lambda: patched(unharmed("wav"), marker, 4, struct.pack("<I", value))

    def inserted(chunk: bytes) -> Callable[[], bytes]:
        return lambda: unharmed("wav")[:12] + chunk + unharmed("wav")[12:]

    def written(form: str, marker: bytes, offset: int, value: bytes) -> Callable[[], bytes]:
        return lambda: patched(encoded(music(seconds=4), format=form), marker, offset, value)

    yield from _lies(
        "lying-wav",
        "wav",
        {
            **{f"channels-{value}": (fmt(2, "<H", value), REFUSED) for value in (0, 255, 65_535)},
            **{f"rate-{value}": (fmt(4, "<I", value), REFUSED) for value in (0, 1, 10_000_000, HUGE)},
            **{f"bits-{value}": (fmt(14, "<H", value), DAMAGED) for value in (0, 1, 7, 255, 65_535)},
            **{f"block-align-{value}": (fmt(12, "<H", value), DAMAGED) for value in (0, 1, 65_535)},
            **{f"format-{value:#x}": (fmt(0, "<H", value), DAMAGED) for value in (0, 2, 0x11, 0x31, 0x50, 0x55, 0x161)},
            **{f"format-{value:#x}": (fmt(0, "<H", value), DAMAGED) for value in (0xFF, 0xF1AC, 0xFFFE, 0xFFFF)},
            **{f"data-{value}-bytes": (size(b"data", value), HEARD) for value in (2**31, HUGE)},
            "data-of-no-bytes": (size(b"data", 0), DAMAGED),
            "data-of-one-byte": (size(b"data", 1), REFUSED),
            **{f"fmt-{value}-bytes": (size(b"fmt ", value), DAMAGED) for value in (0, 2, 2**31, HUGE)},
            **{f"riff-{value}-bytes": (size(b"RIFF", value), HEARD) for value in (0, 7, HUGE)},
            "huge-unknown-chunk": (inserted(b"junk" + struct.pack("<I", HUGE)), DAMAGED),
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
    """The stream information of FLAC and its metadata blocks."""

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
            "blocks-of-no-samples": (lambda: patched(unharmed("flac"), b"fLaC", 8, bytes(4)), DAMAGED),
            "blocks-of-65535": (lambda: patched(unharmed("flac"), b"fLaC", 8, b"\xff" * 4), DAMAGED),
            "huge-picture": (block(6, 2**24 - 1, bytes(100)), REFUSED),
            "seek-table": (before_audio(3, b"\xff" * 18 * 1000), DAMAGED),
            "comments": (before_audio(4, struct.pack("<II", 0, HUGE)), DAMAGED),
            "comment-length": (before_audio(4, struct.pack("<I", HUGE)), DAMAGED),
            "cue-sheet": (before_audio(5, bytes(395) + b"\xff"), DAMAGED),
            "reserved-block": (before_audio(126, bytes(1000)), DAMAGED),
            "padding-without-end": (lambda: unharmed("flac")[:42] + (b"\x01" + bytes(3)) * 50_000, REFUSED),
        },
    )


def lying_ogg() -> Iterator[Hostile]:
    """Ogg: identification headers of Vorbis and Opus, granule positions, pages."""

    def header(suffix: str, marker: bytes, offset: int, value: bytes) -> Callable[[], bytes]:
        def change(body: bytes) -> bytes:
            return patched(body, marker, offset, value) if body.startswith(marker) else body

        return lambda: ogg_with(unharmed(suffix), serial=1, change=change)

    def granule(suffix: str, value: int) -> Callable[[], bytes]:
        return lambda: ogg_with(unharmed(suffix), serial=1, granule=value)

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
            "pages-without-end": (lambda: unharmed("ogg") + ogg_page(b"\xff" * 255, bytes(65_025)) * 30, HEARD),
            "empty-pages": (lambda: unharmed("ogg") + ogg_page(b"", b"") * 50_000, HEARD),
            "no-body": (lambda: ogg_page(b"\xff" * 255, b"\x01vorbis", flags=2), NOT_AUDIO),
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
    """MP3: the Xing header and the frame headers."""

    def xing(offset: int, value: bytes) -> Callable[[], bytes]:
        def make() -> bytes:
            data = unharmed("mp3")
            return patched(data, b"Xing" if b"Xing" in data else b"Info", offset, value)

        return make

    def frames(offset: int, value: int) -> Callable[[], bytes]:
        return lambda: patched(unharmed("mp3"), unharmed("mp3")[:2], offset, bytes([value]), all_of_them=True)

    yield from _lies(
        "lying-mp3",
        "mp3",
        {
            **{f"frames-{value}": (xing(8, struct.pack(">I", value)), DAMAGED) for value in (0, 1, 2**31, HUGE)},
            **{f"bytes-{value}": (xing(12, struct.pack(">I", value)), DAMAGED) for value in (0, HUGE)},
            "seek-table": (xing(16, b"\xff" * 100), DAMAGED),
            "delay": (xing(8, b"\xff" * 150), DAMAGED),
            **{f"second-byte-{value:#x}": (frames(1, value), DAMAGED) for value in (0xE3, 0xFB, 0xFD, 0xFF)},
            **{f"third-byte-{value:#x}": (frames(2, value), DAMAGED) for value in (0x00, 0x0C, 0xF0, 0xFF)},
        },
    )


def lying_mp4() -> Iterator[Hostile]:
    """MP4: sizes of atoms, durations, tables of samples."""

    def inside(name: bytes, offset: int, value: bytes) -> Callable[[], bytes]:
        """The offset counts from the end of the name; version and flags come first."""
        return lambda: patched(unharmed("m4a"), name, 4 + offset, value)

    tables = {
        f"{name.decode()}-{value}-entries": (
            inside(name, 8 if name == b"stsz" else 4, struct.pack(">I", value)),
            DAMAGED | OUT_OF_MEMORY,
        )
        for name in (b"stts", b"stsc", b"stsz", b"stco", b"stsd", b"dref")
        for value in (0, 2**24, HUGE)
    }
    sizes = {
        f"{name.decode()}-{value}-bytes": (
            lambda name=name, value=value: patched(unharmed("m4a"), name, -4, struct.pack(">I", value)),
            DAMAGED,
        )
        for name in (b"ftyp", b"moov", b"trak", b"mdat", b"stsd", b"esds")
        for value in (0, 1, 7, HUGE)
    }
    yield from _lies(
        "lying-mp4",
        "m4a",
        {
            **tables,
            **sizes,
            **{
                f"mdhd-scale-{value}": (inside(b"mdhd", 12, struct.pack(">I", value)), DAMAGED)
                for value in (0, 1, HUGE)
            },
            "mdhd-duration": (inside(b"mdhd", 16, b"\xff" * 4), HEARD),
            "mvhd-scale": (inside(b"mvhd", 12, bytes(4)), DAMAGED),
            "one-size-for-all-samples": (inside(b"stsz", 4, struct.pack(">I", 2**31)), DAMAGED),
            "sample-of-4-gb": (inside(b"stsz", 12, b"\xff" * 4), DAMAGED),
            "samples-that-last": (inside(b"stts", 8, struct.pack(">II", HUGE, HUGE)), DAMAGED | TOO_LONG),
            "chunks-far-away": (inside(b"stco", 8, b"\xff" * 4), DAMAGED),
            **{
                f"channels-{value}": (inside(b"mp4a", 16, struct.pack(">H", value)), DAMAGED)
                for value in (0, 255, 65_535)
            },
            **{f"rate-{value}": (inside(b"mp4a", 24, struct.pack(">I", value)), DAMAGED) for value in (0, 1, HUGE)},
            "edit-list": (inside(b"elst", 4, b"\xff" * 16), DAMAGED),
            "index-that-inflates": (lambda: _inflating_index(claimed_bytes=HUGE), OUT_OF_MEMORY),
            "index-of-256-mb": (lambda: _inflating_index(claimed_bytes=2**28), NOT_AUDIO),
            "atoms-in-atoms": (lambda: _nested_atoms(2000), NOT_AUDIO),
            "many-tracks": (_many_tracks, OUT_OF_MEMORY),  # FFmpeg's word for over 1,000 streams
        },
    )


def _inflating_index(*, claimed_bytes: int) -> bytes:
    """A compressed index that states its size."""
    packed = zlib.compress(atom(b"moov", bytes(2**24)))
    compressed = atom(b"dcom", b"zlib") + atom(b"cmvd", struct.pack(">I", claimed_bytes) + packed)
    return atom(b"ftyp", b"qt  \0\0\0\0qt  ") + atom(b"moov", atom(b"cmov", compressed))


def _nested_atoms(depth: int) -> bytes:
    nested = b""
    for _ in range(depth):
        nested = atom(b"udta", atom(b"meta", bytes(4) + nested))
    return atom(b"ftyp", b"M4A \0\0\0\0isom") + atom(b"moov", nested)


def _many_tracks() -> bytes:
    data = unharmed("m4a")
    start = data.index(b"moov") - 4
    track = data[data.index(b"trak") - 4 :][: int.from_bytes(data[data.index(b"trak") - 4 :][:4], "big")]
    return data[:start] + atom(b"moov", data[start + 8 :] + track * 2000)


def lying_adts() -> Iterator[Hostile]:
    """Frame headers of AAC in ADTS."""

    def frames(offset: int, value: bytes) -> Callable[[], bytes]:
        return lambda: patched(unharmed("aac"), unharmed("aac")[:3], offset, value, all_of_them=True)

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


def lying_matroska() -> Iterator[Hostile]:
    """Elements of Matroska and WebM."""

    def webm(marker: str, offset: int, value: bytes) -> Callable[[], bytes]:
        return lambda: patched(unharmed("webm"), bytes.fromhex(marker), offset, value)

    nan, infinity = float("nan"), float("inf")
    zlib_on = element("6d80", element("6240", element("5034", element("4254", 0))))
    yield from _lies(
        "lying-matroska",
        "mka",
        {
            "no-lie": (matroska, HEARD),
            **{
                f"rate-{value}": (partial(matroska, rate=value), DAMAGED)
                for value in (0.0, 1.0, -1.0, 1e7, 1e300, nan, infinity)
            },
            **{f"channels-{value}": (partial(matroska, channels=value), DAMAGED) for value in (0, 255, 2**63)},
            **{f"bits-{value}": (partial(matroska, bits=value), DAMAGED) for value in (0, 7, 2**63)},
            **{
                f"scale-{value}": (partial(matroska, scale=value), DAMAGED | TOO_LONG) for value in (0, 1, 2**63, 2**40)
            },
            **{
                f"duration-{value}": (partial(matroska, duration=value), DAMAGED)
                for value in (0.0, -1.0, 1e300, nan, infinity)
            },
            **{
                f"cluster-at-{value}": (partial(matroska, cluster_at=value), DAMAGED)
                for value in (2**40, 2**62, 2**63 - 1, 2**64 - 1)
            },
            "skip": (partial(matroska, in_track=element("56aa", 2**62) + element("56bb", 2**62)), DAMAGED),
            "huge-private": (
                partial(matroska, in_track=bytes.fromhex("63a2") + (2**56 | 2**31).to_bytes(8, "big")),
                REFUSED,
            ),
            "block-that-inflates": (
                lambda: matroska(in_track=zlib_on, audio=zlib.compress(bytes(2**28))),
                DAMAGED,
            ),
            "lacing": (partial(matroska, audio=b"\xff" * 4000), DAMAGED),
            "other-codec": (partial(matroska, codec="V_MPEG4/ISO/AVC"), NOT_AUDIO),
            "elements-in-elements": (partial(matroska, in_segment=_nested_elements(500)), DAMAGED),
            "huge-segment": (webm("18538067", 4, b"\x01\x7f\xff\xff\xff\xff\xff\xff"), DAMAGED),
            "huge-tracks": (webm("1654ae6b", 4, b"\x1f"), DAMAGED),
            "huge-header": (webm("1a45dfa3", 4, b"\x0f"), DAMAGED),
            "document-version": (webm("4287", 3, b"\xff"), DAMAGED),
        },
    )


def _nested_elements(depth: int) -> bytes:
    nested = element("ec", b"")
    for _ in range(depth):
        nested = element("b6", nested)
    return element("1043a770", element("45b9", nested))


def lying_asf() -> Iterator[Hostile]:
    """Sizes of ASF's objects (WMA), each of 8 bytes after 16 of its name."""
    objects = {
        "header": "3026b2758e66cf11a6d900aa0062ce6c",
        "file": "a1dcab8c47a9cf118ee400c00c205365",
        "stream": "9107dcb7b7a9cf118ee600c00c205365",
        "data": "3626b2758e66cf11a6d900aa0062ce6c",
    }

    def sized(name: str, value: int) -> Callable[[], bytes]:
        return lambda: patched(unharmed("wma"), bytes.fromhex(objects[name]), 16, struct.pack("<Q", value))

    yield from _lies(
        "lying-asf",
        "wma",
        {
            "no-lie": (partial(unharmed, "wma"), HEARD),
            **{
                f"{name}-{value}-bytes": (sized(name, value), DAMAGED)
                for name in objects
                for value in (0, 1, HUGE, 2**63 - 1, 2**64 - 1)
            },
            # FFmpeg skips an object of unknown name: it seeks to where no file system lets a file end
            "beyond-every-file": (
                lambda: patched(unharmed("wma"), bytes.fromhex(objects["file"]), 14, b"\xff" * 7 + b"\x7f"),
                REFUSED,
            ),
        },
    )
