"""`tastewave-offline fine-tune-tower`: a tower whose histories may hold tracks that it knows by their sound alone.

In each step some tracks stand in the histories by the embedding of their sound instead of their learned vector, as
tracks do that were uploaded after the training (item dropout, after Volkovs, Yu & Poutanen, DropoutNet, NIPS 2017).
Only the network that maps histories to people is trained. The vectors that people are compared with stay as they are,
so that what was learned against them, such as the audio encoder, stays right.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from models.audio_encoder import load_audio_encoder
from models.errors import SettingsError
from models.sealed_folder import SealedFile
from models.user_tower import TOWER_MANIFEST, TowerManifest, UserTower, load_user_tower
from offline.features.held_out import Part
from offline.features.store import open_store
from offline.files import check_replaceable, locked, writing
from offline.progress import progress_bar
from offline.ranking.examples import Examples
from offline.user_tower.by_sound import places_by_sound
from offline.user_tower.candidate import Candidate, Network
from offline.user_tower.course import CourseBar
from offline.user_tower.data import TrainingData, drawn_positions, prepare
from offline.user_tower.entering import Entering, Sounds, recalls
from offline.user_tower.export import WEIGHTS, export
from offline.user_tower.fine_tuning import FineTuning
from offline.user_tower.networks import Items
from offline.user_tower.parallel import Team, team_of
from offline.user_tower.settings import TowerTraining
from offline.user_tower.train import describe
from offline.user_tower.trials import advance

_SLICES = {
    "warm": "tracks with a learned vector",
    "cold": "tracks that are held out",
    "sound_alone": "the first, for people placed by sound alone",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A tower that was fine-tuned.

    Attributes:
        out: its folder.
        training: how it was made, as the manifest's `training` has it.
    """

    out: Path
    training: dict[str, Any]

    def lines(self) -> list[str]:
        """What the command prints."""
        training, made = self.training, self.training["fine_tuning"]
        lines = [
            f"{self.out}: {made['tower']}, fine-tuned; {made['with_sound']:,} of its {training['tracks']:,} tracks "
            f"have a sound; best at step {training['best_step']:,} with a validation NDCG@10 of "
            f"{training['valid_ndcg_at_10']:.4f}, {made['valid_ndcg_at_10_before']:.4f} before",
            "Recall@10 of the test in discovery, before and after:",
        ]
        for name, figures in made["recall_at_10"].items():
            if not figures["n"]:
                lines.append(f"  {_SLICES[name]}: the test has none")
                continue
            difference = figures["difference"]
            lines.append(
                f"  {_SLICES[name]}: {figures['before']['value']:.3f}, {figures['after']['value']:.3f} (difference "
                f"{difference['value']:+.3f}, 95 % interval {difference['low']:+.3f} to {difference['high']:+.3f}, "
                f"n {figures['n']:,})"
            )
        return lines


@dataclass(frozen=True, kw_only=True, eq=False)
class Parent:
    """The tower that is fine-tuned, on the device of the training.

    Attributes:
        manifest: its own.
        weights: of its network.
        vectors: (items, dim).
        no_history: (dim,) its global embedding.
    """

    manifest: TowerManifest
    weights: dict[str, Tensor]
    vectors: Tensor
    no_history: Tensor


