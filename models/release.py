"""A release: a folder, or the same at an fsspec URL, with a manifest and the files of one trained model.

    release = load_release()                      # the one that ships with the project
    release = load_release("s3://models/2026-11") # copied here, verified, read

manifest.json names every file with its size and SHA-256 (models.sealed_folder). release_id is the first 12 hex digits
of a hash over these and the configuration, not over when, by what code or how well it was made, nor over the model card
that tells it: a rebuild gives the same id. Loading verifies sizes, hashes, id and contract, and refuses a mismatch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from models.contract import CONTRACT
from models.errors import ReleaseError
from models.sealed_folder import SealedFile, SealedKind, load_sealed
from models.signature import check_signature

if TYPE_CHECKING:
    from models.artists import ArtistTable
    from models.audio_encoder import AudioEncoder, EncoderManifest
    from models.genre import GenreHead
    from models.musicnn import Musicnn
    from models.user_tower import UserTower

DEFAULT = Path(__file__).with_name("releases") / "default"
"""The release that ships with the project."""

MANIFEST = "manifest.json"
CARD = "card.md"
"""The model card, for people: sealed as the other files are, and no part of release_id."""
_ADVICE = "build it again with `tastewave-offline build-release`"
_USUAL_PLAN = (3, 30)


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """What a release does; together with its files, this is what release_id stands for.

    Attributes:
        front_end: version of waveform -> log-mel -> patches (models.mel.FRONT_END).
        sample_rate: Hz, of the front end.
        windows: most windows heard of a track.
        window_s: length of a window, s.
        networks: file of each musicnn model (mtt, msd) that the release carries.
        run: the models that workers run; the first one gives tags and taggram.
        genre_head: file of the genre head.
        genres: its class names.
        embedding_dim: dimensions of the taste space; None where the release has none.
        loudness_lufs: how loud what is heard is made first (models.audio.loudness), -70 to 0 LUFS;
            UNSET where it is heard as loud as it is.
        user_tower: manifest of the user tower, whose files lie beside it; UNSET where the release has none.
        audio_encoder: manifest of the audio encoder, whose files lie beside it; UNSET where the release has none. With
            one, tracks that the user tower does not know have an embedding as well.
        blocks: for each further network that the genre head hears, the manifest of an audio encoder; UNSET where there
            are none. What it gives is the feature `<name>.embedding` (models.features).
        artist_table: manifest of the table of artists that the genre head hears, whose files lie beside it; UNSET where
            the release has none.
    """

    front_end: str
    sample_rate: int
    windows: int
    window_s: int
    networks: dict[str, str]
    run: tuple[str, ...]
    genre_head: str
    genres: tuple[str, ...]
    embedding_dim: int | None = None
    # Unset, these are not in the ids of releases from before:
    loudness_lufs: Annotated[float, msgspec.Meta(ge=-70, le=0)] | msgspec.UnsetType = msgspec.UNSET
    user_tower: str | msgspec.UnsetType = msgspec.UNSET
    audio_encoder: str | msgspec.UnsetType = msgspec.UNSET
    blocks: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    artist_table: str | msgspec.UnsetType = msgspec.UNSET


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json.

    Attributes:
        contract: models.contract.CONTRACT.
        release_id: 12 hex digits.
        created: when, ISO 8601.
        code_version: of the package that built it.
        configuration: what it does.
        files: size and SHA-256 of each file.
        training: how the genre head was trained.
        metrics: how good the genre head is.
        demonstration: what has to be said of a taste space that was learned from a made-up platform, and is true for no
            other; UNSET for any other release.
    """

    contract: int
    release_id: str
    created: str
    code_version: str
    configuration: Configuration
    files: dict[str, SealedFile]
    training: dict[str, Any]
    metrics: dict[str, Any]
    demonstration: str | msgspec.UnsetType = msgspec.UNSET


def release_id(configuration: Configuration, files: Mapping[str, SealedFile]) -> str:
    """12 hex digits of the SHA-256 over the configuration and the hashes of the files, without the model card's."""
    hashes = {name: file.sha256 for name, file in files.items() if name != CARD}
    content = {"configuration": configuration, "files": hashes}
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()[:12]


