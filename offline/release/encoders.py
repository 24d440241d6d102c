"""Audio encoders as parts of a release: their files are called after their manifest there, so that many fit in."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from models.audio_encoder import ENCODER_MANIFEST, load_audio_encoder, network_of
from models.sealed_folder import SealedFile
from offline.files import write_json


def block_manifest(name: str) -> str:
    """The manifest, in a release, of a further network for the genre head."""
    return f"block-{name}.json"


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
        copy = network_of(manifest_name) if is_network else f"{Path(manifest_name).stem}-{name}"
        shutil.copyfile(source / name, folder / copy)
        files[copy] = file
    write_json(folder / manifest_name, msgspec.structs.replace(manifest, files=files))
