"""Building a release: networks, a genre head, a tower and audio encoders in one folder, with manifest and card."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.artists import ARTIST_EMBEDDING, ARTISTS_MANIFEST
from models.audio.windows import WindowPlan
from models.audio_encoder import ENCODER_MANIFEST, EncoderManifest, load_audio_encoder, read_encoder_manifest
from models.contract import CONTRACT
from models.errors import SettingsError
from models.features import EMBEDDING, embedding_of, feature_width
from models.genre import DISTANCE, GenreHead
from models.mel import FRONT_END, MUSICNN
from models.release import DEFAULT, MANIFEST, Configuration, Manifest, Release, load_release, release_id
from models.sealed_folder import describe_file, describe_files
from models.user_tower import TOWER_MANIFEST, TowerManifest, load_user_tower
from offline.files import check_replaceable, new_folder, write_json, writing
from offline.genre.head_folder import GENRE_HEAD, HeadFolder, encoder_hash, load_head_folder
from offline.genre.labels import LabelledTaggrams, read_artists, read_embeddings, read_taggrams
from offline.genre.settings import GenreTraining
from offline.genre.train import Trained, train
from offline.musicnn.convert import NETWORKS
from offline.release.card import with_card
from offline.release.parts import block_manifest, copy_encoder, copy_tower
from offline.release.settings import BuildRelease

NOTICE = "LICENSE-musicnn.txt"
_HEARING = ("front_end", "sample_rate", "windows", "window_s", "loudness_lufs")


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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Genre:
    """The genre head of a release.

    Attributes:
        head: that decides.
        hearing: the fields of the configuration that say how the audio of its training was heard.
        training: what the manifest says of the training.
        metrics: likewise.
    """

    head: GenreHead
    hearing: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, float]


def run(settings: BuildRelease) -> Outcome:
    """Train the genre head, or take one, and write a release: the same release_id from the same data and machine.

    Where neither taggrams nor a head are named, the release gets the head of the release that ships with the project.

    A release that is there is replaced, as a whole and at the end.

    Raises:
        SettingsError: the data or the networks cannot be used, or `out` is a folder of something else,
            is written by another run, or cannot be written.
        ReleaseError: the tower, an audio encoder or the genre head cannot be used, or they do not fit together.
    """
    out = Path(settings.out)
    networks_dir = Path(settings.networks or DEFAULT)
    _check_folders(out, networks_dir)
    tower = load_user_tower(Path(settings.tower)) if settings.tower else None
    encoder = load_audio_encoder(Path(settings.audio_encoder)) if settings.audio_encoder else None
    if settings.taggrams_dir and settings.genre_head:
        raise SettingsError("a release has one genre head; name a folder of taggrams or one of --genre-head")
    taken = load_head_folder(settings.genre_head) if settings.genre_head else None
    if settings.taggrams_dir:
        _check_blocks(settings, [block.name for block in settings.training.inputs])
        genre = _trained(settings, Path(settings.taggrams_dir))
    elif taken:
        _check_blocks(settings, set(taken.head.inputs) - {ARTIST_EMBEDDING})  # a table of artists comes with a head
        genre = _taken(settings, taken, networks_dir)
    else:
        genre = _shipped(settings, load_release(), networks_dir)
        _check_blocks(settings, genre.head.inputs)
    with writing(out), new_folder(out) as folder:
        for name in (*NETWORKS.values(), NOTICE):
            shutil.copyfile(networks_dir / name, folder / name)
        (folder / GENRE_HEAD).write_bytes(genre.head.to_bytes())
        if taken:
            for name in taken.artist_files:
                shutil.copyfile(taken.folder / name, folder / name)
        if settings.tower and tower:
            copy_tower(Path(settings.tower), folder)
        if settings.audio_encoder:
            copy_encoder(Path(settings.audio_encoder), folder, manifest_name=ENCODER_MANIFEST)
        for name, source in settings.blocks.items():
            copy_encoder(Path(source), folder, manifest_name=block_manifest(name))
        placing = [part.manifest for part in (tower, encoder) if part]
        manifest = _manifest(folder, genre, settings, placing)
        write_json(folder / MANIFEST, with_card(manifest, folder))
        _try(load_release(folder))
    return Outcome(release=load_release(out))


def _trained(settings: BuildRelease, taggrams_dir: Path) -> _Genre:
    """A head that is trained on taggrams."""
    training = settings.training
    tracks = read_taggrams(taggrams_dir / "train.npz", classes=len(training.classes))
    artists = read_artists(taggrams_dir / "train_artists.csv", tracks.ids)
    heard = _heard(training, tracks, taggrams_dir)
    trained = train(training, tracks=heard, labels=tracks.labels, artists=artists)
    plan = WindowPlan()
    return _Genre(
        head=trained.head,
        hearing={
            "front_end": FRONT_END,
            "sample_rate": MUSICNN.sample_rate,
            "windows": plan.count,
            "window_s": plan.window_s,
            "loudness_lufs": msgspec.UNSET if settings.loudness_lufs is None else settings.loudness_lufs,
        },
        training=_describe(training, tracks, trained),
        metrics={name: round(value, 4) for name, value in trained.metrics.items()},
    )


def _taken(settings: BuildRelease, taken: HeadFolder, networks_dir: Path) -> _Genre:
    """A head that `train-genre` wrote.

    Raises:
        SettingsError: it was trained on what other networks or audio encoders, or another loudness, gave.
    """
    manifest = taken.manifest
    _check_heard(settings, networks_dir, networks=manifest.networks, loudness_lufs=manifest.loudness_lufs)
    folders = {embedding_of(name): where for name, where in settings.blocks.items()}
    if settings.audio_encoder:
        folders[EMBEDDING] = settings.audio_encoder
    for feature, expected in manifest.encoders.items():
        if feature not in folders:
            raise SettingsError(f"the genre head hears {feature}; name the folder of the audio encoder that gives it")
        if encoder_hash(read_encoder_manifest(Path(folders[feature], ENCODER_MANIFEST))) != expected:
            raise SettingsError(
                f"the genre head heard another audio encoder as {feature} than that in {folders[feature]}; name that "
                "of its training, or train it again"
            )
    return _Genre(
        head=taken.head,
        hearing={name: getattr(manifest, name) for name in _HEARING},
        training=manifest.training,
        metrics=manifest.metrics,
    )


def _shipped(settings: BuildRelease, release: Release, networks_dir: Path) -> _Genre:
    """The head of the release that ships with the project.

    Raises:
        SettingsError: it was trained on what other networks, or another loudness, gave.
    """
    configuration, manifest = release.configuration, release.manifest
    _check_heard(settings, networks_dir, networks=release.network_hashes, loudness_lufs=configuration.loudness_lufs)
    return _Genre(
        head=release.genre_head(),
        hearing={name: getattr(configuration, name) for name in _HEARING},
        training=manifest.training,
        metrics=manifest.metrics,
    )


def _check_heard(
    settings: BuildRelease,
    networks_dir: Path,
    *,
    networks: Mapping[str, str],
    loudness_lufs: float | msgspec.UnsetType,
) -> None:
    """Raise SettingsError where a head that is there heard other networks or another loudness than are asked for."""
    for model, expected in networks.items():
        if (got := describe_file(networks_dir / NETWORKS[model]).sha256[:12]) != expected:
            raise SettingsError(
                f"the genre head heard the {model} network {expected}, {networks_dir} has {got}; name the folder of "
                "the networks of its training, or train it again"
            )
    if settings.loudness_lufs is not None and settings.loudness_lufs != loudness_lufs:
        raise SettingsError("the genre head says how loud its training was; leave loudness_lufs out")


def _try(release: Release) -> None:
    """Raise ReleaseError where the head, the tower or an audio encoder of a release cannot be loaded."""
    release.genre_head()
    release.audio_encoder()
    release.blocks()
    if release.configuration.user_tower is not msgspec.UNSET:
        release.user_tower()


def _heard(
    training: GenreTraining, tracks: LabelledTaggrams, taggrams_dir: Path
) -> list[dict[str, NDArray[np.float32]]]:
    """What is known of each track; an embedding only of those that have one."""
    heard = tracks.features(patch_step=training.patch_step)
    for name in (block.name for block in training.inputs if feature_width(block.name) is None):
        embeddings = read_embeddings(taggrams_dir / f"{name}s.npz")
        for features, track in zip(heard, tracks.ids, strict=True):
            if track in embeddings:
                features[name] = embeddings[track]
    return heard


def _check_blocks(settings: BuildRelease, hears: Iterable[str]) -> None:
    """Raise SettingsError where the head does not hear a network that the release is to carry, or one that it lacks."""
    inputs = {name for name in hears if feature_width(name) is None} - {EMBEDDING}
    carried = {embedding_of(name) for name in settings.blocks}
    if inputs != carried:
        raise SettingsError(
            f"the genre head hears the embeddings {sorted(inputs)}, blocks gives {sorted(carried)}; name the same "
            "networks in both"
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
    folder: Path, genre: _Genre, settings: BuildRelease, placing: Sequence[TowerManifest | EncoderManifest]
) -> Manifest:
    """The manifest of the files in a folder, which are those of a release.

    Args:
        folder: with all files but the card.
        genre: its head.
        settings: of the build.
        placing: the manifests of what places users and tracks.
    """
    caveats = [part.demonstration for part in placing if part.demonstration]
    heard = {name.partition(".")[0] for name in genre.head.inputs if feature_width(name)}
    if genre.head.kinds:
        heard.add(genre.head.kinds.network)
    files = describe_files(folder)
    configuration = Configuration(
        networks=NETWORKS,
        run=tuple(sorted(heard)) or ("msd",),
        genre_head=GENRE_HEAD,
        genres=genre.head.classes,
        embedding_dim=placing[0].dim if placing else None,
        user_tower=TOWER_MANIFEST if settings.tower else msgspec.UNSET,
        audio_encoder=ENCODER_MANIFEST if settings.audio_encoder else msgspec.UNSET,
        blocks={name: block_manifest(name) for name in settings.blocks} or msgspec.UNSET,
        artist_table=ARTISTS_MANIFEST if ARTISTS_MANIFEST in files else msgspec.UNSET,
        **genre.hearing,
    )
    return Manifest(
        contract=CONTRACT,
        release_id=release_id(configuration, files),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=version("tastewave"),
        configuration=configuration,
        files=files,
        training=genre.training,
        metrics=genre.metrics,
        demonstration=caveats[0] if caveats else msgspec.UNSET,
    )
