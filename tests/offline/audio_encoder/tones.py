"""A made-up platform on which sound decides taste: some people like low tones, and others high ones."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import soundfile
import torch
from click.testing import CliRunner
from torch.nn import functional

from models.history import CountingRule
from models.mel import MelConfig
from offline.cli import cli
from offline.features import extract, held_out
from offline.features.held_out import Part, read_held_out
from offline.features.settings import Features
from offline.interactions.log import read_log
from offline.user_tower.export import export
from offline.user_tower.networks import Items, Tower
from offline.user_tower.settings import TowerTraining
from tests.platform.taste import DIM, GLOBAL

MEL = MelConfig(sample_rate=8_000, n_fft=512, hop_length=256, n_mels=24)
START = 1_600_000_000_000
MINUTE = 60_000
UNTIL = START + 27 * MINUTE
"""The last listens are of the test part of the tower's log."""
TRACKS, PEOPLE = 90, 80
IDS = [f"t{number:02}" for number in range(TRACKS)]


def is_low(number: int) -> bool:
    """Of a track or a person; artists have three tracks of one kind."""
    return number // 3 % 2 == 0


def write_store(folder: Path) -> Path:
    """The features of the tracks, tones below 500 Hz and above 1200 Hz over a little noise; and which are held out."""
    rng, audio = np.random.default_rng(0), folder / "audio"
    audio.mkdir(parents=True)
    time = np.arange(3 * 8_000) / 8_000
    for number, track_id in enumerate(IDS):
        pitch = rng.uniform(150, 500) if is_low(number) else rng.uniform(1200, 3000)
        tone = 0.3 * np.sin(2 * np.pi * pitch * time) * (0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(1, 4) * time))
        soundfile.write(audio / f"{track_id}.wav", tone + 0.01 * rng.standard_normal(len(time)), 8_000)
    table = {
        "track_id": IDS,
        "uri": [f"audio/{track_id}.wav" for track_id in IDS],
        "artist_id": [f"a{number // 3}" for number in range(TRACKS)],
    }
    pl.DataFrame(table).write_parquet(folder / "tracks.parquet")
    settings = Features(
        catalogue=str(folder / "tracks.parquet"), out=str(folder / "store"), networks=(), mel=MEL, processes=1
    )
    assert extract.run(settings).failed == 0
    held_out.run(held_out.HoldOut(store=str(folder / "store"), out=str(folder / "held-out.csv")))
    return folder / "store"


def write_listens(path: Path, *, seed: int = 1) -> str:
    """Everybody plays tracks of their own kind, and skips others now and then."""
    rng = np.random.default_rng(seed)
    own = {low: [number for number in range(TRACKS) if is_low(number) == low] for low in (True, False)}
    rows = []
    for person in range(PEOPLE):
        for place in range(30):
            skips = rng.random() < 0.2
            track = rng.choice(own[is_low(person) != skips])
            rows.append((f"u{person:02}", IDS[track], START + place * MINUTE, "skip" if skips else "play"))
    pl.DataFrame(rows, orient="row", schema=["user_id", "track_id", "at", "kind"]).write_parquet(path)
    return str(path)


def write_tower(folder: Path, *, without: Path | None = None, log: Path | None = None) -> Path:
    """A tower that has learned nothing but where tracks lie: low ones about one place, high ones about another.

    Without the tracks of a list, it tells of its training on a log what `train-user-tower` would.
    """
    torch.manual_seed(0)
    kinds = torch.tensor([0 if is_low(number) else 1 for number in range(TRACKS)])
    places = functional.normalize(torch.randn(2, DIM)[kinds] + 0.5 * torch.randn(TRACKS, DIM), dim=1)
    training, kept = dict[str, Any](trained_until_ms=UNTIL), np.arange(TRACKS)
    if without and log:
        held_out = read_held_out(str(without))
        kept = np.flatnonzero(held_out.parts(pl.Series(IDS)) == Part.TRAIN)
        settings = TowerTraining(log=str(log), out=str(folder), held_out=str(without), history=10, positions=240)
        training |= {
            "config": msgspec.to_builtins(settings), "dropout": 0.1, "held_out": held_out.facts(),
            "log": {"fingerprint": read_log(str(log)).fingerprint},
        }  # fmt: skip
    export(
        Tower("mean", dim=DIM, history=10, dropout=0.1), Items(places[kept], sparse=False), out=folder,
        ids=[IDS[number] for number in kept], global_embedding=GLOBAL, pooling="mean", counting=CountingRule(),
        training=training,
    )  # fmt: skip
    return folder


def write_encoder(folder: Path, store: Path, tower: Path, log: Path) -> None:
    """An encoder that the command trained, and what it printed."""
    words = ["steps=40", "validate_every=20", "batch=32", "crop_s=2", "name=ours",
             "mel={sample_rate=8000, n_fft=512, hop_length=256, n_mels=24}"]  # fmt: skip
    arguments = [str(store), str(tower), str(log), str(folder / "encoder"), *words, "--device", "cpu"]
    held_out = str(store.with_name("held-out.csv"))
    shown = CliRunner().invoke(cli, ["train-audio-encoder", *arguments, "--held-out", held_out])
    assert shown.exit_code == 0, shown.exception
    (folder / "shown.txt").write_text(shown.output)
