import time
from pathlib import Path

import numpy as np
import pytest

from models.errors import SettingsError
from offline.genre.labels import read_artists, read_embeddings, read_taggrams
from tests.offline.genre.taggrams import write_platform


def test_tracks_are_put_together_from_patches_in_any_order(tmp_path: Path):
    path = write_platform(tmp_path) / "train.npz"
    with np.load(path) as arrays:
        patches, labels, ids = arrays["X"], arrays["Y"], arrays["IDS"]
    straight = read_taggrams(path, classes=3)
    order = np.random.default_rng(0).permutation(len(ids))
    np.savez(path, X=patches[order], Y=labels[order], IDS=ids[order])
    shuffled = read_taggrams(path, classes=3)
    assert sorted(shuffled.ids) == sorted(straight.ids)
    one = shuffled.ids.index(straight.ids[7])
    np.testing.assert_allclose(shuffled.taggrams[one].mean(axis=0), straight.taggrams[7].mean(axis=0), rtol=1e-6)
    assert shuffled.labels[one] == straight.labels[7]


def test_tracks_stand_in_the_order_in_which_the_file_names_them_first(tmp_path: Path):
    ids = np.array(["b", "a", "b", "c", "a"])
    np.savez(tmp_path / "x.npz", X=np.tile(np.arange(5.0)[:, None] / 5, 50), Y=np.array([1, 0, 1, 2, 0]), IDS=ids)
    tracks = read_taggrams(tmp_path / "x.npz", classes=3)
    assert tracks.ids == ("b", "a", "c")
    assert tracks.labels.tolist() == [1, 0, 2]
    assert [taggram[:, 0].tolist() for taggram in tracks.taggrams] == [
        pytest.approx(rows) for rows in ([0.0, 0.4], [0.2, 0.8], [0.6])
    ]


def test_reading_takes_as_long_as_the_file_is(tmp_path: Path):
    """Looking through all rows for each track would take minutes here."""
    rows, tracks = 240_000, 60_000
    ids = np.char.add("track ", (np.arange(rows) % tracks).astype(str))
    np.savez(tmp_path / "x.npz", X=np.zeros((rows, 50), np.float16), Y=np.zeros(rows, np.int8), IDS=ids)
    started = time.process_time()
    read = read_taggrams(tmp_path / "x.npz", classes=1)
    assert time.process_time() - started < 30
    assert len(read.ids) == tracks
    assert {len(taggram) for taggram in read.taggrams} == {4}


def test_features_are_those_of_every_third_patch_as_of_one_window(tmp_path: Path):
    rng = np.random.default_rng(0)
    taggrams, max_pools = rng.uniform(0.0, 1.0, (7, 50)), rng.normal(0.0, 30.0, (7, 753))
    arrays = {"X": taggrams, "Y": np.zeros(7, int), "IDS": np.array(["a"] * 7)}
    np.savez(tmp_path / "x.npz", **arrays)
    (plain,) = read_taggrams(tmp_path / "x.npz", classes=1).features(patch_step=3)
    assert plain.keys() == {"msd.taggram.mean", "msd.taggram.spread"}
    np.testing.assert_allclose(plain["msd.taggram.mean"], (taggrams[0] + taggrams[3] + taggrams[6]) / 3, rtol=1e-6)
    np.savez(tmp_path / "x.npz", **arrays, MAX_POOL=max_pools)
    (whole,) = read_taggrams(tmp_path / "x.npz", classes=1).features(patch_step=3)
    np.testing.assert_allclose(whole["msd.max_pool"], (max_pools[0] + max_pools[3] + max_pools[6]) / 3, rtol=1e-4)
    np.savez(tmp_path / "x.npz", **arrays, MAX_POOL=max_pools[:6])
    with pytest.raises(SettingsError, match=r"MAX_POOL of .* is \(6, 753\)"):
        read_taggrams(tmp_path / "x.npz", classes=1)


