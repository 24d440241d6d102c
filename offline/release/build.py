"""Building a release: the converted networks and a trained genre head in one folder, with its manifest."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from models.audio.windows import WindowPlan
from models.contract import CONTRACT
from models.errors import SettingsError
from models.genre import DISTANCE
from models.mel import FRONT_END, MUSICNN
from models.release import MANIFEST, Configuration, Manifest, Release, describe_file, load_release, release_id
from offline.files import check_replaceable, new_folder
from offline.genre.labels import LabelledTaggrams, read_artists, read_taggrams
from offline.genre.train import GenreTraining, Trained, run

NETWORKS = {"msd": "musicnn-msd.onnx", "mtt": "musicnn-mtt.onnx"}
GENRE_HEAD = "genre.npz"
NOTICE = "LICENSE-musicnn.txt"


def build_release(taggrams_dir: Path, *, out: Path, networks_dir: Path, config: GenreTraining | None = None) -> Release:
    """Train the genre head and write a release: the same release_id from the same data on the same machine.

    Args:
        taggrams_dir: folder of train.npz (X, Y, IDS) and train_artists.csv (track, artist).
        out: folder to make; a release there is replaced.
        networks_dir: folder of the converted networks and their licence (offline.musicnn.convert); may be `out`.
        config: of the training.

    Raises:
        SettingsError: the data or the networks cannot be used, or `out` is a folder of something else.
    """
    config = config or GenreTraining()
    for name in (*NETWORKS.values(), NOTICE):
        if not (networks_dir / name).is_file():
            raise SettingsError(
                f"{networks_dir} has no {name}; convert the networks with `tastewave-offline convert-musicnn`"
            )
    if out.resolve() != networks_dir.resolve():
        check_replaceable(out, MANIFEST)
    tracks = read_taggrams(taggrams_dir / "train.npz", classes=len(config.classes))
    artists = read_artists(taggrams_dir / "train_artists.csv", tracks.ids)
    trained = run(config, taggrams=tracks.taggrams, labels=tracks.labels, artists=artists)
    return _write(out, networks_dir=networks_dir, trained=trained, training=_training(config, tracks, trained))


def _training(config: GenreTraining, tracks: LabelledTaggrams, trained: Trained) -> dict[str, Any]:
    return {
        "data_sha256": tracks.fingerprint,
        "tracks": len(tracks.ids),
        "patches": sum(map(len, tracks.taggrams)),
        "gamma": trained.gamma,
        "ridge": trained.ridge,
        "min_confidence": trained.head.min_confidence,
        "max_distance": trained.head.max_distance,
        "distance": DISTANCE,
        "config": msgspec.to_builtins(config),
    }


def _write(out: Path, *, networks_dir: Path, trained: Trained, training: dict[str, Any]) -> Release:
    """Write the release as a whole: nobody reads half of one."""
    with new_folder(out) as folder:
        for name in (*NETWORKS.values(), NOTICE):
            shutil.copyfile(networks_dir / name, folder / name)
        (folder / GENRE_HEAD).write_bytes(trained.head.to_bytes())
        (folder / MANIFEST).write_bytes(_manifest(folder, trained=trained, training=training))
        load_release(folder).genre_head()
    return load_release(out)


def _manifest(folder: Path, *, trained: Trained, training: dict[str, Any]) -> bytes:
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
    )
    files = {path.name: describe_file(path) for path in sorted(folder.iterdir())}
    manifest = Manifest(
        contract=CONTRACT,
        release_id=release_id(configuration, files),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=version("tastewave"),
        configuration=configuration,
        files=files,
        training=training,
        metrics={name: round(value, 4) for name, value in trained.metrics.items()},
    )
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
