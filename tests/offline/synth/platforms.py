"""Two synthetic platforms that tests share, and how their files are read."""

from pathlib import Path

import polars as pl
from msgspec.structs import replace

from offline.synth.platform import run
from offline.synth.settings import SynthPlatform

CONFIG = SynthPlatform(out="", tracks=160, users=200, listens=40_000, days=60, no_audio=True, seed=3)
TINY = SynthPlatform(out="", tracks=20, users=10, listens=500, days=30, seconds=3.0, audio_format="wav")


def make(config: SynthPlatform, folder: Path) -> Path:
    """Make a platform in a folder, which is returned."""
    run(replace(config, out=str(folder)))
    return folder


def log(platform: Path) -> pl.DataFrame:
    """The listens, with what is known of their tracks, user by user and in the order of the files."""
    tracks = pl.read_parquet(platform / "tracks.parquet")
    return pl.read_parquet(platform / "listens").join(tracks, on="track_id").sort("user_id", "event_id")


def met(platform: Path) -> pl.DataFrame:
    """The plays and skips."""
    return log(platform).filter(pl.col("kind").is_in(["play", "skip"]))
