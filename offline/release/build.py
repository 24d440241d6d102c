"""Building a release: converted networks, a trained genre head and a user tower in one folder, with its manifest."""

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
from models.contract import CONTRACT
from models.errors import SettingsError
from models.genre import DISTANCE
from models.mel import FRONT_END, MUSICNN
from models.release import DEFAULT, MANIFEST, Configuration, Manifest, Release, load_release, release_id
from models.sealed_folder import describe_files
from models.user_tower import TOWER_MANIFEST, UserTower, load_user_tower
from offline.files import check_replaceable, new_folder, write_json, writing
from offline.genre.labels import LabelledTaggrams, read_artists, read_embeddings, read_taggrams
from offline.genre.settings import GenreTraining
from offline.genre.train import Trained, train
from offline.musicnn.convert import NETWORKS
from offline.release.settings import BuildRelease

GENRE_HEAD = "genre.npz"
NOTICE = "LICENSE-musicnn.txt"
EMBEDDING = "embedding"
"""The input that comes from listeners, in the taste space of the release."""


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
        ReleaseError: the tower cannot be used.
    """
    out = Path(settings.out)
    networks_dir = Path(settings.networks or DEFAULT)
    _check_folders(out, networks_dir)
    tower = load_user_tower(Path(settings.tower)) if settings.tower else None
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
        write_json(folder / MANIFEST, _manifest(folder, trained, settings, tracks, tower))
        _try(load_release(folder))
    return Outcome(release=load_release(out))


def _try(release: Release) -> None:
    """Raise ReleaseError where the head or the tower of a release cannot be loaded."""
    release.genre_head()
    if release.configuration.user_tower is not msgspec.UNSET:
        release.user_tower()


def _heard(settings: BuildRelease, tracks: LabelledTaggrams) -> list[dict[str, NDArray[np.float32]]]:
    """What is known of each track; an embedding only of those that have one."""
    heard = tracks.features(patch_step=settings.training.patch_step)
    if EMBEDDING in (block.name for block in settings.training.inputs):
        embeddings = read_embeddings(Path(settings.taggrams_dir, "embeddings.npz"))
        for features, track in zip(heard, tracks.ids, strict=True):
            if track in embeddings:
                features[EMBEDDING] = embeddings[track]
    return heard


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
    folder: Path, trained: Trained, settings: BuildRelease, tracks: LabelledTaggrams, tower: UserTower | None
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
        embedding_dim=tower.manifest.dim if tower else None,
        user_tower=TOWER_MANIFEST if tower else msgspec.UNSET,
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