class Release:
    """A verified release. Networks and head are loaded when they are asked for.

    Attributes:
        manifest: what it is.
        folder: where its files are on this machine.
    """

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        self.manifest = manifest
        self.folder = folder

    @property
    def release_id(self) -> str:
        """12 hex digits."""
        return self.manifest.release_id

    @property
    def configuration(self) -> Configuration:
        """What it does."""
        return self.manifest.configuration

    @property
    def front_end(self) -> str:
        """How it hears audio, such as `musicnn-1 at -20 LUFS`: features of equal ones can stand in for each other."""
        lufs = self.configuration.loudness_lufs
        return self.configuration.front_end + ("" if lufs is msgspec.UNSET else f" at {lufs:g} LUFS")

    @property
    def network_hashes(self) -> dict[str, str]:
        """The networks that workers run (mtt, msd), each with 12 hex digits of the SHA-256 of its file."""
        configuration, files = self.configuration, self.manifest.files
        return {model: files[configuration.networks[model]].sha256[:12] for model in configuration.run}

    @property
    def hearing(self) -> str:
        """The front end, and the windows that are heard where they are not three of 30 s, as on the features topic."""
        configuration = self.configuration
        plan = (configuration.windows, configuration.window_s)
        return self.front_end + ("" if plan == _USUAL_PLAN else f", {plan[0]} windows of {plan[1]} s")

    @property
    def encoder_hashes(self) -> dict[str, str]:
        """The audio encoders of the release, by the names of their manifests, each with 12 hex digits.

        They are the beginning of a SHA-256 over all that its vectors depend on: its files, what it takes, its windows
        and whether it gives unit norm. Encoders of two releases that have the same one can stand in for each other.
        """
        names = [*(self.configuration.blocks or {}).values(), self.configuration.audio_encoder or None]
        return {name: _encoder_hash((self.folder / name).read_bytes()) for name in names if name}

    @property
    def encoder_hashes_by_feature(self) -> dict[str, str]:
        """The same by the names of the features that the encoders give (models.features)."""
        from models.features import EMBEDDING, embedding_of

        hashes, configuration = self.encoder_hashes, self.configuration
        of_blocks = {embedding_of(name): hashes[manifest] for name, manifest in (configuration.blocks or {}).items()}
        return of_blocks | ({EMBEDDING: hashes[configuration.audio_encoder]} if configuration.audio_encoder else {})

    def network(self, model: str) -> Musicnn:
        """A musicnn network of the release (mtt, msd). Raises ReleaseError where it has none of that name."""
        from models.musicnn import Musicnn

        networks = self.configuration.networks
        if model not in networks:
            raise ReleaseError(f"release {self.release_id} has the networks {', '.join(networks)}, not {model}")
        return Musicnn(self.folder / networks[model])

    def genre_head(self) -> GenreHead:
        """The genre head.

        Raises ReleaseError when its classes are not those of the manifest, or the release lacks what the head hears or
        gives it in other widths.
        """
        from models.genre import GenreHead

        head = GenreHead.load(self.folder / self.configuration.genre_head)
        if head.classes != self.configuration.genres:
            raise ReleaseError(
                f"the genre head knows {head.classes}, the manifest {self.configuration.genres}; {_ADVICE}"
            )
        self._check_inputs(head)
        return head

    def _check_inputs(self, head: GenreHead) -> None:
        from models.artists import ARTIST_EMBEDDING
        from models.features import feature_width

        run, inputs = self.configuration.run, (*head.inputs, *(head.plain.inputs if head.plain else ()))
        deaf = [name for name in inputs if feature_width(name) and name.partition(".")[0] not in run]
        if deaf:
            raise ReleaseError(f"the genre head hears {deaf[0]}, the networks that run are {', '.join(run)}; {_ADVICE}")
        widths = self.embedding_widths()
        if ARTIST_EMBEDDING in inputs:
            if (artists := self.artist_table()) is None:
                raise ReleaseError(f"the genre head hears artists, and the release has no table of artists; {_ADVICE}")
            widths[ARTIST_EMBEDDING] = artists.manifest.dim
        head.check_widths(widths)

    def artist_table(self) -> ArtistTable | None:
        """The table of artists; None where the release has none. Raises ReleaseError when it is damaged."""
        from models.artists import load_artist_table

        return None if self.configuration.artist_table is msgspec.UNSET else load_artist_table(self.folder)

    def user_tower(self) -> UserTower:
        """The user tower. Raises ReleaseError when the release has none, or one of another taste space."""
        from models.user_tower import load_user_tower

        if self.configuration.user_tower is msgspec.UNSET:
            raise ReleaseError(
                f"release {self.release_id} has no user tower, so that it cannot place users; name one that was built "
                "with `tastewave-offline build-release --tower` in TASTEWAVE_RELEASE"
            )
        tower = load_user_tower(self.folder)
        if tower.manifest.dim != self.configuration.embedding_dim:
            raise ReleaseError(
                f"the user tower has {tower.manifest.dim} dimensions, the manifest says "
                f"{self.configuration.embedding_dim}; {_ADVICE}"
            )
        return tower

    def audio_encoder(self) -> AudioEncoder | None:
        """The audio encoder, or None. Raises ReleaseError when it is of another taste space than the release."""
        from models.audio_encoder import load_audio_encoder

        if self.configuration.audio_encoder is msgspec.UNSET:
            return None
        encoder = load_audio_encoder(self.folder, manifest_name=self.configuration.audio_encoder)
        self._check_space(encoder.manifest)
        return encoder

    def _check_space(self, manifest: EncoderManifest) -> None:
        """Raise ReleaseError where the audio encoder is of another taste space than the release."""
        if manifest.dim != self.configuration.embedding_dim or not manifest.unit_norm:
            raise ReleaseError(
                f"the audio encoder {manifest.name} gives {manifest.dim} dimensions with unit_norm "
                f"{str(manifest.unit_norm).lower()}, the taste space of the release has "
                f"{self.configuration.embedding_dim} with unit norm; {_ADVICE}"
            )

    def blocks(self) -> dict[str, AudioEncoder]:
        """The further networks that the genre head hears, by name. Raises ReleaseError as load_audio_encoder."""
        from models.audio_encoder import load_audio_encoder

        blocks = self.configuration.blocks or {}
        return {name: load_audio_encoder(self.folder, manifest_name=manifest) for name, manifest in blocks.items()}

    def embedding_widths(self) -> dict[str, int]:
        """How wide the features are that audio encoders give. Raises ReleaseError as audio_encoder."""
        from models.audio_encoder import read_encoder_manifest
        from models.features import EMBEDDING, embedding_of

        dim, blocks = self.configuration.embedding_dim, self.configuration.blocks or {}
        if self.configuration.audio_encoder:
            self._check_space(read_encoder_manifest(self.folder / self.configuration.audio_encoder))
        of_blocks = {embedding_of(name): read_encoder_manifest(self.folder / blocks[name]).dim for name in blocks}
        return of_blocks | ({EMBEDDING: dim} if dim else {})


