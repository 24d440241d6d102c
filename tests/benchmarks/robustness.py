"""How much answers depend on how loud a track is and how it was encoded: each track against itself as plain wav."""

from __future__ import annotations

import io
import os
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr

LEAD_IN_S = 1.2
OPUS_RATE = 48_000


class Change(NamedTuple):
    """What a change did to one track: the largest change of a tag, and whether another genre (or none) was answered."""

    tag: float
    genre: bool


def wav(samples: np.ndarray, rate: int) -> bytes:
    """The samples, (frames, channels), as wav of 24 bits."""
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="WAV", subtype="PCM_24")
    return out.getvalue()


def louder(samples: np.ndarray, rate: int, *, db: float) -> bytes:
    """By so many decibels."""
    return wav(samples * 10 ** (db / 20), rate)


def encoded(samples: np.ndarray, rate: int, *, container: str, codec: str, bits_per_s: int) -> bytes:
    """By FFmpeg; Opus at 48 kHz."""
    import av

    rate_out = OPUS_RATE if codec == "libopus" else rate
    layout = "stereo" if samples.shape[1] == 2 else "mono"
    out = io.BytesIO()
    with av.open(out, "w", format=container) as writer:
        stream: Any = writer.add_stream(codec, rate=rate_out, layout=layout)
        stream.bit_rate = bits_per_s
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        converter = av.AudioResampler(
            format=stream.codec_context.format, layout=layout, rate=rate_out, frame_size=stream.codec_context.frame_size
        )
        for part in [*converter.resample(frame), *converter.resample(None)]:
            writer.mux(stream.encode(part))
        writer.mux(stream.encode(None))
    return out.getvalue()


def at_22050_hz(samples: np.ndarray, rate: int) -> bytes:
    """At another sample rate."""
    return wav(soxr.resample(samples, rate, 22_050), 22_050)


def after_silence(samples: np.ndarray, rate: int) -> bytes:
    """After a lead-in of digital silence."""
    return wav(np.pad(samples, ((round(LEAD_IN_S * rate), 0), (0, 0))), rate)


CHANGES: dict[str, Callable[[np.ndarray, int], bytes]] = {
    **{f"{db} dB": partial(louder, db=db) for db in (-6, -12, -24)},
    "mp3, 64 kbit/s": partial(encoded, container="mp3", codec="libmp3lame", bits_per_s=64_000),
    "mp3, 128 kbit/s": partial(encoded, container="mp3", codec="libmp3lame", bits_per_s=128_000),
    "opus, 64 kbit/s": partial(encoded, container="ogg", codec="libopus", bits_per_s=64_000),
    "22.05 kHz": at_22050_hz,
    "1.2 s of lead-in": after_silence,
}


@cache
def _tagger() -> Any:
    from models.release import load_release
    from models.tagger import Tagger

    return Tagger(load_release())


def changes_of(file: Path) -> dict[str, Change]:
    """What each change does to a file."""
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    plain = _tagger().tag(wav(samples, rate))
    tags, told = dict(plain.tags), {}
    for name, change in CHANGES.items():
        changed = _tagger().tag(change(samples, rate))
        largest = max(abs(score - tags[tag]) for tag, score in changed.tags)
        told[name] = Change(largest, changed.genre != plain.genre)
    return told


def robustness(folder: Path, audio: Path | None = None) -> dict[str, Any]:
    """The table, for a folder of audio of at most two channels that libsndfile reads; for synthesised music if None."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    if audio is None:
        from offline.synth.music import SynthAudio, run

        run(SynthAudio(out=str(folder / "music")))
        audio = folder / "music"
    from stream.commands.audio_files import audio_in

    files = audio_in(audio)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        tracks = list(pool.map(changes_of, files))
    figures: dict[str, Any] = {"tracks": len(tracks)}
    print(f"{len(tracks)} tracks as ...       largest change of a tag (median)   changed genres")
    for name in CHANGES:
        changes = [track[name] for track in tracks]
        largest, median = max(change.tag for change in changes), statistics.median(change.tag for change in changes)
        share = statistics.mean(change.genre for change in changes)
        print(f"  {name:<20} {largest:20.3f} {f'({median:.3f})':<16} {share:12.1%}")
        figures[name] = {"largest_tag": largest, "median_tag": median, "changed_genres": share}
    return figures
