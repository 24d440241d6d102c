"""The signature of a release: who published it, which hashes alone cannot tell.

It is one of OpenSSF model signing (the Sigstore bundle of an elliptic curve key), so that any tool of it can check it:
`model_signing verify key FOLDER --signature FOLDER/model.sig --public_key PUBLIC.pem`.

    signature = sign(folder, private_key=Path("release.pem"))
    (folder / SIGNATURE).write_bytes(signature)
    check_signature(folder, where=folder, manifest="manifest.json", public_key=Path("release.pub"))
"""

from __future__ import annotations

import base64
import json
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from models.errors import ReleaseError, SettingsError

SIGNATURE = "model.sig"
_MAX_BYTES = 2**20
_KEYS = "give an unencrypted PEM file of an elliptic curve key (P-256, P-384 or P-521)"


def sign(folder: Path, *, private_key: Path) -> bytes:
    """The signature of all files in a folder.

    Args:
        folder: that holds what is signed and nothing else.
        private_key: PEM file of an elliptic curve key.

    Raises:
        SettingsError: the key cannot be used, or model-signing is not installed.
    """
    config = _library("signing").Config()
    try:
        config.use_elliptic_key_signer(private_key=private_key)
    except Exception as error:  # of the file, of cryptography, and AttributeError for a key of another kind
        raise SettingsError(f"{private_key} cannot be used to sign ({_why(error)}); {_KEYS}") from error
    with tempfile.TemporaryDirectory(prefix="tastewave-") as scratch:
        path = Path(scratch, SIGNATURE)
        config.sign(folder, path)
        return path.read_bytes()


def check_signature(folder: Path, *, where: str | Path, manifest: str, public_key: Path) -> None:
    """Check that the key's owner has signed a folder's manifest, which holds the hashes of all that is read.

    Args:
        folder: the files on this machine, verified against the manifest.
        where: the folder or fsspec URL that they were read from: there lies the signature.
        manifest: name of the manifest's file.
        public_key: PEM file of an elliptic curve key.

    Raises:
        ReleaseError: there is no signature, or it is of another key, of other files, or does not cover the manifest.
        SettingsError: the key cannot be read, or model-signing is not installed.
    """
    config = _library("verifying").Config()
    try:
        config.use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:  # as in sign
        raise SettingsError(f"{public_key} cannot be used to check signatures ({_why(error)}); {_KEYS}") from error
    try:
        signature = _read(where)
        with tempfile.TemporaryDirectory(prefix="tastewave-") as scratch:
            path = Path(scratch, SIGNATURE)
            path.write_bytes(signature)
            # What lies there besides is never read.
            config.set_ignore_unsigned_files(True).verify(folder, path)
        if manifest not in _signed(signature):
            raise ValueError(f"it does not cover {manifest}")
    except Exception as error:  # each storage, and each library that model-signing uses, has errors of its own
        raise ReleaseError(
            f"{where} has no valid signature of {public_key} ({_why(error)}); sign it with "
            "`tastewave-offline publish-release --sign-key`, or name the key of its publisher"
        ) from error


def _signed(signature: bytes) -> set[str]:
    """The files that a signature is of. To be called when it was verified."""
    # Read as model-signing reads it, and strictly, so that both see the same payload.
    payload = base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"], validate=True)
    return {resource["name"] for resource in json.loads(payload)["predicate"]["resources"]}


def _read(where: str | Path) -> bytes:
    if "://" not in str(where):
        with Path(where, SIGNATURE).open("rb") as file:
            return file.read(_MAX_BYTES)
    fsspec: Any = import_module("fsspec")
    source, root = fsspec.url_to_fs(str(where))
    with source.open(f"{root}/{SIGNATURE}", "rb") as file:
        return file.read(_MAX_BYTES)


def _library(name: str) -> Any:
    try:
        return import_module(f"model_signing.{name}")
    except ImportError as error:
        raise SettingsError(
            f"signatures need model-signing, which cannot be imported ({error}); install tastewave[signing]"
        ) from error


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file" if error.filename is None else f"{Path(error.filename).name} is not there"
    return " ".join(str(error).split()) or type(error).__name__
