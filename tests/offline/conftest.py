"""The platform of tones, which tests of several wings read; none of them changes it.

PyTorch's compiler is loaded before any test loads TensorFlow: after it, its LLVM would abort the process.
"""

from pathlib import Path

import pytest
import torch._dynamo  # noqa: F401

from tests.conftest import MadeOnce


@pytest.fixture(scope="session")
def tones_store(made_once: MadeOnce) -> Path:
    from tests.offline.audio_encoder import tones

    return made_once("tones-store", tones.write_store) / "store"


@pytest.fixture(scope="session")
def tones_log(made_once: MadeOnce) -> Path:
    from tests.offline.audio_encoder import tones

    def make(folder: Path) -> None:
        folder.mkdir()
        tones.write_listens(folder / "log.parquet")

    return made_once("tones-log", make) / "log.parquet"


@pytest.fixture(scope="session")
def tones_tower(made_once: MadeOnce) -> Path:
    """A tower that knows all tracks."""
    from tests.offline.audio_encoder import tones

    return made_once("tones-tower", tones.write_tower)


@pytest.fixture(scope="session")
def tones_tower_without(made_once: MadeOnce, tones_store: Path, tones_log: Path) -> Path:
    """A tower that does not know the tracks that are held out."""
    from tests.offline.audio_encoder import tones

    held_out = tones_store.with_name("held-out.csv")
    return made_once("tones-tower-without", lambda out: tones.write_tower(out, without=held_out, log=tones_log))


@pytest.fixture(scope="session")
def tones_encoder(made_once: MadeOnce, tones_store: Path, tones_tower_without: Path, tones_log: Path) -> Path:
    """An encoder that was trained against it; beside it lies shown.txt, what the command printed."""
    from tests.offline.audio_encoder import tones

    def make(folder: Path) -> None:
        folder.mkdir()
        tones.write_encoder(folder, tones_store, tones_tower_without, tones_log)

    return made_once("tones-encoder", make) / "encoder"
