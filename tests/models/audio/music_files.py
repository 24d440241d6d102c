"""The same music in files of every format, and what the tests of this wing decode them with."""

import io
import struct
import tempfile
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import soundfile

from models.audio.windows import WindowPlan, decode_whole, decode_windows

RATE = 16000
MAX_S = 3 * 3600.0
SHORT_WINDOWS = WindowPlan(count=3, window_s=4)


@cache
def music(duration_s, rate=44100):
    """Two channels that differ: gliding tones under slow envelopes, (frames, 2), read-only."""
    t = np.arange(round(duration_s * rate)) / rate
    left = 0.4 * np.sin(2 * np.pi * (220 * t + 15 * t**2)) * (0.6 + 0.4 * np.sin(2 * np.pi * 0.9 * t))
    right = 0.3 * np.sin(2 * np.pi * 523 * t) + 0.1 * np.sin(2 * np.pi * 1760 * t) * np.cos(2 * np.pi * 0.4 * t)
    both = np.stack([left, right], axis=1).astype(np.float32)
    both.setflags(write=False)
    return both


def sndfile(samples, rate=44100, **arguments):
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", rate, samples.shape[1], **arguments) as sound:
        for block in np.array_split(samples, max(1, len(samples) // rate)):  # libsndfile's vorbis needs small writes
            sound.write(block)
    return out.getvalue()


def ffmpeg(samples, container, codec, rate=44100, *, video=False, metadata=None, options=None):
    with (
        tempfile.NamedTemporaryFile() as file,  # faststart opens what it wrote once more
        av.open(file.name, "w", format=container, options=options or {}) as writer,
    ):
        writer.metadata.update(metadata or {})
        if video:
            pictures = writer.add_stream("mpeg4", rate=5, width=64, height=64, pix_fmt="yuv420p")
        layout = "stereo" if samples.shape[1] == 2 else "mono"
        stream = writer.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 192_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        converter = av.AudioResampler(
            format=stream.codec_context.format, layout=layout, rate=rate, frame_size=stream.codec_context.frame_size
        )
        if video:
            for second in range(5 * len(samples) // rate):
                picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), second % 255, np.uint8), format="rgb24")
                writer.mux(pictures.encode(picture))
            writer.mux(pictures.encode(None))
        for part in [*converter.resample(frame), *converter.resample(None)]:
            writer.mux(stream.encode(part))
        writer.mux(stream.encode(None))
        writer.close()
        return Path(file.name).read_bytes()


def wav_header(data_bytes, *, channels=2, rate=44100, bits=16):
    frame_bytes = channels * bits // 8
    fmt = struct.pack("<HHIIHH", 1, channels, rate, min(rate * frame_bytes, 2**32 - 1), frame_bytes % 65536, bits)
    riff_bytes = min(36 + data_bytes, 2**32 - 1)
    return (
        b"RIFF" + struct.pack("<I", riff_bytes) + b"WAVEfmt \x10\0\0\0" + fmt + b"data" + struct.pack("<I", data_bytes)
    )


def wav_bytes(samples, claimed_bytes=None, **header):
    data = (samples * 32767).astype("<i2").tobytes()
    return wav_header(len(data) if claimed_bytes is None else claimed_bytes, **header) + data


FASTSTART = {"movflags": "faststart"}
FORMATS = {
    "wav-u8": (5e-2, lambda x: sndfile(x, format="WAV", subtype="PCM_U8")),
    "wav-16": (2e-4, lambda x: sndfile(x, format="WAV", subtype="PCM_16")),
    "wav-24": (1e-5, lambda x: sndfile(x, format="WAV", subtype="PCM_24")),
    "wav-32": (1e-5, lambda x: sndfile(x, format="WAV", subtype="PCM_32")),
    "wav-float": (1e-5, lambda x: sndfile(x, format="WAV", subtype="FLOAT")),
    "wav-double": (1e-5, lambda x: sndfile(x, format="WAV", subtype="DOUBLE")),
    "wav-ulaw": (2e-2, lambda x: sndfile(x, format="WAV", subtype="ULAW")),
    "wav-alaw": (2e-2, lambda x: sndfile(x, format="WAV", subtype="ALAW")),
    "wav-ima-adpcm": (2e-2, lambda x: sndfile(x, format="WAV", subtype="IMA_ADPCM")),
    "wav-ms-adpcm": (2e-2, lambda x: sndfile(x, format="WAV", subtype="MS_ADPCM")),
    "aiff": (2e-4, lambda x: sndfile(x, format="AIFF", subtype="PCM_16")),
    "flac-16": (1e-4, lambda x: sndfile(x, format="FLAC", subtype="PCM_16")),
    "flac-24": (1e-5, lambda x: sndfile(x, format="FLAC", subtype="PCM_24")),
    "vorbis": (5e-2, lambda x: sndfile(x, format="OGG", subtype="VORBIS")),
    "mp3": (1e-1, lambda x: sndfile(x, format="MP3")),
    "mp3-variable": (1e-1, lambda x: sndfile(x, format="MP3", bitrate_mode="VARIABLE")),
    "alac-m4a": (1e-4, lambda x: ffmpeg(x, "ipod", "alac", options=FASTSTART)),
    "aac-m4a": (5e-2, lambda x: ffmpeg(x, "ipod", "aac", options=FASTSTART)),
    "aac-mp4-with-video": (5e-2, lambda x: ffmpeg(x, "mp4", "aac", video=True, options=FASTSTART)),
    "aac-matroska": (2e-1, lambda x: ffmpeg(x, "matroska", "aac")),
    "aac-adts": (2e-1, lambda x: ffmpeg(x, "adts", "aac")),
    "wma": (1e-1, lambda x: ffmpeg(x, "asf", "wmav2")),
}
FORMATS_48K = {
    "opus": (1e-1, lambda x: sndfile(x, 48000, format="OGG", subtype="OPUS")),
    "opus-webm": (1e-1, lambda x: ffmpeg(x, "webm", "libopus", 48000)),
}
DURATION_S = 21.0


@cache
def encoded(name):
    """The same 21 s of music in a format: (bytes, tolerance, rate)."""
    rate = 48000 if name in FORMATS_48K else 44100
    tolerance, encode = (FORMATS | FORMATS_48K)[name]
    return encode(music(DURATION_S, rate)), tolerance, rate


def windows_of(source, plan=SHORT_WINDOWS, max_duration_s=MAX_S):
    return decode_windows(source, plan=plan, sample_rate=RATE, max_duration_s=max_duration_s)


def whole_of(source, max_duration_s=MAX_S):
    return decode_whole(source, sample_rate=RATE, max_duration_s=max_duration_s)