def _encoder_hash(manifest: bytes) -> str:
    """12 hex digits for the manifest of an encoder, read without numpy: the main process of a worker loads none."""
    content: dict[str, Any] = msgspec.json.decode(manifest)
    for_people = ("name", "licence", "training")
    told = {name: value for name, value in content.items() if name not in (*for_people, "files")}
    told["files"] = sorted(file["sha256"] for file in content["files"].values())
    return hashlib.sha256(msgspec.json.encode(told, order="sorted")).hexdigest()[:12]


def _decode(content: bytes, shown: str) -> Manifest:
    contract = msgspec.json.decode(content, type=dict[str, Any]).get("contract")
    if contract != CONTRACT:
        raise ReleaseError(f"{shown} is of contract {contract}, this program of contract {CONTRACT}; use its version")
    return msgspec.json.decode(content, type=Manifest)


def _check(manifest: Manifest, shown: str) -> None:
    configuration = manifest.configuration
    needed = {*configuration.networks.values(), configuration.genre_head}
    optional = {configuration.user_tower, configuration.audio_encoder, configuration.artist_table}
    needed |= optional - {msgspec.UNSET}
    needed |= set((configuration.blocks or {}).values())
    if missing := needed - manifest.files.keys():
        raise ReleaseError(f"the manifest uses {', '.join(sorted(map(str, missing)))} and does not list it; {_ADVICE}")
    if not configuration.run or not configuration.networks.keys() >= set(configuration.run):
        raise ReleaseError(f"the manifest runs {configuration.run} of {tuple(configuration.networks)}; {_ADVICE}")
    if (expected := release_id(configuration, manifest.files)) != manifest.release_id:
        raise ReleaseError(f"{shown} says that it is {manifest.release_id}, its content is {expected}; {_ADVICE}")


_RELEASE = SealedKind(what="a release", manifest=MANIFEST, decode=_decode, check=_check, advice=_ADVICE)


def load_release(where: str | Path | None = None, *, public_key: Path | None = None) -> Release:
    """Read and verify a release.

        release = load_release()
        release.release_id, release.configuration.genres
        Tagger(release).tag("song.mp3")  # models.tagger

    Args:
        where: a folder, or an fsspec URL of one (s3://bucket/folder), which is copied to a temporary
            folder first; the release that ships with the project when absent.
        public_key: PEM file of the key that has to have signed it (models.signature); no signature is looked for when
            absent.

    Raises:
        ReleaseError: it is missing, damaged, of another contract, or names files outside its folder; or it has no valid
            signature of the key.
        SettingsError: the key cannot be used.
    """
    place = DEFAULT if where is None else where

    def make(manifest: Manifest, folder: Path) -> Release:
        if public_key:
            check_signature(folder, where=place, manifest=MANIFEST, public_key=public_key)
        return Release(manifest, folder)

    return load_sealed(place, _RELEASE, make=make)
