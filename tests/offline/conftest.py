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
def tones_tower(made_once: MadeOnce) -> Path:
    from tests.offline.audio_encoder import tones

    return made_once("tones-tower", tones.write_tower)
