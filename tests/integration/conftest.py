"""The platform that a test works on, and a second one to compare with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.platform.tracks import Platform, worker_environment


@pytest.fixture
def platform(environment: dict[str, str], tmp_path: Path) -> Iterator[Platform]:
    """A platform on the shared servers, which the test must not hurt."""
    platform = Platform(worker_environment(environment, tmp_path), tmp_path)
    yield platform
    platform.close()


@pytest.fixture
def undisturbed(environment: dict[str, str], tmp_path: Path) -> Iterator[Platform]:
    """A second platform on topics and a Redis database of its own, for a run of the same events without faults."""
    folder = tmp_path / "undisturbed"
    folder.mkdir()
    own = {
        "TASTEWAVE_TOPIC_PREFIX": f"undisturbed-{environment['TASTEWAVE_TOPIC_PREFIX']}",
        "TASTEWAVE_REDIS_URL": environment["TASTEWAVE_REDIS_URL"].removesuffix("/0") + "/1",
    }
    platform = Platform(worker_environment(environment | own, tmp_path), folder)
    yield platform
    platform.close()
