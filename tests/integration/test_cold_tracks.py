"""From the upload of a track that nobody has heard to where its first listener stands."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.contract import history_key
from models.events import Listen
from models.history import StoredHistory
from models.refresh import embed_newest, read_newest
from models.release import load_release
from models.tagger import Tagger
from tests.conftest import TowerOf
from tests.platform import taste
from tests.platform.clock import now_ms
from tests.platform.encoders import write_filterbank
from tests.platform.listens import TRACKS, ListenPlatform
from tests.platform.music import write_music
from tests.platform.tracks import Platform, worker_environment

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory, tower_of: TowerOf) -> Path:
    """It has a tower, and an encoder at another rate than musicnn's."""
    folder = tmp_path_factory.mktemp("release")
    return taste.write_release(
        folder / "release",
        tower_of(TRACKS[:30], history=20),
        audio_encoder=write_filterbank(folder / "encoder", dim=taste.DIM, sample_rate=24_000),
    )


@pytest.fixture
def made(environment: dict[str, str], release: Path, tmp_path: Path) -> Iterator[Callable[[type[Platform]], Any]]:
    """Makes platforms on the release."""
    own = environment | {"TASTEWAVE_RELEASE": str(release)}
    with ExitStack() as platforms:

        def make(kind: type[Platform]) -> Platform:
            folder = tmp_path / kind.role
            folder.mkdir()
            return platforms.enter_context(closing(kind(worker_environment(own, tmp_path), folder)))

        yield make


def play(user_id: str, track_id: str) -> Listen:
    return Listen(
        event_id="e", user_id=user_id, track_id=track_id, kind="play", at=now_ms() - 1000, played_ms=200_000,
        duration_ms=210_000,
    )  # fmt: skip


def test_a_listen_of_an_uploaded_track_moves_a_user_by_what_the_track_sounds_like(made, tmp_path: Path) -> None:
    uploads, listens = made(Platform), made(ListenPlatform)
    release = load_release(uploads.settings.worker.release)
    song = write_music(tmp_path / "song.wav", seconds=40)
    uploads.start_worker()
    listens.start_worker()
    answer = uploads.wait_for(uploads.upload(song.as_uri(), track_id="cold"))

    heard = Tagger(release).tag(song).embedding
    assert len(answer.embedding) == taste.DIM
    np.testing.assert_allclose(answer.embedding, heard, atol=1e-5)
    uploads.settled()
    assert uploads.output()["cold"].embedding == answer.embedding

    listens.listen([play("ann", "cold"), play("bob", "never uploaded")])
    listens.settled()
    ann, bob = listens.user("ann"), listens.user("bob")
    assert (ann.source, bob.source) == ("history", "global")
    tower = release.user_tower()
    history = StoredHistory(listens.redis.zrange(history_key("ann"), 1, -1), [])
    expected = embed_newest(tower, read_newest(tower, [history]), {b"cold": np.float32(answer.embedding)})
    np.testing.assert_allclose(ann.embedding, expected.embeddings[0], atol=1e-5)
    assert ann.embedding != pytest.approx(taste.GLOBAL, abs=0.1)

    assert "embedding   40 dimensions" in uploads.run("get", "track", "cold")
    shown = json.loads(uploads.run("get", "track", "cold", "--json"))
    assert shown["embedding"] == pytest.approx(list(answer.embedding))
    assert 'tastewave_stage_seconds_count{stage="encoder"} 1.0' in uploads.health("/metrics")[1]


def test_a_track_that_the_tower_learned_from_listens_keeps_the_place_that_was_learned(made, tmp_path: Path) -> None:
    uploads = made(Platform)
    items = load_release(uploads.settings.worker.release).user_tower().items
    uploads.start_worker()
    song = write_music(tmp_path / "song.wav").as_uri()
    learned, heard = (uploads.wait_for(uploads.upload(song, track_id=track)) for track in (TRACKS[3], "ü" * 128))
    np.testing.assert_array_equal(np.float32(learned.embedding), items.vectors[items.rows([TRACKS[3]])[0]])
    assert heard.embedding != pytest.approx(learned.embedding, abs=0.1)
