import os
import shutil
import subprocess
from pathlib import Path

import pytest

from models.release import DEFAULT
from models.signature import SIGNATURE, sign
from stream.settings import load_settings
from stream.worker import listens, tracks
from tests.conftest import TowerOf
from tests.platform import taste
from tests.platform.commands import TASTEWAVE
from tests.platform.keys import write_keys


@pytest.mark.parametrize("role", ["tracks", "listens"])
def test_a_worker_that_is_told_to_ends_at_once_with_an_unsigned_release(role: str, tmp_path: Path) -> None:
    _, public = write_keys(tmp_path)
    environment = os.environ | {"TASTEWAVE_RELEASE_PUBLIC_KEY": str(public), "TASTEWAVE_KAFKA_BROKERS": "127.0.0.1:1"}
    done = subprocess.run(
        [TASTEWAVE, "worker", role], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert f"{DEFAULT} has no valid signature of {public} (model.sig is not there)" in sentence


@pytest.mark.parametrize("role", [tracks, listens])
def test_a_worker_takes_a_release_that_the_key_has_signed(
    role, tmp_path: Path, tower_of: TowerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = write_keys(tmp_path)
    folder = taste.write_release(tmp_path / "release", tower_of(["a", "b"]))
    clean = Path(shutil.copytree(folder, tmp_path / "clean"))
    (folder / SIGNATURE).write_bytes(sign(clean, private_key=private))
    loaded = []

    class Loaded(Exception):
        pass

    def stop(*arguments: object, **_: object) -> None:
        loaded.append(arguments)
        raise Loaded

    monkeypatch.setattr(role, "TaggerPool" if role is tracks else "ListensRole", stop)
    run = role.run_tracks_worker if role is tracks else role.run_listens_worker
    with pytest.raises(Loaded):
        run(load_settings(release=str(folder), release_public_key=str(public)))
    assert len(loaded) == 1
