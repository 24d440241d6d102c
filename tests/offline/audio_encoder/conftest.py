"""The platform of tones, which tests of several modules read; none of them changes it."""

from pathlib import Path

import pytest

from tests.conftest import MadeOnce
from tests.offline.audio_encoder import tones


@pytest.fixture(scope="session")
def tones_store(made_once: MadeOnce) -> Path:
    return made_once("tones-store", tones.write_store) / "store"


@pytest.fixture(scope="session")
def tones_tower(made_once: MadeOnce) -> Path:
    return made_once("tones-tower", tones.write_tower)
