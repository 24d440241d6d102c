from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from scipy.sparse import csr_array

from models.artists import load_artist_table
from models.errors import SettingsError
from models.history import Signal
from offline.cli import cli
from offline.genre.artists import artist_vectors, co_listens, read_artist_ids, run
from offline.genre.settings import EmbedArtists
from tests.offline.small_logs import log_of


def scenes(*, users: int = 60, artists: int = 12, seed: int = 0) -> np.ndarray:
    """(users, artists) listens: even users hear even artists, odd ones odd; one artist is heard by everybody."""
    rng = np.random.default_rng(seed)
    listens = rng.poisson(3.0, (users, artists)) * (np.add.outer(np.arange(users), np.arange(artists)) % 2 == 0)
    listens[:, -1] = rng.poisson(5.0, users)
    return listens.astype(float)


def test_artists_with_the_same_listeners_lie_close_together():
    columns, vectors = artist_vectors(csr_array(scenes()), dim=3, least_listeners=3)
    assert columns.tolist() == list(range(12))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    close = vectors[:11] @ vectors[:11].T
    same = np.add.outer(np.arange(11), np.arange(11)) % 2 == 0
    assert close[same & ~np.eye(11, dtype=bool)].mean() > 0.6
    assert close[~same].mean() < 0.2


def test_vectors_are_those_of_a_dense_decomposition():
    listens = np.log1p(scenes())
    scaled = listens / np.sqrt(listens.sum(axis=1, keepdims=True)) / np.sqrt(listens.sum(axis=0))
    right = np.linalg.svd(scaled)[2][:4].T
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    _, vectors = artist_vectors(csr_array(scenes()), dim=4, least_listeners=1)
    np.testing.assert_allclose(vectors @ vectors.T, right @ right.T, atol=1e-5)


def test_an_artist_with_few_listeners_has_no_vector_and_the_others_do_not_depend_on_it():
    listens = scenes()
    rare = np.zeros((60, 1))
    rare[:2] = 50.0
    columns, vectors = artist_vectors(csr_array(np.hstack([rare, listens])), dim=3, least_listeners=3)
    assert columns.tolist() == list(range(1, 13))
    np.testing.assert_array_equal(vectors, artist_vectors(csr_array(listens), dim=3, least_listeners=3)[1])


def test_too_few_artists_for_the_dimensions_are_refused():
    with pytest.raises(SettingsError, match="12 artists with 3 listeners and 60 users are too few for 12 dimensions"):
        artist_vectors(csr_array(scenes()), dim=12, least_listeners=3)


def test_listens_that_count_are_counted_by_artist():
    plays, dislike = Signal.PLAY, Signal.DISLIKE
    log = log_of([[0, 1, 1, 2], [3, 2]], tracks=4, signals=[[plays, plays, plays, dislike], [plays, plays]])
    artist_of = pl.DataFrame(
        {"track_id": ["track-0002", "track-0000", "track-0001", "elsewhere"], "artist_id": ["b", "a", "a", "z"]}
    )
    ids, listens = co_listens(log, artist_of)
    assert ids.to_list() == ["a", "b"]
    assert listens.toarray().tolist() == [[3.0, 0.0], [0.0, 1.0]]  # nobody knows the artist of the last track
    with pytest.raises(SettingsError, match="names the artist of no track of by hand"):
        co_listens(log, artist_of.tail(1))


def write_platform(folder: Path) -> tuple[Path, Path]:
    """A log and its catalogue: two tracks of each artist."""
    rows = [
        (f"u{user}", f"t{artist}.{time % 2}", 1_767_225_600_000 + 60_000 * time)
        for user, of_user in enumerate(scenes())
        for artist, count in enumerate(of_user)
        for time in range(int(count))
    ]
    pl.DataFrame(rows, schema=["user_id", "track_id", "at"], orient="row").write_parquet(folder / "log.parquet")
    tracks = [f"t{artist}.{number}" for artist in range(13) for number in range(2)]
    catalogue = pl.DataFrame({"track_id": tracks, "artist_id": [f"artist {track.split('.')[0]}" for track in tracks]})
    catalogue.write_csv(folder / "tracks.csv")
    return folder / "log.parquet", folder / "tracks.csv"


def test_the_command_writes_a_table_that_reads_back_and_is_the_same_again(tmp_path: Path):
    log, catalogue = write_platform(tmp_path)
    arguments = ["embed-artists", str(log), str(catalogue), str(tmp_path / "artists"), "dim=3"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.exception
    assert done.output.splitlines()[0] == "12 artists with a vector, 1 without: too few listeners in the log"
    table = load_artist_table(tmp_path / "artists")
    ids, same, other = (table.vector(f"artist t{number}") for number in (0, 2, 1))
    assert ids is not None
    assert same is not None
    assert other is not None
    assert ids @ same > ids @ other + 0.3
    assert table.vector("artist t12") is None
    settings = EmbedArtists(log=str(log), catalogue=str(catalogue), out=str(tmp_path / "again"), dim=3)
    assert run(settings).table.manifest == table.manifest


def test_a_catalogue_of_another_form_is_refused(tmp_path: Path):
    (tmp_path / "c.csv").write_text("track_id,artist\nt,a\n")
    with pytest.raises(SettingsError, match="columns track_id and artist_id"):
        read_artist_ids(tmp_path / "c.csv")
    (tmp_path / "c.csv").write_text("track_id,artist_id\nt,\n")
    with pytest.raises(SettingsError, match="names the artist of no track"):
        read_artist_ids(tmp_path / "c.csv")
