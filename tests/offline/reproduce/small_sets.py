"""Sets in the shape of GTZAN and FMA-small: short tones below 500 Hz and above 1200 Hz, in the place of genres."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

RATE = 8_000
GENRES = ("high", "low")
TRACKS = 12
"""Of a genre, by artists of two tracks."""


def _tone(path: Path, genre: str, rng: np.random.Generator) -> None:
    time = np.arange(round(4.3 * RATE)) / RATE
    pitch = rng.uniform(150, 500) if genre == "low" else rng.uniform(1200, 3000)
    tone = 0.3 * np.sin(2 * np.pi * pitch * time) * (0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(1, 4) * time))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone + 0.01 * rng.standard_normal(len(time)), RATE)


def _tracks() -> Iterator[tuple[str, int]]:
    yield from ((genre, number) for genre in GENRES for number in range(TRACKS))


def write_gtzan(folder: Path) -> Path:
    """audio/high/high.00000.wav, ..., and lists/: six tracks of a genre to train, two to validate, four to test."""
    rng, lists = np.random.default_rng(0), folder / "lists"
    lists.mkdir(parents=True)
    for genre, number in _tracks():
        _tone(folder / "audio" / genre / f"{genre}.{number:05d}.wav", genre, rng)
    for part, numbers in (("train", range(6)), ("valid", (6, 7)), ("test", range(8, 12))):
        names = [f"{genre}/{genre}.{number:05d}.wav" for genre in GENRES for number in numbers]
        (lists / f"{part}_filtered.txt").write_text("\n".join(names) + "\n")
    with (lists / "artists.csv").open("w", newline="") as file:
        rows = [(f"{genre}.{number:05d}", f"{genre} {number // 2}") for genre, number in _tracks()]
        csv.writer(file).writerows([("track", "artist"), *rows])
    return folder


HEADS = (
    ["", "album", "artist", "artist", "set", "set", "track", "track"],
    ["", "title", "bio", "id", "split", "subset", "genre_top", "title"],
    ["track_id", "", "", "", "", "", "", ""],
)
"""Of tracks.csv, as FMA has them."""


def write_fma_table(folder: Path, rows: list[list[str]]) -> Path:
    """fma_metadata/tracks.csv with these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "tracks.csv").open("w", newline="") as file:
        csv.writer(file).writerows([*HEADS, *rows])
    return folder


def write_fma_small(folder: Path) -> Path:
    """audio/000/000100.wav named .mp3, ..., and metadata/: the artists of two tracks, and one clip that is no audio."""
    rng, rows = np.random.default_rng(1), []
    for place, (genre, number) in enumerate(_tracks()):
        path = folder / "audio" / "000" / f"{100 + place:06d}.mp3"
        _tone(path.with_suffix(".wav"), genre, rng)
        path.with_suffix(".wav").rename(path)  # what a file is, its bytes say
        part = "test" if number in (2, 3) else "validation" if number in (4, 5) else "training"
        rows.append([str(100 + place), "A", "a\nlife", f"{genre}{number // 2}", part, "small", genre, f"T{number}"])
    rows.append(["200", "A", "", "low99", "training", "small", "low", "broken, and nobody knew"])
    (folder / "audio" / "000" / "000200.mp3").write_bytes(b"no audio")
    write_fma_table(folder / "metadata", rows)
    return folder
