"""The steps of a training, and the network of its best validation."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import SettingsError
from offline.audio_encoder.data import EncoderData
from offline.audio_encoder.losses import hinge, infonce
from offline.audio_encoder.network import AudioNetwork
from offline.audio_encoder.retrieval import ColdTracks
from offline.audio_encoder.settings import EncoderTraining
from offline.audio_encoder.sounds import Sounds, place_tracks
from offline.progress import progress_bar


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network as it was at its best validation, or at the end where nothing validates.

    Attributes:
        network: on the device of the training.
        best_step: where that was.
        valid_auc: what it was; not a number where nothing validates.
        examples_per_s: liked tracks that were learned from in a second, validations left out.
        course: of each validation its step, the mean loss since the one before, and the AUC.
    """

    network: AudioNetwork
    best_step: int
    valid_auc: float
    examples_per_s: float
    course: list[dict[str, float]]


def new_network(data: EncoderData, *, seed: int) -> AudioNetwork:
    """A network with weights that are drawn by a seed, on the device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AudioNetwork(mels=data.mels, dim=data.dim).to(data.device)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - a CPU trains 1.6 times as fast


def cold_scores(network: AudioNetwork, data: EncoderData, cold: ColdTracks) -> NDArray[np.float32]:
    """(people, tracks) what a network, which is left in eval mode, says of tracks that were held out."""
    places = place_tracks(network, data.sounds, cold.tracks.tolist(), frames=data.frames, device=data.device)
    return cold.scores(places)


def fit(
    data: EncoderData, settings: EncoderTraining, *, sounds: Sounds, steps: int, valid: ColdTracks | None
) -> Trained:
    """Train a network until its validations bring nothing better, or the steps are done.

        trained = fit(data, settings, sounds=data.sounds, steps=settings.steps, valid=data.valid)

    Args:
        data: what it learns from.
        settings: of the training.
        sounds: of the tracks that it learns from: `data.sounds`, or exchanged ones in a control.
        steps: the most.
        valid: choose the step that is kept, and end the training. Without them it is the last of all steps: a control
            that were chosen by true sounds would know something of them.

    Raises:
        SettingsError: the loss is no number any more.
    """
    network, rng = new_network(data, seed=settings.seed), np.random.default_rng(settings.seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    best, best_step, best_auc, stale = network.state_dict(), steps, math.nan, 0
    course, done, trained_s = list[dict[str, float]](), 0, 0.0
    with progress_bar() as bar:
        task = bar.add_task("Training, steps", total=steps)
        while done < steps and stale < settings.patience:
            count, began_s = min(settings.validate_every, steps - done), time.monotonic()
            total = torch.zeros((), device=data.device)
            network.train()
            for _ in range(count):
                optimiser.zero_grad()
                loss = _loss(network, data, settings, sounds, rng)
                loss.backward()
                optimiser.step()
                schedule.step()
                total += loss.detach()
                bar.advance(task)
            mean, done = total.item() / count, done + count  # no step waited for its loss
            trained_s += time.monotonic() - began_s
            if not math.isfinite(mean):
                raise SettingsError(
                    f"the loss is no number any more after {done} steps; run this again with a learning_rate below "
                    f"{settings.learning_rate}"
                )
            if valid is None:
                continue
            auc = float(valid.auc(cold_scores(network, data, valid)).mean())
            course.append({"step": done, "loss": mean, "valid_auc": auc})
            bar.update(task, description=f"Training, AUC {auc:.4f}; steps")
            stale += 1
            if math.isnan(best_auc) or auc > best_auc:
                best, best_step, best_auc, stale = copy.deepcopy(network.state_dict()), done, auc, 0
    network.load_state_dict(best)
    return Trained(
        network=network,
        best_step=best_step,
        valid_auc=best_auc,
        examples_per_s=done * settings.batch / trained_s,
        course=course,
    )


def _loss(
    network: AudioNetwork, data: EncoderData, settings: EncoderTraining, sounds: Sounds, rng: np.random.Generator
) -> Tensor:
    """The loss of a step. Each track of a batch is heard once, however many people of the batch it stands beside."""
    is_hinge = settings.loss == "hinge"
    batch = data.pairs.draw(rng, count=settings.batch, negatives=settings.negatives if is_hinge else 0)
    tracks, of_pair = np.unique(np.column_stack([batch.liked, batch.disliked]), return_inverse=True)
    of_pair = torch.from_numpy(of_pair.reshape(len(batch.liked), -1)).to(data.device)
    heard = torch.from_numpy(sounds.crops(tracks.tolist(), frames=data.crop_frames, rng=rng))
    places = network(heard.to(data.device).float())
    people = torch.from_numpy(batch.vectors).to(data.device)
    if is_hinge:
        counts = torch.from_numpy(batch.counts).to(data.device)
        return hinge(people, places[of_pair[:, 0]], places[of_pair[:, 1:]], counts, margin=settings.margin)
    counts = torch.from_numpy(data.pairs.unheard(batch.users[:, None], tracks[None, :], batch.at[:, None]))
    return infonce(people, places, of_pair[:, 0], counts.to(data.device), temperature=settings.temperature)
