import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from models.errors import ReleaseError, SettingsError
from models.release import DEFAULT, MANIFEST, load_release
from models.signature import SIGNATURE, sign
from tests.platform.keys import write_keys

CURVES = [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()]


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """A signed copy of the shipped release, and the public key."""
    private, public = write_keys(tmp_path)
    folder = Path(shutil.copytree(DEFAULT, tmp_path / "release"))
    (folder / SIGNATURE).write_bytes(sign(folder, private_key=private))
    return folder, public


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_a_release_that_the_key_has_signed_is_loaded(tmp_path: Path, curve: ec.EllipticCurve):
    private, public = write_keys(tmp_path, key=ec.generate_private_key(curve))
    folder = Path(shutil.copytree(DEFAULT, tmp_path / "release"))
    (folder / SIGNATURE).write_bytes(sign(folder, private_key=private))
    (folder / "notes.txt").write_text("what nobody reads need not be signed")
    assert load_release(folder, public_key=public).release_id == load_release().release_id


def test_the_signature_is_one_that_openssf_model_signing_verifies(signed: tuple[Path, Path]):
    folder, public = signed
    words = ["verify", "key", str(folder), "--signature", str(folder / SIGNATURE), "--public_key", str(public)]
    command = [sys.executable, "-m", "model_signing", *words]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    (folder / "genre.npz").write_bytes(b"another head")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_a_release_without_a_signature_is_refused_where_one_is_asked_for(tmp_path: Path):
    _, public = write_keys(tmp_path)
    with pytest.raises(
        ReleaseError, match=r"default has no valid signature of .*release\.pub \(model\.sig is not there"
    ):
        load_release(public_key=public)


def test_a_signature_of_another_key_is_refused(signed: tuple[Path, Path], tmp_path: Path):
    _, other = write_keys(tmp_path, "other")
    with pytest.raises(ReleaseError, match=r"has no valid signature of .*other\.pub"):
        load_release(signed[0], public_key=other)


def test_a_signature_that_names_the_key_and_was_made_with_another_is_refused(signed: tuple[Path, Path], tmp_path: Path):
    folder, public = signed
    forger, _ = write_keys(tmp_path, "forger")
    mine, theirs = json.loads((folder / SIGNATURE).read_text()), tmp_path / "theirs.sig"
    theirs.write_bytes(sign(Path(shutil.copytree(DEFAULT, tmp_path / "forged")), private_key=forger))
    forged = json.loads(theirs.read_text())
    forged["verificationMaterial"] = mine["verificationMaterial"]
    (folder / SIGNATURE).write_text(json.dumps(forged))
    with pytest.raises(ReleaseError, match="has no valid signature"):
        load_release(folder, public_key=public)


def test_another_manifest_under_the_signature_is_refused(signed: tuple[Path, Path]):
    folder, public = signed
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["metrics"]["accuracy"] = 1.0  # which is no part of the release id
    (folder / MANIFEST).write_text(json.dumps(manifest))
    load_release(folder)
    with pytest.raises(ReleaseError, match=r"has no valid signature .*manifest\.json"):
        load_release(folder, public_key=public)


def test_a_signature_of_other_files_with_the_same_key_covers_no_release(tmp_path: Path):
    private, public = write_keys(tmp_path)
    folder = Path(shutil.copytree(DEFAULT, tmp_path / "release"))
    (tmp_path / "part").mkdir()
    shutil.copyfile(folder / "genre.npz", tmp_path / "part" / "genre.npz")
    (folder / SIGNATURE).write_bytes(sign(tmp_path / "part", private_key=private))
    with pytest.raises(ReleaseError, match=r"does not cover manifest\.json"):
        load_release(folder, public_key=public)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"verificationMaterial": {}}'])
def test_what_is_no_signature_is_refused_in_a_sentence(signed: tuple[Path, Path], content: bytes):
    folder, public = signed
    (folder / SIGNATURE).write_bytes(content)
    with pytest.raises(ReleaseError, match="has no valid signature") as caught:
        load_release(folder, public_key=public)
    assert "\n" not in str(caught.value)


def test_a_key_that_cannot_be_used_is_told_in_a_sentence(signed: tuple[Path, Path], tmp_path: Path):
    private, public = write_keys(tmp_path, "rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048))
    locked = tmp_path / "locked.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    for path in (public, tmp_path / "missing.pub", signed[0] / "genre.npz", private):
        with pytest.raises(SettingsError, match=rf"{path.name} cannot be used to check signatures .*elliptic curve"):
            load_release(signed[0], public_key=path)
    for path in (private, tmp_path / "missing.pem", locked, public):
        with pytest.raises(SettingsError, match=rf"{path.name} cannot be used to sign .*give an unencrypted PEM"):
            sign(signed[0], private_key=path)


def test_without_model_signing_a_sentence_says_what_to_install(
    signed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "model_signing.verifying", None)
    with pytest.raises(SettingsError, match=r"install tastewave\[signing\]"):
        load_release(signed[0], public_key=signed[1])