def test_a_track_without_an_embedding_has_none(tmp_path: Path):
    np.savez(tmp_path / "x.npz", IDS=np.array(["b", "a"]), EMBEDDING=np.array([[0.5, 0.0, 1.0], [0.0, 0.0, 2.0]]))
    embeddings = read_embeddings(tmp_path / "x.npz")
    assert {track: vector.tolist() for track, vector in embeddings.items()} == {"b": [0.5, 0, 1], "a": [0, 0, 2]}
    np.savez(tmp_path / "x.npz", IDS=np.array(["b"]), EMBEDDING=np.zeros((2, 3)))
    with pytest.raises(SettingsError, match=r"IDS \(1,\) and EMBEDDING \(2, 3\)"):
        read_embeddings(tmp_path / "x.npz")
    with pytest.raises(SettingsError, match="give an npz with IDS and EMBEDDING"):
        read_embeddings(tmp_path / "missing.npz")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"X": np.zeros((4, 49))}, "X \\(4, 49\\)"),
        ({"X": np.full((4, 50), 1.5)}, "0 to 1"),
        ({"X": np.full((4, 50), np.nan)}, "0 to 1"),
        ({"X": np.zeros((4, 50), int)}, "0 to 1"),
        ({"Y": np.array([0, 0, 1])}, "Y \\(3,\\)"),
        ({"Y": np.array([0, 0, 1, 3])}, "0 to 2"),
        ({"Y": np.array([0, 0, 1, -1])}, "0 to 2"),
        ({"Y": np.array([0.0, 0, 1, 1])}, "integers"),
        ({"Y": np.array([0, 1, 1, 1])}, "track a .* several classes"),
        ({"IDS": np.array(["a", "a", "b", None], dtype=object)}, "cannot be read"),
        ({"X": np.zeros((0, 50)), "Y": np.zeros(0, int), "IDS": np.zeros(0, "<U1")}, "X \\(0, 50\\)"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path: Path, changes: dict, said: str):
    good = {"X": np.zeros((4, 50)), "Y": np.array([0, 0, 1, 1]), "IDS": np.array(["a", "a", "b", "b"])}
    np.savez(tmp_path / "x.npz", **good)
    assert len(read_taggrams(tmp_path / "x.npz", classes=3).ids) == 2
    np.savez(tmp_path / "x.npz", **good | changes)
    with pytest.raises(SettingsError, match=said):
        read_taggrams(tmp_path / "x.npz", classes=3)


def test_files_that_are_no_taggrams_are_refused(tmp_path: Path):
    (tmp_path / "x.npz").write_bytes(b"nothing of the kind")
    for name in ("x.npz", "missing.npz"):
        with pytest.raises(SettingsError, match="cannot be read as taggrams"):
            read_taggrams(tmp_path / name, classes=3)


def test_joint_recordings_join_artists_and_unknown_ones_are_one_per_genre(tmp_path: Path):
    path = tmp_path / "artists.csv"
    path.write_text('track,artist\nska.1,A\nska.2,"B; C"\nska.3,"C; A"\nska.4,D\nska.5,\nska.6,\nfolk.1,\n')
    numbers = read_artists(
        path, ("ska/ska.1.au", "ska.2.wav", "ska.3.wav", "ska.4.au", "ska.5.au", "ska.6.au", "folk.1.au")
    )
    first, second, third, fourth, fifth, sixth, seventh = numbers.tolist()
    assert first == second == third
    assert fifth == sixth
    assert len({first, fourth, fifth, seventh}) == 4


def test_an_artist_list_without_a_track_or_a_column_is_refused(tmp_path: Path):
    path = tmp_path / "artists.csv"
    path.write_text("track,artist\nska.1,A\n")
    with pytest.raises(SettingsError, match=r"ska\.2"):
        read_artists(path, ("ska.1.au", "ska.2.au"))
    path.write_text("name,artist\nska.1,A\n")
    with pytest.raises(SettingsError, match="columns track, artist"):
        read_artists(path, ("ska.1.au",))
    with pytest.raises(SettingsError, match="cannot be read"):
        read_artists(tmp_path / "missing.csv", ("ska.1.au",))
