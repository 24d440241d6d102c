"""User towers and releases that carry one, made in seconds: the weights are drawn, and nothing is learned."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from models.artists import ARTIST_EMBEDDING, ARTISTS_MANIFEST
from models.audio_encoder import ENCODER_MANIFEST, load_audio_encoder
from models.genre import GenreHead
from models.history import CountingRule
from models.release import DEFAULT, MANIFEST, Configuration, load_release, release_id
from models.sealed_folder import describe_files
from models.user_tower import ITEM_IDS, ITEM_VECTORS, TOWER_MANIFEST, encode_ids, load_user_tower
from offline.files import write_json
from offline.release.encoders import block_manifest, copy_encoder
from offline.user_tower.settings import Pooling

DIM = 40
GLOBAL = tuple(np.eye(DIM)[0].tolist())
"""The embedding of users without a usable listen: far from all others."""


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


def with_tracks(tower: Path, folder: Path, track_ids: Iterable[str]) -> Path:
    """A copy of a tower that knows other tracks: its network fits any, and to write it as ONNX takes seconds."""
    ids = sorted(track_ids, key=str.encode)
    vectors = np.random.default_rng(0).standard_normal((len(ids), DIM)).astype(np.float32)
    manifest = load_user_tower(tower).manifest
    shutil.copytree(tower, folder)
    (folder / TOWER_MANIFEST).unlink()
    np.save(folder / ITEM_IDS, encode_ids(ids))
    np.save(folder / ITEM_VECTORS, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    write_json(folder / TOWER_MANIFEST, msgspec.structs.replace(manifest, items=len(ids), files=describe_files(folder)))
    return folder


def write_release(
    folder: Path,
    tower: Path | None,
    *,
    audio_encoder: Path | None = None,
    blocks: Mapping[str, Path] = MappingProxyType({}),
    head: GenreHead | None = None,
) -> Path:
    """The shipped release with a tower, with audio encoders (tests.platform.encoders), or with another head."""
    shutil.copytree(DEFAULT, folder)
    manifest = load_release().manifest
    (folder / MANIFEST).unlink()
    changes: dict[str, Any] = {}
    if audio_encoder:
        copy_encoder(audio_encoder, folder, manifest_name=ENCODER_MANIFEST)
        changes |= {"audio_encoder": ENCODER_MANIFEST, "embedding_dim": load_audio_encoder(audio_encoder).manifest.dim}
    if tower:
        shutil.copytree(tower, folder, dirs_exist_ok=True)
        changes |= {"user_tower": TOWER_MANIFEST, "embedding_dim": load_user_tower(tower).manifest.dim}
    for name, source in blocks.items():
        copy_encoder(source, folder, manifest_name=block_manifest(name))
    if blocks:
        changes["blocks"] = {name: block_manifest(name) for name in blocks}
    if head:
        (folder / manifest.configuration.genre_head).write_bytes(head.to_bytes())
    return _sealed(folder, msgspec.structs.replace(manifest.configuration, **changes))


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
