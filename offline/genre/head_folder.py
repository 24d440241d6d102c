"""What `train-genre` writes and `build-release` takes: a genre head, how it hears, and its figures, sealed.

genre.json names the files: genre.npz is the head (models.genre), metrics.json has all figures of the training and
report.html shows them, and the table of artists that the head hears lies beside them (models.artists).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from models.artists import ARTIST_EMBEDDING, ARTISTS_MANIFEST
from models.audio_encoder import ENCODER_MANIFEST, EncoderManifest, network_of
from models.errors import ReleaseError
from models.genre import GenreHead
from models.sealed_folder import SealedFile, SealedKind, load_sealed

GENRE_HEAD, HEAD_MANIFEST, METRICS, REPORT = "genre.npz", "genre.json", "metrics.json", "report.html"
_ADVICE = "train it again with `tastewave-offline train-genre`"


class HeadManifest(msgspec.Struct, frozen=True, kw_only=True):
    """genre.json.

    Attributes:
        front_end, sample_rate, windows, window_s, loudness_lufs: how the audio was heard, as in models.release.
        networks: those that heard it (mtt, msd), each with 12 hex digits of the SHA-256 of its file.
        encoders: the audio encoders that heard it, by the names of their features, each with its encoder_hash.
        files: size and SHA-256 of each file.
        training: on what, and with which settings.
        metrics: the figures that a release shows; metrics.json has the others as well.
    """

    front_end: str
    sample_rate: int
    windows: int
    window_s: int
    networks: dict[str, str]
    encoders: dict[str, str] = {}
    loudness_lufs: float | msgspec.UnsetType = msgspec.UNSET
    files: dict[str, SealedFile]
    training: dict[str, Any]
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadFolder:
    """A verified folder of a trained head.

    Attributes:
        manifest: what it is.
        folder: where its files are on this machine.
        head: that it holds.
    """

    manifest: HeadManifest
    folder: Path
    head: GenreHead

    @property
    def artist_files(self) -> tuple[str, ...]:
        """The files of the table of artists, which go where the head goes; none where it hears no artists."""
        return tuple(name for name in self.manifest.files if name not in (GENRE_HEAD, METRICS, REPORT))


def encoder_hash(manifest: EncoderManifest) -> str:
    """12 hex digits over the network of an audio encoder and how it hears: equal ones give equal vectors."""
    network = manifest.files[network_of(ENCODER_MANIFEST)].sha256
    content = msgspec.json.encode([network, manifest.input, manifest.window_s, manifest.unit_norm], order="sorted")
    return hashlib.sha256(content).hexdigest()[:12]


def load_head_folder(where: str | Path) -> HeadFolder:
    """Read and verify what `tastewave-offline train-genre` wrote, in a folder or at an fsspec URL.

    Raises:
        ReleaseError: it is missing, damaged, or its parts do not fit together.
    """
    return load_sealed(where, _HEAD, make=_open)


def _decode(content: bytes, _: str) -> HeadManifest:
    return msgspec.json.decode(content, type=HeadManifest)


def _check(manifest: HeadManifest, shown: str) -> None:
    if missing := {GENRE_HEAD, METRICS} - manifest.files.keys():
        raise ReleaseError(f"{HEAD_MANIFEST} of {shown} does not list {', '.join(sorted(missing))}; {_ADVICE}")


_HEAD = SealedKind(what="a trained genre head", manifest=HEAD_MANIFEST, decode=_decode, check=_check, advice=_ADVICE)


def _open(manifest: HeadManifest, folder: Path) -> HeadFolder:
    head = GenreHead.load(folder / GENRE_HEAD)
    if (ARTIST_EMBEDDING in head.inputs) != (ARTISTS_MANIFEST in manifest.files):
        raise ReleaseError(f"the head in {folder} hears artists without their table, or the reverse; {_ADVICE}")
    return HeadFolder(manifest=manifest, folder=folder, head=head)
