"""Publishing a release: a verified folder is signed, copied to an fsspec URL, and verified there."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

from models.errors import SettingsError
from models.release import MANIFEST, Release, load_release
from models.sealed_folder import MAX_MANIFEST_BYTES
from models.signature import SIGNATURE, sign
from offline.release.settings import PublishRelease


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The release as it is read from the URL."""

    release: Release
    url: str
    signed: bool

    def lines(self) -> list[str]:
        """Where it is, and how to use it."""
        files = self.release.manifest.files.values()
        return [
            f"release {self.release.release_id} at {self.url}, {sum(file.bytes for file in files):,} bytes, verified"
            + (", signed" if self.signed else ""),
            f"start workers with TASTEWAVE_RELEASE={self.url}",
        ]


def run(settings: PublishRelease) -> Outcome:
    """Copy a release to a URL. The manifest is written last, so that nobody reads a release that is there in part.

    A run that was stopped goes on when it is started again. Another release at the URL is never replaced: workers that
    start meanwhile would read files of both.

    Raises:
        ReleaseError: the folder, or what was read back from the URL, is not a whole release.
        SettingsError: the URL holds another release, or cannot be written, or the key cannot be used.
    """
    _check_url(settings.url)
    release = load_release(Path(settings.folder))
    with tempfile.TemporaryDirectory(prefix="tastewave-") as scratch:
        signature = _signature(release, Path(settings.sign_key), Path(scratch)) if settings.sign_key else None
    try:
        _copy(release, settings.url, signature)
    except SettingsError:
        raise
    except Exception as error:  # each kind of storage raises errors of its own
        raise SettingsError(
            f"{settings.url} cannot be written ({error or type(error).__name__}); check the address and the rights"
        ) from error
    return Outcome(release=load_release(settings.url), url=settings.url, signed=signature is not None)


def _signature(release: Release, private_key: Path, scratch: Path) -> bytes:
    """The signature of a release's own files, whatever else lies in its folder."""
    for name in (*release.manifest.files, MANIFEST):
        shutil.copyfile(release.folder / name, scratch / name)
    load_release(scratch)  # so that what is signed is what was verified
    return sign(scratch, private_key=private_key)


def _check_url(url: str) -> None:
    if "://" not in url:
        raise SettingsError(f"{url} is no URL; give one that fsspec knows, such as s3://bucket/releases/mine")
    if urlsplit(url).password:
        raise SettingsError("the URL holds a password; give it as fsspec's settings or the environment can hold it")


def _copy(release: Release, url: str, signature: bytes | None) -> None:
    target, root = fsspec.url_to_fs(url)
    manifest = release.folder / MANIFEST
    there = _manifest_there(target, f"{root}/{MANIFEST}")
    if there not in (None, manifest.read_bytes()):
        raise SettingsError(f"{url} holds another release; name a folder that is new")
    if target.root_marker == "/":  # a file system with folders; in an object store this would make a missing bucket
        target.makedirs(root, exist_ok=True)
    for name in release.manifest.files:
        target.put_file(str(release.folder / name), f"{root}/{name}")
    if signature:
        target.pipe_file(f"{root}/{SIGNATURE}", signature)
    target.put_file(str(manifest), f"{root}/{MANIFEST}")


def _manifest_there(target: Any, path: str) -> bytes | None:
    try:
        return target.cat_file(path, end=MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        return None
