"""The taste space of the demo: a user tower that was trained on a made-up platform.

`taste/` holds the tower, and titles.json with the title of each of its tracks. To make it again:

    tastewave-offline synth platform platform --no-audio
    tastewave-offline train-user-tower platform/listens deploy/local/taste
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from models.release import CARD, DEFAULT, MANIFEST, load_release, release_id
from models.sealed_folder import describe_files
from models.user_tower import TOWER_MANIFEST, load_user_tower

_TASTE = Path(__file__).with_name("taste")
_TITLES = "titles.json"


def demonstration_release(folder: Path) -> Path:
    """Write the shipped release with the demo's user tower to a new folder."""
    tower = load_user_tower(_TASTE)
    shutil.copytree(DEFAULT, folder)
    for name in (*tower.manifest.files, TOWER_MANIFEST):
        shutil.copyfile(_TASTE / name, folder / name)
    manifest = load_release().manifest
    (folder / MANIFEST).unlink()
    (folder / CARD).unlink(missing_ok=True)  # it tells of the release without the tower
    configuration = msgspec.structs.replace(
        manifest.configuration, embedding_dim=tower.manifest.dim, user_tower=TOWER_MANIFEST
    )
    files = describe_files(folder)
    changed = {"release_id": release_id(configuration, files), "configuration": configuration, "files": files}
    (folder / MANIFEST).write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, **changed)))
    return folder


def titles() -> Mapping[str, str]:
    """The title of each track of the made-up platform, such as Metal no. 12, by its id."""
    return json.loads((_TASTE / _TITLES).read_text())
