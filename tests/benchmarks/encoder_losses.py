"""Which loss of an audio encoder finds more: the paper's hinge, or infonce, on a made-up platform.

600 tracks of 120 artists sound as their six traits say, under noise and four traits that nobody cares for. 400 people
listen by their taste for the six, and skip now and then. The tower knows where the tracks lie that are not held out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from encoder import write_store

_SEEDS = 3
_TRACKS, _PEOPLE, _LISTENS, _TRAITS = 600, 400, 50, 6
_START, _MINUTE = 1_600_000_000_000, 60_000
_LOSSES = {"hinge": {"loss": "hinge", "margin": 0.2, "negatives": 1}, "infonce": {"loss": "infonce"}}


def losses(folder: Path) -> dict[str, Any]:
    """AUC of tracks that were held out, a mean over the seeds, with 95 % intervals by a bootstrap over tracks."""
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    import numpy as np
    import torch

    from offline.audio_encoder.data import prepare
    from offline.audio_encoder.fit import cold_scores, fit, new_network
    from offline.audio_encoder.retrieval import figure
    from offline.audio_encoder.settings import EncoderTraining

    torch.set_num_threads(1)
    given = _platform(folder)
    quick = {"steps": 200, "validate_every": 50, "batch": 64, "patience": 9, "device": "cpu"}
    data = prepare(EncoderTraining(**given, **quick))
    cold, aucs = data.test, dict[str, Any]()
    for name, settings in _LOSSES.items():
        of_seeds = []
        for seed in range(_SEEDS):
            asked = EncoderTraining(**given, **quick, **settings, seed=seed)
            trained = fit(data, asked, sounds=data.sounds, steps=asked.steps, valid=data.valid)
            of_seeds.append(cold.auc(cold_scores(trained.network, data, cold)))
        aucs[name] = np.array(of_seeds)
    aucs["random"] = np.array([cold.auc(cold_scores(new_network(data, seed=s), data, cold)) for s in range(_SEEDS)])
    aucs["infonce - hinge"] = aucs["infonce"] - aucs["hinge"]
    figures = {}
    for name, of_seeds in aucs.items():
        found = figure(of_seeds.mean(axis=0))
        figures[name] = {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
        seeds = ", ".join(f"{value:.3f}" for value in of_seeds.mean(axis=1))
        print(
            f"AUC of tracks that were held out   {name:<16}{found.value:6.3f} ({found.low:.3f} to {found.high:.3f}), "
            f"n {found.n}; by seed {seeds}",
            flush=True,
        )
    return figures


def _platform(folder: Path) -> dict[str, Any]:
    import numpy as np
    import torch

    from models.history import CountingRule
    from models.mel import MelConfig
    from offline.features.held_out import HoldOut, run
    from offline.user_tower.export import export
    from offline.user_tower.networks import Items, Tower
    from tests.platform.taste import DIM, GLOBAL

    rng, mel = np.random.default_rng(0), MelConfig(sample_rate=8_000, n_fft=512, hop_length=256, n_mels=24)
    names = [f"t{number:03}" for number in range(_TRACKS)]
    artists = np.arange(_TRACKS) // 5
    traits = rng.normal(size=(_TRACKS // 5, _TRAITS))[artists] + 0.5 * rng.normal(size=(_TRACKS, _TRAITS))
    heard = np.column_stack([traits, rng.normal(size=(_TRACKS, 4))])
    smooth = np.array([np.convolve(row, np.ones(5) / 5, "same") for row in rng.normal(size=(heard.shape[1], 24))])
    log_mels = -40 + 6 * (heard @ smooth)[:, None] + 8 * rng.normal(size=(_TRACKS, 94, 24))
    store = write_store(folder / "store", names, [f"a{a}" for a in artists], log_mels, mel, window_s=3)
    log = folder / "log.parquet"
    _listens(rng, traits, names).write_parquet(log)
    run(HoldOut(store=str(store), out=str(folder / "held-out.csv"), share=0.15))
    basis = np.linalg.qr(rng.normal(size=(DIM, _TRAITS)))[0]
    places = traits @ basis.T + 0.1 * rng.normal(size=(_TRACKS, DIM))
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    torch.manual_seed(0)
    export(
        Tower("mean", dim=DIM, history=20, dropout=0.1), Items(torch.from_numpy(places).float(), sparse=False),
        out=folder / "tower", ids=names, global_embedding=GLOBAL, pooling="mean", counting=CountingRule(),
        training={"trained_until_ms": _START + _LISTENS * _MINUTE * 9 // 10},
    )  # fmt: skip
    return {
        "store": str(store), "tower": str(folder / "tower"), "log": str(log), "out": "none", "mel": mel, "crop_s": 3.0,
        "held_out": str(folder / "held-out.csv"),
    }  # fmt: skip


def _listens(rng: Any, traits: Any, names: list[str]) -> Any:
    """Everybody plays tracks by their taste and the tracks' popularity, and skips some of the others."""
    import numpy as np
    import polars as pl

    popularity, rows = rng.normal(size=len(names)), []
    for person in range(_PEOPLE):
        likes = 1.5 * traits @ rng.normal(size=_TRAITS) / np.sqrt(_TRAITS) + 0.5 * popularity
        share = np.exp(likes - likes.max())
        played = rng.choice(len(names), _LISTENS, p=share / share.sum())
        skipped = rng.random(_LISTENS) < 0.15
        played[skipped] = rng.integers(len(names), size=int(skipped.sum()))
        rows += [
            (f"u{person:03}", names[track], _START + place * _MINUTE, "skip" if skips else "play")
            for place, (track, skips) in enumerate(zip(played.tolist(), skipped.tolist(), strict=True))
        ]
    return pl.DataFrame(rows, orient="row", schema=["user_id", "track_id", "at", "kind"])


PARTS = {"encoder-losses": losses}
