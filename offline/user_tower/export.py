"""Writing a trained tower: ONNX, item table and manifest, as models.user_tower reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from models.errors import SettingsError
from models.history import CountingRule, Signal
from models.onnx_session import open_session
from models.sealed_folder import describe_files
from models.user_tower import (
    ITEM_IDS,
    ITEM_VECTORS,
    NETWORK,
    TOWER_MANIFEST,
    TowerManifest,
    encode_ids,
    load_user_tower,
)
from offline.files import new_folder, write_json
from offline.onnx_export import write_onnx
from offline.user_tower.networks import Items, Tower

WEIGHTS = "tower.safetensors"
"""The network's weights, which `fine-tune-tower` begins with."""

TOLERANCE = 1e-5
"""Largest difference between ONNX Runtime's and PyTorch's embeddings."""


def export(
    tower: Tower,
    items: Items,
    *,
    out: Path,
    ids: Sequence[str],
    global_embedding: tuple[float, ...],
    pooling: str,
    counting: CountingRule,
    training: dict[str, Any],
) -> None:
    """Write a tower's folder; one that is there is replaced.

    Args:
        tower: trained.
        items: trained with it.
        out: the folder.
        ids: (items,) of the tracks, in the order of the items, which is that of their bytes.
        global_embedding: (dim,), as in TowerManifest.
        pooling: as in TowerManifest.
        counting: as in TowerManifest.
        training: as in TowerManifest.

    Raises:
        SettingsError: ONNX Runtime does not give what PyTorch does.
    """
    tower, items = tower.cpu().eval(), items.cpu().eval()
    with torch.inference_mode():
        vectors = items().numpy()
    with new_folder(out) as folder:
        np.save(folder / ITEM_IDS, encode_ids(ids))
        np.save(folder / ITEM_VECTORS, vectors)
        write_network(tower, folder / NETWORK, dim=vectors.shape[1])
        check_network(tower, folder / NETWORK, vectors)
        (folder / WEIGHTS).write_bytes(save(tower.state_dict()))
        manifest = TowerManifest(
            pooling=pooling,
            dim=vectors.shape[1],
            history=tower.history,
            counting=counting,
            scale=items.scale.item(),
            global_embedding=global_embedding,
            items=len(vectors),
            files=describe_files(folder),
            training=training,
        )
        write_json(folder / TOWER_MANIFEST, manifest)
        load_user_tower(folder)


def write_network(tower: Tower, path: Path, *, dim: int) -> None:
    """Write the tower as ONNX, for any number of histories of its length: vectors, signals, ages_s -> embedding."""
    example = _histories(np.zeros((1, dim), np.float32), count=2, history=tower.history)
    names = ("vectors", "signals", "ages_s")
    tensors = [torch.from_numpy(array) for array in example]
    write_onnx(tower, tensors, path, inputs=names, output="embedding", first_dim="histories")


def check_network(tower: Tower, path: Path, vectors: NDArray[np.float32]) -> None:
    """Raise SettingsError where ONNX Runtime's embeddings are not PyTorch's."""
    inputs = _histories(vectors, count=64, history=tower.history)
    (of_onnx,) = open_session(path).run(None, dict(zip(("vectors", "signals", "ages_s"), inputs, strict=True)))
    with torch.inference_mode():
        of_torch = tower(*map(torch.from_numpy, inputs)).numpy()
    if (apart := float(np.abs(of_onnx - of_torch).max())) > TOLERANCE:
        raise SettingsError(f"ONNX Runtime's embeddings differ from PyTorch's by {apart:.1e}; report this as a bug")


def _histories(vectors: NDArray[np.float32], *, count: int, history: int) -> tuple[NDArray[Any], ...]:
    """Random histories of all lengths as the network takes them."""
    rng = np.random.default_rng(0)
    places = np.arange(history) >= history - rng.integers(1, history + 1, (count, 1))
    signals = np.where(places, rng.integers(1, len(Signal), (count, history)), 0)
    ages_s = np.where(places, np.cumsum(rng.exponential(1e4, (count, history))[:, ::-1], axis=1)[:, ::-1], 0.0)
    return vectors[rng.integers(len(vectors), size=(count, history))] * places[..., None], signals, ages_s
