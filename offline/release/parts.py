"""User towers and audio encoders as parts of a release.

The files of an encoder are called after its manifest there, so that many fit in. A release says of a training what the
next one would find again, and neither where its files lay nor how fast it went: so a rebuild gives the same release_id,
and nobody reads there how a machine is set up.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from models.audio_encoder import ENCODER_MANIFEST, load_audio_encoder, network_of
from models.sealed_folder import SealedFile
from models.user_tower import TOWER_MANIFEST, load_user_tower
from offline.files import write_json

_OF_A_RUN = {"where", "examples_per_s", "seconds"}
_PLACES = {"log", "forgotten", "store", "features", "tower", "encoder", "held_out", "out"}
"""A text of such a name says where something lies."""


def block_manifest(name: str) -> str:
    """The manifest, in a release, of a further network for the genre head."""
    return f"block-{name}.json"


def beside(manifest_name: str, name: str) -> str:
    """The name, in a release, of a file that lies beside the network of an encoder."""
    return f"{Path(manifest_name).stem}-{name}"


def copy_encoder(source: Path, folder: Path, *, manifest_name: str) -> None:
    """Copy an audio encoder into the folder of a release.

    Args:
        source: folder of the encoder.
        folder: of the release.
        manifest_name: that the encoder's manifest gets there.

    Raises:
        ReleaseError: as models.audio_encoder.load_audio_encoder.
    """
    manifest = load_audio_encoder(source).manifest
    files = dict[str, SealedFile]()
    for name, file in manifest.files.items():
        is_network = name == network_of(ENCODER_MANIFEST)
        copy = network_of(manifest_name) if is_network else beside(manifest_name, name)
        shutil.copyfile(source / name, folder / copy)
        files[copy] = file
    training = _lasting(manifest.training)
    write_json(folder / manifest_name, msgspec.structs.replace(manifest, files=files, training=training))


def copy_tower(source: Path, folder: Path) -> None:
    """Copy a user tower into the folder of a release.

    Raises:
        ReleaseError: as models.user_tower.load_user_tower.
    """
    manifest = load_user_tower(source).manifest
    for name in manifest.files:
        shutil.copyfile(source / name, folder / name)
    training = _lasting(manifest.training)
    write_json(folder / TOWER_MANIFEST, msgspec.structs.replace(manifest, training=training))


def _lasting(content: Any) -> Any:
    """What is said of a training, at any depth, without what is of that run alone."""
    if isinstance(content, list | tuple):
        return [_lasting(part) for part in content]
    if not isinstance(content, Mapping):
        return content
    return {
        name: _lasting(value)
        for name, value in content.items()
        if name not in _OF_A_RUN and not (name in _PLACES and isinstance(value, str))
    }