class TunedNetwork(Network):
    """The network of a tower, and its items, which do not learn any more.

    Args:
        data: of the training.
        parent: where the weights begin.
        sounds: of the tracks of the log.
        item_dropout: share of the tracks that enter by their sound in a step.
    """

    def __init__(self, data: TrainingData, parent: Parent, sounds: Sounds, *, item_dropout: float) -> None:
        super().__init__(data, parent.manifest.training["dropout"])
        self.tower.load_state_dict(parent.weights)
        self.items = Items(parent.vectors, sparse=self.items.table.sparse, unit_norm=False)
        self.items.log_scale.data.fill_(np.log(parent.manifest.scale))
        self.items.requires_grad_(False)
        self.item_dropout = item_dropout
        self.places: Tensor
        self.known: Tensor
        self.register_buffer("places", torch.from_numpy(sounds.places[data.learned]), persistent=False)
        self.register_buffer("known", torch.from_numpy(sounds.known[data.learned]), persistent=False)

    def entered(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """Vectors (n, length, dim), those of the tracks that are drawn replaced by their sound."""
        drawn = self.known & (torch.rand(len(self.known), device=rows.device) < self.item_dropout)
        return torch.where(drawn[rows][..., None], self.places[rows], vectors)


class FineTuned(Candidate):
    """A tower in fine-tuning. A validation ranks as workers do: what has no learned vector enters by its sound.

    Args:
        data: of the training.
        parent: that is fine-tuned.
        sounds: of the tracks of the log.
        item_dropout: as in TunedNetwork.
        path: of the checkpoint.
    """

    def __init__(self, data: TrainingData, parent: Parent, sounds: Sounds, *, item_dropout: float, path: Path) -> None:
        self.parent, self.sounds, self.item_dropout = parent, sounds, item_dropout
        self.entering = Entering(data, parent.vectors, sounds, sounds.parts != Part.TEST, parent.no_history)
        super().__init__(data, parent.manifest.training["dropout"], path)

    def begin(self) -> TunedNetwork:
        """The parent."""
        return TunedNetwork(self.data, self.parent, self.sounds, item_dropout=self.item_dropout)

    def validate(self, network: Network) -> float:
        """As in Candidate."""
        protocol = "replay" if self.data.examples.seen.all() else "discovery"
        return self.entering.scorer(network.tower).ndcg(self.data.examples, protocol)


def run(settings: FineTuning) -> Outcome:
    """Fine-tune a tower and write its folder; a training that was killed goes on from its last validation.

    Raises:
        SettingsError: the log is not that of the tower, tower or encoder were not trained without the list's tracks,
            the encoder was trained against another tower, the loss is no number, or the folder cannot be written.
        ReleaseError: the tower, the encoder or the store cannot be used.
    """
    out = Path(settings.out).resolve()
    partial = out.with_name(out.name + ".partial")
    with (
        team_of(settings.device) as team,
        writing(out, ": the training goes on from its last validation"),
        locked(partial),
    ):
        check_replaceable(out, TOWER_MANIFEST)
        tower = load_user_tower(settings.tower)
        data = _prepare(settings, tower, partial, team)
        sounds = _sounds(settings, data, partial)
        data = _asked(data, sounds)
        parent = _parent(settings, tower, data)
        tuned = FineTuned(
            data, parent, sounds, item_dropout=settings.item_dropout, path=partial / "fine-tuned.safetensors"
        )
        before = tuned.begin().to(data.device).eval()
        with CourseBar(data.budget, shown=True) as bar:
            advance(tuned, bar, until=data.budget.steps)
        everything = np.ones(len(data.log.tracks), bool)
        entering = Entering(data, parent.vectors, sounds, everything, parent.no_history)
        towers = {"before": before.tower, "after": tuned.best.tower}
        training = describe(data, tuned) | {
            "fine_tuning": {
                **_origins(settings, tower),
                "config": msgspec.to_builtins(settings),
                "with_sound": int(sounds.known[data.learned].sum()),
                "valid_ndcg_at_10_before": tuned.validate(before),
                "recall_at_10": recalls(data, entering, sounds, towers, seed=settings.seed),
            }
        }
        manifest = tower.manifest
        export(
            tuned.best.tower, tuned.best.items, out=out, ids=data.log.tracks[data.learned].to_list(),
            global_embedding=manifest.global_embedding, pooling=manifest.pooling, counting=manifest.counting,
            training=training,
        )  # fmt: skip
        shutil.rmtree(partial, ignore_errors=True)
    return Outcome(out=Path(settings.out), training=training)


def _prepare(settings: FineTuning, tower: UserTower, partial: Path, team: Team) -> TrainingData:
    """What the tower was trained on, with the settings of this training."""
    made = tower.manifest.training
    if "config" not in made or WEIGHTS not in tower.manifest.files:
        raise SettingsError(
            f"the tower in {settings.tower} does not tell how it was trained, or has no {WEIGHTS}; train it again with "
            "`train-user-tower`"
        )
    same = ("log", "forgotten", "held_out", "out", "learning_rate", "warm_up", "epochs", "steps", "validate_every",
            "patience", "device", "seed")  # fmt: skip
    training = msgspec.structs.replace(
        msgspec.convert(made["config"], TowerTraining),
        dropouts=(made["dropout"],),
        **{name: getattr(settings, name) for name in same},
    )
    data = prepare(training, scratch=partial, team=team, start=torch.from_numpy(np.array(tower.items.vectors)))
    if data.log.fingerprint != made["log"]["fingerprint"]:
        raise SettingsError(
            f"the tower in {settings.tower} was not trained on {settings.log} as it is now; name its log and the dump "
            "of what was forgotten, or train it again"
        )
    origins = _origins(settings, tower)
    encoder = load_audio_encoder(settings.encoder).manifest
    held = data.held_out.facts() if data.held_out else None
    for what, folder, training_of in (
        ("tower", settings.tower, made),
        ("encoder", settings.encoder, encoder.training),
    ):
        if training_of.get("held_out") != held:
            raise SettingsError(
                f"the {what} in {folder} was not trained without the tracks of {settings.held_out}; train it with this "
                "list"
            )
    if encoder.training.get("tower") != origins["tower_sha256"]:
        raise SettingsError(
            f"the encoder in {settings.encoder} was trained against another tower than {settings.tower}; name the two "
            "that belong together"
        )
    decides = [origins["tower_sha256"], origins["encoder_sha256"], settings.item_dropout]
    return replace(data, key=f"{data.key} {msgspec.json.encode(decides).decode()}")


def _origins(settings: FineTuning, tower: UserTower) -> dict[str, Any]:
    """Which tower and which encoder it was, for the manifest."""
    encoder = load_audio_encoder(settings.encoder).manifest
    return {
        "tower": settings.tower,
        "tower_sha256": _hashes(tower.manifest.files),
        "encoder": encoder.name,
        "encoder_sha256": _hashes(encoder.files),
        "item_dropout": settings.item_dropout,
    }


def _hashes(files: dict[str, SealedFile]) -> dict[str, str]:
    return {name: file.sha256 for name, file in files.items()}


def _sounds(settings: FineTuning, data: TrainingData, partial: Path) -> Sounds:
    """Where the encoder places those tracks of the log that the store has."""
    store, tracks = open_store(settings.features), data.log.tracks
    known = np.array([track_id in store for track_id in tracks])
    if not known[data.learned].any():
        raise SettingsError(
            f"the tower knows no track of {settings.features}; compute the features of the catalogue of its log"
        )
    track_ids = tracks.filter(known).to_list()
    contents = [store[track_id].content for track_id in track_ids]
    encoder = load_audio_encoder(settings.encoder).manifest
    of = hashlib.sha256(msgspec.json.encode([_hashes(encoder.files), track_ids, contents])).hexdigest()[:12]
    with progress_bar() as bar:
        found = places_by_sound(
            track_ids, encoder=settings.encoder, store=settings.features, out=partial / f"places-{of}", progress=bar,
            processes=settings.processes, ray=settings.ray,
        )  # fmt: skip
    places = np.zeros((len(tracks), found.shape[1]), np.float32)
    places[known] = found
    parts: NDArray[np.int64] = data.held_out.parts(tracks) if data.held_out else np.zeros(len(tracks), np.int64)
    return Sounds(places=places, known=known, parts=parts)


def _asked(data: TrainingData, sounds: Sounds) -> TrainingData:
    """The same, with a validation that asks for the tracks too that are held out for it."""
    targets, settings = data.log.track[data.split.valid], data.settings
    ranked = (data.row_of >= 0) | ((sounds.parts == Part.VALID) & sounds.known)
    positions = drawn_positions(data.split.valid[ranked[targets]], settings)
    return replace(data, examples=Examples.of(data.log, data.split, positions))


def _parent(settings: FineTuning, tower: UserTower, data: TrainingData) -> Parent:
    rows = tower.items.rows(data.log.tracks[data.learned])
    if len(rows) != len(tower.items) or (rows != np.arange(len(rows))).any():
        raise SettingsError(
            f"the tower in {settings.tower} knows other tracks than its log would give; train it again with this "
            "version"
        )
    weights = load_file(Path(settings.tower, WEIGHTS), device=str(data.device))
    return Parent(
        manifest=tower.manifest,
        weights=weights,
        vectors=torch.from_numpy(np.array(tower.items.vectors)).to(data.device),
        no_history=torch.tensor(tower.manifest.global_embedding, device=data.device),
    )
