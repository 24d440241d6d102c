"""A release: a folder (or the same at an fsspec URL) with a manifest and the files of one trained model.

    release = load_release()                      # the one that ships with the project
    release = load_release("s3://models/2026-11") # copied here, verified, read

manifest.json names every file with its size and SHA-256. release_id is the first 12 hex digits of a hash
over these and the configuration, not over when, by what code or how well it was made: a rebuild gives
the same id. Loading verifies sizes, hashes, id and contract, and refuses a mismatch.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from models.contract import CONTRACT
from models.errors import ReleaseError

if TYPE_CHECKING:
    from models.genre import GenreHead
    from models.musicnn import Musicnn

DEFAULT = Path(__file__).with_name("releases") / "default"
MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 2**20
_MAX_FILE_BYTES = 2**32
_ADVICE = "build it again with `tastewave-offline build-release`"


class ReleaseFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a release."""

    sha256: str
    bytes: int


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


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json."""

    contract: int
    release_id: str
    created: str
    code_version: str
    configuration: Configuration
    files: dict[str, ReleaseFile]
    training: dict[str, Any]
    metrics: dict[str, Any]


def release_id(configuration: Configuration, files: Mapping[str, ReleaseFile]) -> str:
    """12 hex digits of the SHA-256 over the configuration and the hashes of the files."""
    content = {"configuration": configuration, "files": {name: file.sha256 for name, file in files.items()}}
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()[:12]


def describe_file(path: Path) -> ReleaseFile:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return ReleaseFile(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=path.stat().st_size)


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

    def network(self, model: str) -> Musicnn:
        """A musicnn network of the release (mtt, msd). Raises ReleaseError where it has none of that name."""
        from models.musicnn import Musicnn

        networks = self.configuration.networks
        if model not in networks:
            raise ReleaseError(f"release {self.release_id} has the networks {', '.join(networks)}, not {model}")
        return Musicnn(self.folder / networks[model])

    def genre_head(self) -> GenreHead:
        """The genre head. Raises ReleaseError when its classes are not those of the manifest."""
        from models.genre import GenreHead

        head = GenreHead.load(self.folder / self.configuration.genre_head)
        if head.classes != self.configuration.genres:
            raise ReleaseError(
                f"the genre head knows {head.classes}, the manifest {self.configuration.genres}; {_ADVICE}"
            )
        return head


def load_release(where: str | Path | None = None) -> Release:
    """Read and verify a release.

    Args:
        where: a folder, or an fsspec URL of one (s3://bucket/folder), which is copied to a temporary
            folder first; the release that ships with the project when absent.

    Raises:
        ReleaseError: it is missing, damaged, of another contract, or names files outside its folder.
    """
    if where is not None and "://" in str(where):
        return _load_url(str(where))
    folder = DEFAULT if where is None else Path(where)
    manifest = _read_manifest(folder / MANIFEST, folder)
    for name, expected in manifest.files.items():
        _verify(folder / name, expected)
    return Release(manifest, folder)


def _read_manifest(path: Path, shown: Path | str) -> Manifest:
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ReleaseError(f"the manifest of {shown} has over {_MAX_MANIFEST_BYTES} bytes; {_ADVICE}")
        content = path.read_bytes()
    except OSError as error:
        raise ReleaseError(
            f"{shown} has no readable {MANIFEST} ({error.strerror}); name the folder of a release"
        ) from None
    try:
        contract = msgspec.json.decode(content, type=dict[str, Any]).get("contract")
        if contract != CONTRACT:
            raise ReleaseError(
                f"{shown} is of contract {contract}, this program of contract {CONTRACT}; use its version"
            )
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.MsgspecError as error:
        raise ReleaseError(f"the manifest of {shown} cannot be read ({error}); {_ADVICE}") from None
    _check_names(manifest)
    if (expected := release_id(manifest.configuration, manifest.files)) != manifest.release_id:
        raise ReleaseError(f"{shown} says that it is {manifest.release_id}, its content is {expected}; {_ADVICE}")
    return manifest


def _check_names(manifest: Manifest) -> None:
    configuration = manifest.configuration
    for name in manifest.files:
        if Path(name).name != name or name in ("", ".", "..", MANIFEST):
            raise ReleaseError(f"the manifest names the file {name!r}, which is not a plain name; {_ADVICE}")
    needed = {*configuration.networks.values(), configuration.genre_head}
    if missing := needed - manifest.files.keys():
        raise ReleaseError(f"the manifest uses {', '.join(sorted(missing))} and does not list it; {_ADVICE}")
    if not configuration.run or not configuration.networks.keys() >= set(configuration.run):
        raise ReleaseError(f"the manifest runs {configuration.run} of {tuple(configuration.networks)}; {_ADVICE}")


def _verify(path: Path, expected: ReleaseFile) -> None:
    if path.is_symlink() or not path.is_file():
        raise ReleaseError(f"{path} is missing; {_ADVICE}")
    found = describe_file(path) if path.stat().st_size == expected.bytes else None
    if found != expected:
        raise ReleaseError(f"{path} is not the file that the manifest describes (size or SHA-256); {_ADVICE}")


def _load_url(url: str) -> Release:
    fsspec: Any = import_module("fsspec")
    folder = Path(tempfile.mkdtemp(prefix="tastewave-release-"))
    try:
        try:
            source, root = fsspec.url_to_fs(url)
            _copy(source, f"{root}/{MANIFEST}", folder / MANIFEST, _MAX_MANIFEST_BYTES)
            manifest = _read_manifest(folder / MANIFEST, url)
            for name, file in manifest.files.items():
                if file.bytes > _MAX_FILE_BYTES:
                    raise ReleaseError(f"{name} of {url} has {file.bytes} bytes, at most {_MAX_FILE_BYTES} are read")
                _copy(source, f"{root}/{name}", folder / name, file.bytes)
        except (OSError, ValueError, ImportError) as error:
            raise ReleaseError(f"{url} cannot be read ({error}); name the folder of a release") from error
        release = load_release(folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    weakref.finalize(release, shutil.rmtree, folder, ignore_errors=True)
    return release


def _copy(source: Any, path: str, target: Path, most_bytes: int) -> None:
    with source.open(path, "rb") as remote, target.open("wb") as local:
        left = most_bytes + 1
        while left and (block := remote.read(min(2**20, left))):
            local.write(block)
            left -= len(block)
