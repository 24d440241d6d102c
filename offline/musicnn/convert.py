"""The published musicnn checkpoints -> ONNX files (needs the musicnn package and TensorFlow, to read them)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import models
from models.errors import SettingsError
from offline.musicnn.graph import build

NETWORKS = {"msd": "musicnn-msd.onnx", "mtt": "musicnn-mtt.onnx"}
"""The file of each network in a release."""
MODELS = {"msd": "MSD_musicnn", "mtt": "MTT_musicnn"}
"""Our name of each network, and the folder of its checkpoint in the musicnn package."""

DEFAULT_RELEASE = Path(models.__file__).parent / "releases" / "default"
"""The release that ships with the project."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A file that convert_musicnn wrote."""

    path: Path
    size_bytes: int
    sha256: str


def convert_musicnn(out_dir: Path) -> list[Converted]:
    """Write musicnn-msd.onnx and musicnn-mtt.onnx, the same bytes every time.

    Args:
        out_dir: folder to write to; made where it is missing.

    Raises:
        SettingsError: musicnn or TensorFlow is not installed.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    return [_write(out_dir / f"musicnn-{name}.onnx", published_weights(name)) for name in MODELS]


def _write(path: Path, weights: dict[str, NDArray[np.float32]]) -> Converted:
    content = build(weights).SerializeToString(deterministic=True)
    path.write_bytes(content)
    return Converted(path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def published_weights(name: str) -> dict[str, NDArray[np.float32]]:
    """The variables of a published checkpoint by name; name is a key of MODELS.

    Raises:
        SettingsError: musicnn or TensorFlow is not installed.
    """
    package = find_spec("musicnn")
    if package is None or package.origin is None or find_spec("tensorflow") is None:
        raise SettingsError(
            "converting musicnn needs the packages musicnn 0.1.0 and tensorflow, and one is not installed; "
            "install the offline and musicnn sets"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # tf.train.load_checkpoint does not find checkpoints whose files have no name before the dot, as these
    from tensorflow.python.training.py_checkpoint_reader import (  # pyright: ignore[reportMissingImports]
        NewCheckpointReader,
    )

    reader: Any = NewCheckpointReader(f"{Path(package.origin).parent / MODELS[name]}/")
    return {variable: reader.get_tensor(variable) for variable in sorted(reader.get_variable_to_shape_map())}
