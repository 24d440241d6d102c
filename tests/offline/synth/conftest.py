from pathlib import Path

import pytest

from tests.offline.synth.platforms import CONFIG, TINY, make


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(CONFIG, tmp_path_factory.mktemp("platforms") / "one")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(TINY, tmp_path_factory.mktemp("platforms") / "tiny")
