from pathlib import Path

import numpy as np
import pytest

from models.artists import ARTIST_VECTORS, ARTISTS_MANIFEST, load_artist_table
from models.errors import ReleaseError
from offline.genre.artists import write_artist_table

IDS = ["b", "ä", "a" * 200, "a"]


def write(folder: Path, vectors: np.ndarray | None = None) -> Path:
    folder.mkdir()
    write_artist_table(folder, IDS, np.eye(4, 6, dtype=np.float32) if vectors is None else vectors, training={})
    return folder


def test_an_artist_has_its_vector_and_an_unknown_one_none(tmp_path: Path):
    table = load_artist_table(write(tmp_path / "artists"))
    assert len(table) == 4
    for place, artist in enumerate(IDS):
        vector = table.vector(artist)
        assert vector is not None
        assert vector.tolist() == np.eye(6)[place].tolist()
    for unknown in ("", "c", "a" * 199, "a" * 256, "a\0"):
        assert table.vector(unknown) is None


def test_a_table_that_was_changed_is_refused(tmp_path: Path):
    folder = write(tmp_path / "artists")
    content = bytearray((folder / ARTIST_VECTORS).read_bytes())
    content[-3] ^= 1
    (folder / ARTIST_VECTORS).write_bytes(content)
    with pytest.raises(ReleaseError, match=rf"{ARTIST_VECTORS} is not the file"):
        load_artist_table(folder)
    (folder / ARTISTS_MANIFEST).unlink()
    with pytest.raises(ReleaseError, match="name the folder of a table of artists"):
        load_artist_table(folder)


@pytest.mark.parametrize("row", [np.zeros(6), np.full(6, np.nan), np.full(6, 2.0)])
def test_a_table_with_a_vector_that_is_not_of_unit_norm_is_refused(tmp_path: Path, row: np.ndarray):
    vectors = np.eye(4, 6, dtype=np.float32)
    vectors[2] = row
    with pytest.raises(ReleaseError, match="not of unit norm"):
        load_artist_table(write(tmp_path / "artists", vectors))


def test_a_table_of_another_shape_than_its_manifest_says_is_refused(tmp_path: Path):
    folder = write(tmp_path / "artists")
    manifest = folder / ARTISTS_MANIFEST
    manifest.write_text(manifest.read_text().replace('"dim": 6', '"dim": 5'))
    with pytest.raises(ReleaseError, match="manifest says 4 of 5"):
        load_artist_table(folder)
