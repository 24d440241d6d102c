"""What a training of an audio encoder learns from and is judged by, read once for all encoders of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.errors import SettingsError
from models.history import IS_TARGET
from models.mel import log_mel
from models.user_tower import UserTower, load_user_tower
from offline.audio_encoder.pairs import Pairs, liked_tracks, place_people
from offline.audio_encoder.retrieval import ColdTracks
from offline.audio_encoder.settings import EncoderTraining
from offline.audio_encoder.sounds import Sounds
from offline.features.held_out import HeldOut, Part, read_held_out
from offline.features.store import FeatureStore, open_store
from offline.interactions.log import InteractionLog, read_log
from offline.interactions.made_up import platform_caveat
from offline.progress import progress_bar

_LISTS = {Part.VALID: (200, 2_000), Part.TEST: (1_000, 10_000)}
"""The most tracks and people of a validation and of the report; where there are more, they are drawn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EncoderData:
    """What does not change while encoders train.

    Attributes:
        pairs: what is drawn in each step.
        sounds: of the tracks.
        trained: (tracks,) which of the log's tracks are learned from.
        valid, test: tracks that were held out.
        dim: of taste space.
        mels, frames, crop_frames: bands of a log-mel; frames of a window, and of the piece that a step hears of it.
        window_s: length of a window.
        device: that trains.
        facts: for the manifest.
    """

    pairs: Pairs
    sounds: Sounds
    trained: NDArray[np.bool_]
    valid: ColdTracks
    test: ColdTracks
    dim: int
    mels: int
    frames: int
    crop_frames: int
    window_s: float
    device: torch.device
    facts: dict[str, Any]


def prepare(settings: EncoderTraining) -> EncoderData:
    """Read the store, the tower and the log, leave out what is held out, and place the people.

    Raises:
        SettingsError: the log or the list cannot be used, the log has no track of the store or of the tower, or none
            that is held out; or there is no GPU where one is asked for.
        ReleaseError: the store or the tower cannot be used, or the store is of another spectrogram.
    """
    device = _device(settings.device)
    store, tower = open_store(settings.store, mel=settings.mel), load_user_tower(settings.tower)
    log = read_log(settings.log, rule=tower.manifest.counting, forgotten=settings.forgotten)
    held_out = read_held_out(settings.held_out)
    part_of = _parts(settings, store, log, held_out)
    row_of = tower.items.rows(log.tracks)
    row_of[(part_of == Part.VALID) | (part_of == Part.TEST)] = -1
    if not (row_of >= 0).any():
        raise SettingsError(
            f"the tower in {settings.tower} knows no track of {settings.log} but those that are held out; train it on "
            "this log"
        )
    trained, until_ms = part_of == Part.TRAIN, tower.manifest.training.get("trained_until_ms")
    with progress_bar() as bar:
        task = bar.add_task("Placing people", total=None)
        liked = liked_tracks(
            tower, log, row_of, trained, until_ms=until_ms, most=settings.max_examples, seed=settings.seed,
            advance=lambda count: bar.advance(task, count),
        )  # fmt: skip
    if not len(liked.users):
        raise SettingsError(
            f"{settings.log} has no liked track of {settings.store} by somebody with a history, and before the test "
            "part of the tower's log; take a longer log"
        )
    valid, test = (_cold(tower, log, row_of, part_of, part, seed=settings.seed) for part in (Part.VALID, Part.TEST))
    mel, window_s = settings.mel, float(store.manifest.window_s)
    frames, crop_frames = (
        len(log_mel(np.zeros(round(seconds * mel.sample_rate), np.float32), mel))
        for seconds in (window_s, min(settings.crop_s, window_s))
    )
    return EncoderData(
        pairs=Pairs(log, liked, trained, until_ms=until_ms),
        sounds=Sounds(store, log.tracks, np.arange(len(log.tracks))),
        trained=trained,
        valid=valid,
        test=test,
        dim=tower.manifest.dim,
        mels=mel.n_mels,
        frames=frames,
        crop_frames=crop_frames,
        window_s=window_s,
        device=device,
        facts={
            "log": {"where": log.where, "fingerprint": log.fingerprint, "caveat": platform_caveat(log.where)},
            "tower": {name: file.sha256 for name, file in tower.manifest.files.items()},
            "held_out": held_out.facts(),
            "tower_left_them_out": (tower.manifest.training.get("held_out") or {}).get("sha256") == held_out.sha256,
            "trained_until_ms": until_ms,
            "tracks": {part.name.lower(): int((part_of == part).sum()) for part in Part},
            "liked": len(liked.users),
            "front_end": store.manifest.front_end,
        },
    )


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device=cuda, but PyTorch finds no GPU here; use device=cpu, or see to its driver")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _parts(settings: EncoderTraining, store: FeatureStore, log: InteractionLog, held_out: HeldOut) -> NDArray[np.int64]:
    """(tracks of the log,) codes of Part; -1 where the store does not have a track."""
    places = np.array([number for number, name in enumerate(log.tracks) if name in store], np.int64)
    if not len(places):
        raise SettingsError(
            f"{settings.log} has no track of {settings.store}; compute the features of the catalogue of this log"
        )
    part_of = np.full(len(log.tracks), -1, np.int64)
    part_of[places] = held_out.parts(log.tracks)[places]
    if missing := [part.name.lower() for part in Part if not (part_of == part).any()]:
        raise SettingsError(
            f"of the {len(places)} tracks of {settings.log} that are in {settings.store}, {settings.held_out} leaves "
            f"none for {missing[0]}; write it anew with `hold-out`, or take a larger catalogue"
        )
    return part_of


def _cold(
    tower: UserTower,
    log: InteractionLog,
    row_of: NDArray[np.int64],
    part_of: NDArray[np.int64],
    part: Part,
    *,
    seed: int,
) -> ColdTracks:
    """The tracks of a part, and people with a history.

    Raises:
        SettingsError: nobody liked one of them.
    """
    rng, (most_tracks, most_people) = np.random.default_rng(seed), _LISTS[part]
    targets = np.flatnonzero(IS_TARGET[log.signal])
    users, tracks = log.user_of(targets), log.track[targets]
    cold = np.intersect1d(np.flatnonzero(part_of == part), tracks)
    cold = np.sort(rng.permutation(cold)[:most_tracks])
    people = np.sort(rng.permutation(len(log.users))[:most_people])
    placed = place_people(tower, log, row_of, people, log.offsets[people + 1])
    people, vectors = people[placed.of_history], placed.vectors[placed.of_history]
    column = np.full(len(log.tracks), -1, np.int64)
    column[cold] = np.arange(len(cold))
    row = np.full(len(log.users), -1, np.int64)
    row[people] = np.arange(len(people))
    counted = (row[users] >= 0) & (column[tracks] >= 0)
    liked = np.zeros((len(people), len(cold)), bool)
    liked[row[users[counted]], column[tracks[counted]]] = True
    if not (liked.any(axis=0) & ~liked.all(axis=0)).any():
        raise SettingsError(
            f"of the tracks of {log.where} that are held out ({part.name.lower()}), none was liked by some people and "
            "not by others; take a larger log, or hold out a larger share"
        )
    warm = users[(part_of[tracks] != Part.VALID) & (part_of[tracks] != Part.TEST)]
    active = np.bincount(warm, minlength=len(log.users))[people]
    return ColdTracks(tracks=cold, people=vectors, liked=liked, active=active)
