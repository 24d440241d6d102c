"""Music to upload: made by a seed, written in any format."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile


def music(*, seconds: float = 6.0, seed: int = 0, sample_rate: int = 22_050) -> np.ndarray:
    """A few chords over a beat; not silence, not noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * sample_rate)) / sample_rate
    tones = sum(np.sin(2 * np.pi * f * t) for f in 110.0 * 2 ** (rng.integers(0, 36, 4) / 12))
    beat = np.exp(-30 * (t % 0.5)) * rng.standard_normal(t.size)
    return (0.12 * tones + 0.3 * beat).astype(np.float32)


def write_music(path: Path, **options: Any) -> Path:
    """A short piece in the format of the suffix, by libsndfile or, where it cannot, by FFmpeg."""
    samples = music(**options)
    if path.suffix in (".m4a", ".webm", ".aac", ".wma"):
        import av

        codec = {".webm": "libopus", ".wma": "wmav2"}.get(path.suffix, "aac")
        form = {".m4a": "mp4", ".webm": "webm", ".aac": "adts", ".wma": "asf"}[path.suffix]
        with av.open(str(path), "w", format=form) as container:
            stream = container.add_stream(codec, rate=48_000 if codec == "libopus" else 22_050, layout="mono")
            if codec == "wmav2":  # takes no bit rate of its own
                stream.bit_rate = 64_000
            frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="flt", layout="mono")
            frame.sample_rate = 22_050
            resampler = av.AudioResampler(stream.format, "mono", stream.rate, frame_size=stream.frame_size or 960)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
    elif path.suffix == ".opus":
        soundfile.write(path, music(**options | {"sample_rate": 48_000}), 48_000, format="OGG", subtype="OPUS")
    else:
        soundfile.write(path, samples, 22_050)
    return path


def write_catalogue(folder: Path) -> list[str]:
    """URIs of a few short tracks, of one that is not audio, and of one that is not there."""
    files = [write_music(folder / f"track-{number}.wav", seed=number, seconds=3.2) for number in range(4)]
    (folder / "text.mp3").write_text("no music at all\n" * 100)
    return [file.as_uri() for file in (*files, folder / "text.mp3", folder / "missing.wav")]
