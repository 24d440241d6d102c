"""`tastewave-offline train-audio-encoder`: the sound of tracks brought to the people who like them.

The siamese network of Chen & Liang (ISMIR 2020 late-breaking): one network hears liked and disliked tracks, and learns
to place them near to and far from where a user tower, which stays as it is, puts the person. A training that is
stopped begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.audio_encoder import ENCODER_MANIFEST
from offline.audio_encoder.data import prepare
from offline.audio_encoder.export import export
from offline.audio_encoder.fit import cold_scores, fit, new_network
from offline.audio_encoder.report import write_report
from offline.audio_encoder.retrieval import Retrieval
from offline.audio_encoder.settings import METRICS, REPORT, EncoderTraining
from offline.files import check_replaceable, writing


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An encoder that was trained.

    Attributes:
        out: its folder.
        metrics: of retrieval among the tracks that were held out, by what ranked: encoder, popularity, random and,
            with controls, permuted.
        training: how it was made, as the manifest's `training` has it.
    """

    out: Path
    metrics: dict[str, Retrieval]
    training: dict[str, Any]

    def lines(self) -> list[str]:
        """What the command prints."""
        facts = self.training
        lines = [
            f"{self.out}: audio encoder of {facts['tracks']['train']:,} tracks; best at step {facts['best_step']:,} "
            f"with a validation AUC of {facts['valid_auc']:.4f}; {facts['examples_per_s']:,.0f} examples/s",
            f"{facts['tracks']['test']:,} tracks of artists that it never heard:",
        ]
        if not facts["tower_left_them_out"]:
            lines.append("(the tower was trained with these tracks: its places of people may know something of them)")
        for name, measured in self.metrics.items():
            auc = measured.auc
            lines.append(
                f"  {name:<10}  AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}), listeners of a track "
                f"recall@10 {measured.track_recall_at_10.value:.3f}, tracks of a listener "
                f"recall@10 {measured.recall_at_10.value:.3f}, NDCG@10 {measured.ndcg_at_10.value:.3f}"
            )
        return lines


def run(settings: EncoderTraining) -> Outcome:
    """Train an encoder, judge it on tracks that it never heard, and write its folder.

    Raises:
        SettingsError: the log cannot be used or does not fit to the store and the tower, the loss is no number, or the
            folder cannot be written.
        ReleaseError: the store or the tower cannot be used, or the store is of another spectrogram.
    """
    out = Path(settings.out)
    check_replaceable(out, ENCODER_MANIFEST)
    data = prepare(settings)
    cold = data.test
    trained = fit(data, settings, sounds=data.sounds, steps=settings.steps, valid=data.valid)
    metrics = {
        "encoder": cold.measure(cold_scores(trained.network, data, cold)),
        "popularity": cold.measure(cold.popularity()),
        "random": cold.measure(cold_scores(new_network(data, seed=settings.seed), data, cold)),
    }
    if settings.controls:
        exchanged = data.sounds.exchanged(exchange(data.trained, seed=settings.seed))
        control = fit(data, settings, sounds=exchanged, steps=-(-settings.steps // 2), valid=None)
        metrics["permuted"] = cold.measure(cold_scores(control.network, data, cold))
    training = {
        "config": msgspec.to_builtins(settings),
        **data.facts,
        "best_step": trained.best_step,
        "valid_auc": trained.valid_auc,
        "examples_per_s": trained.examples_per_s,
        "device": data.device.type,
        "course": trained.course,
    }
    with writing(out):
        export(
            trained.network, out=out, name=settings.name, licence=settings.licence, mel=settings.mel,
            window_s=data.window_s, training=training, beside={METRICS: metrics},
        )  # fmt: skip
        # After the manifest, which does not name it: a release takes along what the manifest names.
        write_report(metrics, out / REPORT, name=settings.name, training=training)
    return Outcome(out=out, metrics=metrics, training=training)


def exchange(trained: NDArray[np.bool_], *, seed: int) -> NDArray[np.int64]:
    """(tracks,) which track's sound each one has where those that are learned from have changed sounds."""
    sound_of = np.arange(len(trained))
    sound_of[trained] = np.random.default_rng(seed).permutation(sound_of[trained])
    return sound_of
