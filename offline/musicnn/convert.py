"""The published musicnn checkpoints -> ONNX files (needs the musicnn package and TensorFlow, to read them)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from models.errors import SettingsError
from offline.files import new_file, writing
from offline.musicnn.graph import build

NETWORKS = {"msd": "musicnn-msd.onnx", "mtt": "musicnn-mtt.onnx"}
"""The file of each network in a release."""
CHECKPOINTS = {"msd": "MSD_musicnn", "mtt": "MTT_musicnn"}
"""The folder of each network's checkpoint in the musicnn package."""


class ConvertMusicnn(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of `tastewave-offline convert-musicnn`."""

    out: Annotated[str, Meta(description="Folder to write to; made where it is missing.")]


@dataclass(frozen=True, kw_only=True)
class NetworkFile:
    """A network as an ONNX file."""

    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Converted:
    """The files that were written, one for each of NETWORKS."""

    files: tuple[NetworkFile, ...]

    def lines(self) -> list[str]:
        """A file a line."""
        return [f"{file.path}  {file.size_bytes / 1e6:.1f} MB  sha256 {file.sha256}" for file in self.files]


def run(settings: ConvertMusicnn) -> Converted:
    """Write an ONNX file for each of NETWORKS, the same bytes every time.

    Raises:
        SettingsError: musicnn or TensorFlow is not installed, or the folder cannot be written.
    """
    out = Path(settings.out)
    with writing(out):
        return Converted(files=tuple(_write(out / file, published_weights(name)) for name, file in NETWORKS.items()))


def _write(path: Path, weights: dict[str, NDArray[np.float32]]) -> NetworkFile:
    content = build(weights).SerializeToString(deterministic=True)
    with new_file(path) as draft:
        draft.write_bytes(content)
    return NetworkFile(path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def published_weights(name: str) -> dict[str, NDArray[np.float32]]:
    """The variables of a published checkpoint by name; `name` is a key of CHECKPOINTS.

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

    reader: Any = NewCheckpointReader(f"{Path(package.origin).parent / CHECKPOINTS[name]}/")
    return {variable: reader.get_tensor(variable) for variable in sorted(reader.get_variable_to_shape_map())}
