"""Small catalogues of audio."""

from pathlib import Path

import polars as pl

from tests.platform.music import write_music


def write_folder(folder: Path) -> Path:
    """Two genres of two short tracks each, a file that is no audio, and one that is not named as audio."""
    for number, name in enumerate(("blues/one.wav", "blues/two.flac", "rock/one.wav", "rock/three.mp3")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_music(folder / name, seed=number, seconds=4.0 + number)
    (folder / "rock" / "broken.mp3").write_text("no music at all\n" * 100)
    (folder / "rock" / "notes.txt").write_text("not a track")
    return folder


def write_table(path: Path, columns: dict[str, list[str | None]]) -> Path:
    table = pl.DataFrame(columns)
    if path.suffix == ".csv":
        table.write_csv(path)
    else:
        table.write_parquet(path)
    return path
