"""The checkpoint of a training: its networks, optimisers and course in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from errno import EIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from offline.files import new_file

Course = list[dict[str, float]]
"""What each validation of a training told: step, loss, valid_ndcg_at_10, examples, seconds."""


def save_checkpoint(
    path: Path,
    *,
    key: str,
    course: Course,
    networks: Mapping[str, nn.Module],
    optimisers: Sequence[torch.optim.Optimizer],
) -> None:
    """Write a checkpoint; one that is there is replaced when the new one is whole.

    Args:
        path: of the file.
        key: of what is trained; load_checkpoint takes up a checkpoint of the same key alone.
        course: up to now.
        networks: by name.
        optimisers: in an order that stays.

    Raises:
        OSError: the disk does not take it.
    """
    tensors = {
        f"{part}/{name}": tensor for part, network in networks.items() for name, tensor in network.state_dict().items()
    }
    for number, optimiser in enumerate(optimisers):
        for place, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{number}/{place}/{name}": torch.as_tensor(v) for name, v in state.items()}
    with new_file(path) as draft:
        try:
            save_file(tensors, draft, metadata={"key": key, "course": json.dumps(course)})
        except SafetensorError as error:  # safetensors wraps the disk's error, and keeps nothing of it but the text
            raise OSError(EIO, str(error), str(path)) from error


def load_checkpoint(
    path: Path, *, key: str, networks: Mapping[str, nn.Module], optimisers: Sequence[torch.optim.Optimizer]
) -> Course:
    """Fill networks and optimisers from a checkpoint: its course, which is empty where there is none of that key."""
    if not path.exists():
        return []
    with safe_open(path, framework="pt") as file:
        if file.metadata()["key"] != key:
            return []
        course: Course = json.loads(file.metadata()["course"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for part, network in networks.items():
        network.load_state_dict({name: tensors[f"{part}/{name}"] for name in network.state_dict()})
    for number, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"optimiser/{number}/"):
                _, _, place, what = name.split("/")
                # SparseAdam counts its steps in Python, AdamW in a tensor.
                value = tensor if tensor.is_floating_point() else tensor.item()
                state.setdefault(int(place), {})[what] = value
        optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    return course
