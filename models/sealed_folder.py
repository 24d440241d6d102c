"""A sealed folder: files, and a manifest that gives the size and the SHA-256 of each of them.

Releases and user towers are such folders. Making one, the manifest is written last, as JSON:

    write_json(folder / "tower.json", TowerManifest(files=describe_files(folder), ...))

Loading one, from a folder or an fsspec URL, every file is verified before any of them is read:

    TOWER = SealedKind(
        what="a trained tower", manifest="tower.json", decode=..., check=..., advice="train it again"
    )
    tower = load_sealed("s3://models/tower", TOWER, make=read_tower)
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from models.errors import ReleaseError

MAX_MANIFEST_BYTES = 2**20
MAX_FILE_BYTES = 2**32
"""Most that is copied of one file at a URL."""


class SealedFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a manifest says of a file."""

    sha256: str
    bytes: int


class SealedManifest(Protocol):
    """A manifest names every file of its folder, but for itself."""

    @property
    def files(self) -> Mapping[str, SealedFile]:
        """What each file has to be, by its name."""
        ...


Manifest_ = TypeVar("Manifest_", bound=SealedManifest)
Loaded_ = TypeVar("Loaded_")


@dataclass(frozen=True, kw_only=True)
class SealedKind(Generic[Manifest_]):
    """What sealed folders of one kind have in common.

    Attributes:
        what: what such a folder is, for the errors: "a release".
        manifest: name of the manifest's file.
        decode: (bytes of the manifest, the folder or URL as errors name it) -> the manifest; raises ReleaseError or
            msgspec's errors.
        check: (manifest, the folder or URL as errors name it); raises ReleaseError where what the manifest says does
            not fit together. The names of its files are known to be plain by then.
        advice: what to do about a damaged folder.
    """

    what: str
    manifest: str
    decode: Callable[[bytes, str], Manifest_]
    check: Callable[[Manifest_, str], None]
    advice: str


def describe_file(path: Path) -> SealedFile:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return SealedFile(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=path.stat().st_size)


def describe_bytes(content: bytes) -> SealedFile:
    """Size and SHA-256 of a file that has this content."""
    return SealedFile(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def describe_files(folder: Path) -> dict[str, SealedFile]:
    """Size and SHA-256 of every file in a folder, in the order of the names."""
    return {path.name: describe_file(path) for path in sorted(folder.iterdir())}


def load_sealed(
    where: str | Path, kind: SealedKind[Manifest_], *, make: Callable[[Manifest_, Path], Loaded_]
) -> Loaded_:
    """Verify a sealed folder, and make of it what it holds.

    Args:
        where: a folder, or an fsspec URL of one (s3://bucket/folder). What is at a URL is copied to a temporary folder
            first, which is removed with the object that `make` returned.
        kind: of the folder.
        make: (manifest, folder on this machine) -> what the folder holds.

    Raises:
        ReleaseError: the folder is missing, damaged or of another kind, or names files outside itself.
    """
    if "://" not in str(where):
        folder = Path(where)
        return make(_verified(folder, _read_manifest(folder, kind, shown=str(folder)), kind, shown=str(folder)), folder)
    url = str(where)
    folder = Path(tempfile.mkdtemp(prefix="tastewave-"))
    try:
        loaded = make(_verified(folder, _copied(url, folder, kind), kind, shown=url), folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    weakref.finalize(loaded, shutil.rmtree, folder, ignore_errors=True)
    return loaded


def _read_manifest(folder: Path, kind: SealedKind[Manifest_], *, shown: str) -> Manifest_:
    path = folder / kind.manifest
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ReleaseError(f"the manifest of {shown} has over {MAX_MANIFEST_BYTES} bytes; {kind.advice}")
        content = path.read_bytes()
    except OSError as error:
        raise ReleaseError(
            f"{shown} has no readable {kind.manifest} ({error.strerror}); name the folder of {kind.what}"
        ) from None
    try:
        manifest = kind.decode(content, shown)
    except msgspec.MsgspecError as error:
        raise ReleaseError(f"the manifest of {shown} cannot be read ({error}); {kind.advice}") from None
    for name in manifest.files:
        if Path(name).name != name or name in ("", ".", "..", kind.manifest):
            raise ReleaseError(f"the manifest names the file {name!r}, which is not a plain name; {kind.advice}")
    kind.check(manifest, shown)
    return manifest


def _verified(folder: Path, manifest: Manifest_, kind: SealedKind[Manifest_], *, shown: str) -> Manifest_:
    """The manifest of a folder whose files are the ones that it describes."""
    for name, expected in manifest.files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise ReleaseError(f"{shown}/{name} is missing; {kind.advice}")
        try:
            is_whole = path.stat().st_size == expected.bytes and describe_file(path) == expected
        except OSError as error:
            raise ReleaseError(f"{shown}/{name} cannot be read ({error.strerror or error}); mend the disk") from error
        if not is_whole:
            raise ReleaseError(
                f"{shown}/{name} is not the file that the manifest describes (size or SHA-256); {kind.advice}"
            )
    return manifest


def _copied(url: str, folder: Path, kind: SealedKind[Manifest_]) -> Manifest_:
    """The manifest at a URL, after it and the files that it names were copied."""
    fsspec: Any = import_module("fsspec")
    try:
        source, root = fsspec.url_to_fs(url)
        _copy(source, f"{root}/{kind.manifest}", folder / kind.manifest, MAX_MANIFEST_BYTES)
        manifest = _read_manifest(folder, kind, shown=url)
        for name, file in manifest.files.items():
            if file.bytes > MAX_FILE_BYTES:
                raise ReleaseError(f"{name} of {url} has {file.bytes} bytes, at most {MAX_FILE_BYTES} are read")
            _copy(source, f"{root}/{name}", folder / name, file.bytes)
    except ReleaseError:
        raise
    except Exception as error:  # each kind of storage raises errors of its own
        why = error or type(error).__name__
        raise ReleaseError(f"{url} cannot be read ({why}); name the folder of {kind.what}") from error
    return manifest


def _copy(source: Any, path: str, target: Path, most_bytes: int) -> None:
    """Copy a file, and at most one byte more than it may have: its size then tells that it has too many."""
    with source.open(path, "rb") as remote, target.open("wb") as local:
        bytes_left = most_bytes + 1
        while bytes_left and (block := remote.read(min(2**20, bytes_left))):
            local.write(block)
            bytes_left -= len(block)
