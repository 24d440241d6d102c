"""Writers of containers, byte by byte: a library would refuse to write what these are asked for."""

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from tests.platform.music import music

HUGE = 2**32 - 1
"""The largest size that a field of 32 bits can state."""


@cache
def _crc_table(bits: int, polynomial: int) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value >> bits - 1 & 1 else 0)
        table.append(value & 2**bits - 1)
    return tuple(table)


def crc(data: bytes, bits: int, polynomial: int) -> bytes:
    """The checksum of so many bits, in big-endian order."""
    table, mask, value = _crc_table(bits, polynomial), 2**bits - 1, 0
    for byte in data:
        value = (value << 8 & mask) ^ table[value >> bits - 8 ^ byte]
    return value.to_bytes(bits // 8, "big")


def ogg_page(
    lacing: bytes, body: bytes, *, flags: int = 0, granule: int = 0, serial: int = 1, number: int = 0
) -> bytes:
    """A page of Ogg with a right checksum."""
    head = b"OggS" + struct.pack("<BBqII", 0, flags, granule, serial, number)
    tail = bytes([len(lacing)]) + lacing + body
    return head + crc(head + bytes(4) + tail, 32, 0x04C11DB7)[::-1] + tail


def ogg_pages(data: bytes) -> Iterator[tuple[bytes, int, int, bytes, bytes]]:
    """Flags, granule position and number of each page, its lacing values and its body."""
    place = 0
    while place < len(data):
        flags, granule, _, number = struct.unpack_from("<BqII", data, place + 5)
        lacing = data[place + 27 : place + 27 + data[place + 26]]
        start = place + 27 + len(lacing)
        place = start + sum(lacing)
        yield flags, granule, number, lacing, data[start:place]


def ogg_with(
    data: bytes, *, serial: int, change: Callable[[bytes], bytes] = bytes, granule: int | None = None
) -> bytes:
    """The Ogg file with another serial number, changed bodies, and another granule position on its pages of audio."""
    pages = []
    for flags, held, number, lacing, body in ogg_pages(data):
        stated = held if granule is None or held <= 0 else granule
        pages.append(ogg_page(lacing, change(body), flags=flags, granule=stated, serial=serial, number=number))
    return b"".join(pages)


def atom(name: bytes, content: bytes) -> bytes:
    """An atom of MP4 and QuickTime."""
    return struct.pack(">I", 8 + len(content)) + name + content


def replaced(data: bytes, path: Sequence[bytes], name: bytes, new: bytes) -> bytes:
    """The MP4 file (its index at the end) with a new atom in place of the one of that name on the path."""
    changed, place = bytearray(data), 0
    for outer in path:
        place = data.index(outer, place) - 4
    start = data.index(name, place) - 4
    held = int.from_bytes(data[start : start + 4], "big")
    place = 0
    for outer in path:
        place = data.index(outer, place) - 4
        size = int.from_bytes(data[place : place + 4], "big") + len(new) - held
        changed[place : place + 4] = size.to_bytes(4, "big")
    changed[start : start + held] = new
    return bytes(changed)


def element(name: str, content: bytes | int | float | str) -> bytes:
    """An element of EBML; `name` is its id in hexadecimal digits."""
    if isinstance(content, int):
        content = content.to_bytes(8, "big")
    elif isinstance(content, float):
        content = struct.pack(">d", content)
    elif isinstance(content, str):
        content = content.encode()
    return bytes.fromhex(name) + (2**56 | len(content)).to_bytes(8, "big") + content


def matroska(
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
    """A Matroska file of 4 s of music in blocks of 0.1 s; arguments replace what its header says."""
    samples = (music(seconds=4, sample_rate=8000) * 32_767).astype("<i2").tobytes() if audio is None else audio
    blocks = [samples[start : start + 1600] for start in range(0, len(samples), 1600)] if audio is None else [samples]
    track = element("d7", 1) + element("73c5", 1) + element("83", 2) + element("86", codec) + in_track
    track += element("e1", element("b5", rate) + element("9f", channels) + element("6264", bits))
    cluster = element("e7", cluster_at) + b"".join(
        element("a3", b"\x81" + struct.pack(">hB", 100 * number, 0x80) + block) for number, block in enumerate(blocks)
    )
    info = element("2ad7b1", scale) + element("4489", duration) + in_info
    segment = element("1549a966", info) + element("1654ae6b", element("ae", track)) + in_segment
    return element("1a45dfa3", element("4282", "matroska")) + element(
        "18538067", segment + element("1f43b675", cluster)
    )


def _syncsafe(value: int) -> bytes:
    return bytes(value >> shift & 0x7F for shift in (21, 14, 7, 0))


def id3(content: bytes, claimed_bytes: int | None = None, *, version: int = 4, flags: int = 0) -> bytes:
    """An ID3v2 tag that claims so many bytes of content: by default those it has."""
    size = _syncsafe(len(content) if claimed_bytes is None else claimed_bytes)
    return b"ID3" + bytes([version, 0, flags]) + size + content
