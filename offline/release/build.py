"""Building a release: networks, a genre head, a tower and audio encoders in one folder, with manifest and card."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.audio.windows import WindowPlan
from models.audio_encoder import ENCODER_MANIFEST, load_audio_encoder
from models.contract import CONTRACT
from models.errors import SettingsError
from models.features import EMBEDDING, embedding_of, feature_width
from models.genre import DISTANCE
from models.mel import FRONT_END, MUSICNN
from models.release import DEFAULT, MANIFEST, Configuration, Manifest, Release, load_release, release_id
from models.sealed_folder import describe_files
from models.user_tower import TOWER_MANIFEST, load_user_tower
from offline.files import check_replaceable, new_folder, write_json, writing
from offline.genre.labels import LabelledTaggrams, read_artists, read_embeddings, read_taggrams
from offline.genre.settings import GenreTraining
from offline.genre.train import Trained, train
from offline.musicnn.convert import NETWORKS
from offline.release.card import with_card
from offline.release.encoders import block_manifest, copy_encoder
from offline.release.settings import BuildRelease

GENRE_HEAD = "genre.npz"
NOTICE = "LICENSE-musicnn.txt"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The release that was written."""

    release: Release

    def lines(self) -> list[str]:
        """The metrics of the genre head, a line each, then the release."""
        metrics = self.release.manifest.metrics
        return [
            *(f"{name} {value:.3f}" for name, value in metrics.items()),
            f"release {self.release.release_id} in {self.release.folder}",
        ]


def run(settings: BuildRelease) -> Outcome:
    """Train the genre head and write a release: the same release_id from the same data on the same machine.

    A release that is there is replaced, as a whole and at the end.

    Raises:
        SettingsError: the data or the networks cannot be used, or `out` is a folder of something else,
            is written by another run, or cannot be written.
        ReleaseError: the tower or an audio encoder cannot be used, or they do not fit together.
    """
    out = Path(settings.out)
    networks_dir = Path(settings.networks or DEFAULT)
    _check_folders(out, networks_dir)
    _check_blocks(settings)
    tower = load_user_tower(Path(settings.tower)) if settings.tower else None
    encoder = load_audio_encoder(Path(settings.audio_encoder)) if settings.audio_encoder else None
    tracks = read_taggrams(Path(settings.taggrams_dir, "train.npz"), classes=len(settings.training.classes))
    artists = read_artists(Path(settings.taggrams_dir, "train_artists.csv"), tracks.ids)
    heard = _heard(settings, tracks)
    trained = train(settings.training, tracks=heard, labels=tracks.labels, artists=artists)
    with writing(out), new_folder(out) as folder:
        for name in (*NETWORKS.values(), NOTICE):
            shutil.copyfile(networks_dir / name, folder / name)
        (folder / GENRE_HEAD).write_bytes(trained.head.to_bytes())
        if settings.tower and tower:
            for name in (*tower.manifest.files, TOWER_MANIFEST):
                shutil.copyfile(Path(settings.tower, name), folder / name)
        if settings.audio_encoder:
            copy_encoder(Path(settings.audio_encoder), folder, manifest_name=ENCODER_MANIFEST)
        for name, source in settings.blocks.items():
            copy_encoder(Path(source), folder, manifest_name=block_manifest(name))
        dim = next((part.manifest.dim for part in (tower, encoder) if part), None)
        manifest = _manifest(folder, trained, settings, tracks, dim)
        placing = [part.manifest.training for part in (tower, encoder) if part]
        write_json(folder / MANIFEST, with_card(manifest, folder, taste_trainings=placing))
        _try(load_release(folder))
    return Outcome(release=load_release(out))


def _try(release: Release) -> None:
    """Raise ReleaseError where the head, the tower or an audio encoder of a release cannot be loaded."""
    release.genre_head()
    release.audio_encoder()
    release.blocks()
    if release.configuration.user_tower is not msgspec.UNSET:
        release.user_tower()


def _heard(settings: BuildRelease, tracks: LabelledTaggrams) -> list[dict[str, NDArray[np.float32]]]:
    """What is known of each track; an embedding only of those that have one."""
    heard = tracks.features(patch_step=settings.training.patch_step)
    for name in (block.name for block in settings.training.inputs if feature_width(block.name) is None):
        embeddings = read_embeddings(Path(settings.taggrams_dir, f"{name}s.npz"))
        for features, track in zip(heard, tracks.ids, strict=True):
            if track in embeddings:
                features[name] = embeddings[track]
    return heard


def _check_blocks(settings: BuildRelease) -> None:
    """Raise SettingsError where the head does not hear a network that the release is to carry, or one that it lacks."""
    inputs = {block.name for block in settings.training.inputs if feature_width(block.name) is None} - {EMBEDDING}
    carried = {embedding_of(name) for name in settings.blocks}
    if inputs != carried:
        raise SettingsError(
            f"training.inputs names the embeddings {sorted(inputs)}, blocks gives {sorted(carried)}; name each "
            "network in both"
        )


def _check_folders(out: Path, networks_dir: Path) -> None:
    for name in (*NETWORKS.values(), NOTICE):
        if not (networks_dir / name).is_file():
            raise SettingsError(
                f"{networks_dir} has no {name}; convert the networks with `tastewave-offline convert-musicnn`"
            )
    if out.resolve() != networks_dir.resolve():
        check_replaceable(out, MANIFEST)


def _describe(training: GenreTraining, tracks: LabelledTaggrams, trained: Trained) -> dict[str, Any]:
    """What the manifest says of the training."""
    return {
        "data_sha256": tracks.fingerprint,
        "tracks": len(tracks.ids),
        "patches": sum(map(len, tracks.taggrams)),
        "gamma": trained.gamma,
        "ridge": trained.ridge,
        "min_confidence": trained.head.min_confidence,
        "max_distance": trained.head.max_distance,
        "distance": DISTANCE,
        "config": msgspec.to_builtins(training),
    }


def _manifest(
    folder: Path, trained: Trained, settings: BuildRelease, tracks: LabelledTaggrams, dim: int | None
) -> Manifest:
    """The manifest of the files in a folder, which are those of a release."""
    plan = WindowPlan()
    configuration = Configuration(
        front_end=FRONT_END,
        sample_rate=MUSICNN.sample_rate,
        windows=plan.count,
        window_s=plan.window_s,
        networks=NETWORKS,
        run=("msd",),
        genre_head=GENRE_HEAD,
        genres=trained.head.classes,
        embedding_dim=dim,
        user_tower=TOWER_MANIFEST if settings.tower else msgspec.UNSET,
        audio_encoder=ENCODER_MANIFEST if settings.audio_encoder else msgspec.UNSET,
        blocks={name: block_manifest(name) for name in settings.blocks} or msgspec.UNSET,
        loudness_lufs=msgspec.UNSET if settings.loudness_lufs is None else settings.loudness_lufs,
    )
    files = describe_files(folder)
    return Manifest(
        contract=CONTRACT,
        release_id=release_id(configuration, files),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=version("tastewave"),
        configuration=configuration,
        files=files,
        training=_describe(settings.training, tracks, trained),
        metrics={name: round(value, 4) for name, value in trained.metrics.items()},
    )
