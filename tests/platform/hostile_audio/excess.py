"""Too much of something: hours of audio in few bytes, samples out of range, huge tags."""

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tests.platform.hostile_audio.containers import HUGE, atom, crc, id3, ogg_page
from tests.platform.hostile_audio.inputs import (
    DAMAGED,
    HEARD,
    NOT_AUDIO,
    RATE,
    REFUSED,
    SILENT,
    TIMED_OUT,
    TOO_LARGE,
    TOO_LONG,
    Hostile,
    encoded,
    unharmed,
)
from tests.platform.music import music

DAY_S = 24 * 3600
LIMIT_S = 3 * 3600
"""Longest track that a worker takes by default."""


def bombs() -> Iterator[Hostile]:
    """Small files that decode to hours, and large files that hold nothing."""
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
    wide = partial(flac_of, rate=384_000, channels=8)
    yield bomb("hours-of-eight-channels.flac", partial(wide, shorter_s), SILENT | TIMED_OUT)
    # As wide, and short enough that it is looked at to its end: then its memory is measured.
    yield bomb("seconds-of-eight-channels-unstated.flac", partial(wide, 15, states_length=False), SILENT)
    yield bomb("hours-of-nothing.opus", partial(opus_of, shorter_s), SILENT)
    yield bomb("a-day.opus", partial(opus_of, DAY_S), TOO_LONG)
    yield bomb("hours-of-nothing.mp3", partial(mp3_of, shorter_s), SILENT | NOT_AUDIO | TIMED_OUT)
    yield bomb("a-day.mp3", partial(mp3_of, DAY_S // 4), TOO_LONG | NOT_AUDIO)
    day = DAY_S * 2000
    yield bomb("a-day.wav", partial(wav_head, day, rate=2000), TOO_LONG, day)
    yield bomb("a-day-unstated.wav", partial(wav_head, 0, rate=2000), TOO_LONG | NOT_AUDIO, day)
    yield bomb("too-many-bytes.wav", partial(wav_head, 250_000_000), TOO_LARGE, 250_000_000)
    yield bomb("zeros.bin", bytes, NOT_AUDIO, 190_000_000)
    yield bomb("zeros.mp3", lambda: unharmed("mp3")[:500], REFUSED, 190_000_000)
    yield bomb("zeros.m4a", lambda: unharmed("m4a")[:40], NOT_AUDIO, 190_000_000)
    yield bomb("frames-without-end.aac", lambda: b"\xff\xf1\x5c\x40\x01\x3f\xfc\x21\x1b\x80" * 10_000, DAMAGED)


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
        frame = head + crc(head, 8, 0x07) + constant
        frames.append(frame + crc(frame, 16, 0x8005))
    return b"fLaC\x80\0\0\x22" + info + b"".join(frames)


def opus_of(seconds: float) -> bytes:
    """An Opus file of empty packets: 3 bytes for each 120 ms."""
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 312, 48_000, 0, 0)
    tags = b"OpusTags" + struct.pack("<II", 0, 0)
    pages = [ogg_page(bytes([len(head)]), head, flags=2), ogg_page(bytes([len(tags)]), tags, number=1)]
    packets = int(seconds / 0.12)
    for start in range(0, packets, 255):
        count = min(255, packets - start)
        body = (b"\xe3\x30") * count  # 48 frames of 2.5 ms, each of no bytes
        pages.append(ogg_page(b"\x02" * count, body, granule=(start + count) * 5760, number=2 + start // 255))
    return b"".join(pages)


def mp3_of(seconds: float) -> bytes:
    """An MP3 file (MPEG 2.5, 8 kHz, 8 kbit/s) of empty frames of 72 ms, with no header that states its length."""
    return (b"\xff\xe3\x18\xc4" + bytes(68)) * int(seconds / 0.072)


def wav_head(data_bytes: int, *, rate: int = 8000, channels: int = 1, bits: int = 8) -> bytes:
    """The header of a WAV file that claims so many bytes of audio."""
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


def extreme_signals() -> Iterator[Hostile]:
    """Samples that no recording has: not numbers, far beyond 1, too many channels."""
    size = 4 * RATE

    def signal_of(
        name: str, samples: Callable[[], np.ndarray], outcomes: frozenset[str], kind: str = "FLOAT"
    ) -> Hostile:
        return Hostile("signals", f"{name}.wav", lambda: encoded(samples(), format="WAV", subtype=kind), outcomes)

    for value in (np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-40, 1.0, 0.25):
        outcomes = SILENT if value == 1e-40 or np.isnan(value) else HEARD
        yield signal_of(f"all-{value}", partial(np.full, size, value, np.float32), outcomes)
    yield signal_of("double-1e308", partial(np.full, size, 1e308), HEARD, "DOUBLE")
    yield signal_of("alternating-1e38", lambda: np.resize(np.float32([1e38, -1e38]), size), HEARD | SILENT)
    yield signal_of("inf-minus-inf", lambda: np.tile(np.float32([np.inf, -np.inf]), (size, 1)), SILENT)
    yield signal_of("some-nan", lambda: np.where(np.arange(size) % 100, music(seconds=4), np.nan), HEARD)
    yield signal_of("clipping", lambda: np.clip(1000 * music(seconds=4), -1, 1), HEARD, "PCM_16")
    yield signal_of("zeros", partial(np.zeros, size), SILENT, "PCM_16")
    yield signal_of("one-click", lambda: np.eye(1, size, size // 2)[0], SILENT, "PCM_16")
    noise = partial(np.random.default_rng(1).uniform, -1, 1)
    yield signal_of("noise", partial(noise, size), HEARD, "PCM_16")
    yield signal_of("64-channels", lambda: np.tile(music(seconds=4)[:, None], 64), HEARD, "PCM_16")
    yield signal_of("65-channels", lambda: np.tile(music(seconds=4)[:, None], 65), NOT_AUDIO, "PCM_16")
    yield signal_of("1000-channels", lambda: np.tile(music(seconds=0.2)[:, None], 1000), NOT_AUDIO, "PCM_U8")


def swollen_tags() -> Iterator[Hostile]:
    """Tags that are huge, claim to be huge, or never end."""

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
        cover = atom(b"covr", atom(b"data", struct.pack(">II", 14, 0) + bytes(12_000_000)))
        handler = atom(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
        tags = atom(b"udta", atom(b"meta", bytes(4) + handler + atom(b"ilst", cover)))
        return data[:start] + atom(b"moov", data[start + 8 :] + tags)

    def flac_picture() -> bytes:
        data = unharmed("flac")
        head = struct.pack(">II", 3, 9) + b"image/png" + bytes(20) + struct.pack(">I", 16_000_000)
        size = (len(head) + 16_000_000).to_bytes(3, "big")
        return data[:42] + b"\x06" + size + head + bytes(16_000_000) + data[42:]

    tags: dict[str, tuple[Callable[[], bytes], frozenset[str]]] = {
        "id3-of-256-mb.mp3": (before(lambda: id3(b"", 2**28 - 1)), DAMAGED),
        "id3-beyond-the-end.mp3": (before(lambda: id3(bytes(10), 2**20)), DAMAGED),
        "id3-frame-of-4-gb.mp3": (before(lambda: id3(frame3(b"TIT2", b"x", size=HUGE), version=3)), HEARD),
        "id3-extended-header.mp3": (before(lambda: id3(b"\x7f" * 40, flags=0x40)), HEARD),
        "id3-all-flags.mp3": (before(lambda: id3(b"\xff\0" * 500, flags=0xFF)), DAMAGED),
        "id3-cover-of-20-mb.mp3": (
            before(lambda: id3(frame3(b"APIC", picture + bytes(20_000_000)), version=3)),
            HEARD,
        ),
        "id3-cover-that-inflates.mp3": (
            before(lambda: id3(frame3(b"APIC", inflating(), flags=b"\0\x80"), version=3)),
            HEARD,
        ),
        "id3-many-frames.mp3": (before(lambda: id3(frame3(b"TXXX", b"\0a\0b") * 50_000, version=3)), HEARD),
        "id3-many-chapters.mp3": (
            before(lambda: id3(frame3(b"CHAP", b"c\0" + bytes(16)) * 20_000, version=3)),
            HEARD,
        ),
        "id3-hundredfold.mp3": (before(lambda: id3(bytes(100)) * 100), HEARD),
        "id3-alone.mp3": (lambda: id3(bytes(1000)), NOT_AUDIO),
        "id3-before.flac": (before(lambda: id3(bytes(1000)), "flac"), HEARD),
        "id3-before.wav": (before(lambda: id3(bytes(1000)), "wav"), DAMAGED),
        "id3-before.m4a": (before(lambda: id3(bytes(1000)), "m4a"), DAMAGED),
        "id3-before.aac": (before(lambda: id3(bytes(1000)), "aac"), HEARD),
        "ape.mp3": (
            lambda: unharmed("mp3") + b"APETAGEX" + struct.pack("<IIII", 2000, HUGE, HUGE, 0) + bytes(8),
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
    name = atom(b"\xa9nam", atom(b"data", struct.pack(">II", 1, 0) + title))
    handler = atom(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    tags = atom(b"udta", atom(b"meta", bytes(4) + handler + atom(b"ilst", name)))
    return data[:start] + atom(b"moov", data[start + 8 :] + tags)
