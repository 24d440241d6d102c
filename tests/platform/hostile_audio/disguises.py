"""Other files under names of music, and music under names that a shell, a URL or a terminal reads otherwise."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

import av
import numpy as np

from tests.platform.hostile_audio.inputs import HEARD, NOT_AUDIO, Hostile, unharmed


def other_files() -> Iterator[Hostile]:
    """Files of other kinds, all called .mp3."""
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


def file_names() -> Iterator[Hostile]:
    """Good music under odd names."""
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
