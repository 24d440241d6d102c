"""User towers and releases that carry one, made in seconds: the weights are drawn, and nothing is learned."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from models.artists import ARTIST_EMBEDDING, ARTISTS_MANIFEST
from models.history import CountingRule
from models.release import DEFAULT, MANIFEST, Configuration, load_release, release_id
from models.sealed_folder import describe_files
from models.user_tower import TOWER_MANIFEST, load_user_tower
from offline.files import write_json
from offline.user_tower.settings import Pooling

DIM = 40
GLOBAL = tuple(np.eye(DIM)[0].tolist())
"""The embedding of users without a usable listen: far from all others."""
ENCODER = "audio-encoder.onnx"


def write_tower(folder: Path, track_ids: Iterable[str], *, history: int = 50, pooling: Pooling = "mean") -> Path:
    """A tower that knows these tracks. The same tracks get the same tower."""
    import torch

    from offline.user_tower.export import export
    from offline.user_tower.networks import Items, Tower

    ids = sorted(track_ids, key=str.encode)
    torch.manual_seed(0)
    tower = Tower(pooling, dim=DIM, history=history, dropout=0.1)
    for weight in tower.parameters():  # what begins at zero has to count too
        torch.nn.init.normal_(weight, std=0.3)
    export(
        tower, Items(torch.randn(len(ids), DIM), sparse=False), out=folder, ids=ids, global_embedding=GLOBAL,
        pooling=pooling, counting=CountingRule(), training={"trained_until_ms": 1_767_225_600_000},
    )  # fmt: skip
    return folder


def write_release(folder: Path, tower: Path, *, audio_encoder: bool = False) -> Path:
    """The shipped release with a tower; it may also say that it has an audio encoder, which nothing reads."""
    shutil.copytree(DEFAULT, folder)
    shutil.copytree(tower, folder, dirs_exist_ok=True)
    manifest = load_release().manifest
    (folder / MANIFEST).unlink()
    configuration = msgspec.structs.replace(
        manifest.configuration, embedding_dim=load_user_tower(tower).manifest.dim, user_tower=TOWER_MANIFEST
    )
    if audio_encoder:
        (folder / ENCODER).write_bytes(b"an encoder")
        configuration = msgspec.structs.replace(configuration, audio_encoder=ENCODER)
    return _sealed(folder, configuration)


def write_release_that_hears_artists(folder: Path, genre_of: dict[str, str]) -> Path:
    """The shipped release with a head that also hears artists: the genre of a known one is what it guesses."""
    from offline.genre.artists import write_artist_table

    manifest = load_release().manifest
    plain = replace(load_release().genre_head(), kinds=None)
    classes = np.eye(len(plain.classes))
    table = folder.with_name("artists")
    table.mkdir()
    vectors = classes[[plain.classes.index(genre) for genre in genre_of.values()]].astype(np.float32)
    write_artist_table(table, list(genre_of), vectors, training={})
    head = replace(
        plain,
        inputs=(*plain.inputs, ARTIST_EMBEDDING),
        exponents=np.ones(50 + len(classes)),
        projection=np.vstack([np.zeros((50, len(classes))), classes]),
        offset=np.zeros(len(classes)),
        vectors=classes,
        labels=np.arange(len(classes)),
        weights=classes,
        biases=np.zeros(len(classes)),
        gamma=1.0,
        plain=plain,
    )
    shutil.copytree(DEFAULT, folder)
    shutil.copytree(table, folder, dirs_exist_ok=True)
    (folder / MANIFEST).unlink()
    (folder / manifest.configuration.genre_head).write_bytes(head.to_bytes())
    return _sealed(folder, msgspec.structs.replace(manifest.configuration, artist_table=ARTISTS_MANIFEST))


def _sealed(folder: Path, configuration: Configuration) -> Path:
    """Write the manifest of a release whose files are in the folder."""
    files = describe_files(folder)
    changes = {"release_id": release_id(configuration, files), "configuration": configuration, "files": files}
    write_json(folder / MANIFEST, msgspec.structs.replace(load_release().manifest, **changes))
    return folder
