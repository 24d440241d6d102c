"""The sets of the protocol: GTZAN's lists as they ship, and FMA-small's table."""

import csv
from pathlib import Path

import pytest

from models.errors import SettingsError
from offline.genre.settings import GTZAN_GENRES
from offline.reproduce.fma_small import BROKEN, read_fma_small
from offline.reproduce.gtzan import LISTS, PARTS, read_gtzan
from tests.offline.reproduce.small_sets import write_fma_table


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def listed(part: str) -> list[str]:
    return (LISTS / f"{part}_filtered.txt").read_text().split()


@pytest.fixture(scope="module")
def whole_gtzan(tmp_path_factory) -> Path:
    """Every file of the lists, empty, as the set itself names them."""
    names = [name.replace(".wav", ".au") for part in PARTS for name in listed(part)]
    return touch(tmp_path_factory.mktemp("genres"), *names)


def test_the_lists_that_ship_are_443_and_197_and_290_tracks_and_have_none_in_common():
    parts = {part: set(listed(part)) for part in PARTS}
    assert {part: len(tracks) for part, tracks in parts.items()} == {"train": 443, "valid": 197, "test": 290}
    assert len(set().union(*parts.values())) == 930
    assert {name.partition("/")[0] for name in set().union(*parts.values())} == set(GTZAN_GENRES)


def test_gtzan_is_read_with_its_split_and_no_artist_stands_on_both_sides(whole_gtzan: Path):
    gtzan = read_gtzan(whole_gtzan)
    assert gtzan.tracks.height == 930
    (split,) = gtzan.splits
    assert (len(split.train), len(split.test), len(split.train & split.test)) == (443, 290, 0)
    assert gtzan.tracks["uri"].str.ends_with(".au").all()
    artist_of = dict(gtzan.tracks.select("track_id", "artist_id").iter_rows())
    of_train, of_test = ({artist_of[track] for track in tracks} for tracks in (split.train, split.test))
    assert not of_train & of_test


def test_tracks_of_a_named_artist_share_it_and_unknown_ones_share_it_with_their_neighbours(whole_gtzan: Path):
    artist_of = dict(read_gtzan(whole_gtzan).tracks.select("track_id", "artist_id").iter_rows())
    with (LISTS / "artists.csv").open() as file:
        kelly = [row["track"] for row in csv.DictReader(file) if row["artist"] == "Kelly Joe Phelps"]
    assert len(kelly) == 11
    assert len({artist_of[f"blues/{name}"] for name in kelly}) == 1
    # to validate: blues 0 to 11, and 50 to 60
    assert artist_of["blues/blues.00000"] == artist_of["blues/blues.00011"] != artist_of["blues/blues.00050"]
    assert artist_of["blues/blues.00011"] != artist_of["blues/blues.00012"]  # to test


def test_gtzan_with_tracks_missing_or_a_list_that_is_none_is_refused_in_one_sentence(whole_gtzan: Path, tmp_path: Path):
    with pytest.raises(SettingsError, match=r"lacks 930 of the 930 tracks, such as blues.00029; name the folder"):
        read_gtzan(touch(tmp_path / "empty", "readme.txt"))
    lists = tmp_path / "lists"
    lists.mkdir()
    with pytest.raises(SettingsError, match=r"train_filtered.txt cannot be read"):
        read_gtzan(whole_gtzan, lists=lists)
    for part in PARTS:
        (lists / f"{part}_filtered.txt").write_text("blues/blues.00000.wav\n")
    with pytest.raises(SettingsError, match=r"names blues.00000 twice; leave a track in one part"):
        read_gtzan(whole_gtzan, lists=lists)
    for part, genre in zip(PARTS, ("blues", "jazz", "rock"), strict=True):
        (lists / f"{part}_filtered.txt").write_text(f"{genre}/00000.wav\n")
    with pytest.raises(SettingsError, match=r"names 00000 twice; .* a name of its own"):
        read_gtzan(whole_gtzan, lists=lists)
    (lists / "train_filtered.txt").write_text("blues.00001\n")
    with pytest.raises(SettingsError, match=r"no list of tracks; write lines such as"):
        read_gtzan(whole_gtzan, lists=lists)


@pytest.fixture(scope="module")
def fma(tmp_path_factory) -> tuple[Path, Path]:
    """40 clips of two genres by 20 artists, those that are broken, and tracks of other subsets; metadata and audio."""
    folder = tmp_path_factory.mktemp("fma")
    rows = []
    for number in range(40):
        artist = number // 2
        part = "test" if artist in (3, 13) else "validation" if artist in (4, 14) else "training"
        genre = "Hip-Hop" if number < 20 else "Rock"
        bio = 'born in Ulm,\nand "loud"'
        rows.append([str(100 + number), "A", bio, f"a{artist}", part, "small", genre, f"T{number}"])
    rows += [[str(int(name)), "A", "", "a99", "training", "small", "Rock", "broken"] for name in BROKEN]
    rows.append(["7", "A", "", "a98", "training", "medium", "Rock", "of another subset"])
    touch(folder / "audio", *[f"000/{100 + number:06d}.mp3" for number in range(40)])
    return write_fma_table(folder / "metadata", rows), folder / "audio"


def test_fma_small_is_read_from_the_table_with_three_heads_without_the_clips_that_are_known_as_broken(fma):
    metadata, audio = fma
    small = read_fma_small(audio, metadata=metadata, seed=0)
    assert small.tracks["track_id"].to_list() == [f"{100 + number:06d}" for number in range(40)]
    assert set(BROKEN) == {"098565", "098567", "098569", "099134", "108925", "133297"}
    for name in BROKEN:
        assert name in small.notes[0]
    assert small.tracks["genre"].value_counts(sort=True).rows() == [("Hip-Hop", 20), ("Rock", 20)]
    assert small.tracks["uri"][0].endswith("audio/000/000100.mp3")


def test_the_splits_of_fma_small_are_7_to_3_of_each_genre_and_the_one_between_artists(fma):
    metadata, audio = fma
    small = read_fma_small(audio, metadata=metadata, seed=0)
    drawn, official = small.splits
    genre_of = dict(small.tracks.select("track_id", "genre").iter_rows())
    assert not drawn.train & drawn.test
    for part, each in ((drawn.train, 14), (drawn.test, 6)):
        assert sorted(genre_of[track] for track in part) == ["Hip-Hop"] * each + ["Rock"] * each
    assert official.test == {"000106", "000107", "000126", "000127"}
    assert len(official.train) == 32
    assert (drawn.published, official.published) == (True, False)
    assert read_fma_small(audio, metadata=metadata, seed=1).splits[0].test != drawn.test


def test_metadata_of_another_form_and_missing_clips_are_refused_in_one_sentence(fma, tmp_path: Path):
    metadata, audio = fma
    with pytest.raises(SettingsError, match=r"lacks 40 of the 40 clips, such as .*000100.mp3; name the folder"):
        read_fma_small(tmp_path, metadata=metadata, seed=0)
    with pytest.raises(SettingsError, match=r"tracks.csv cannot be read .*; give the folder of fma_metadata"):
        read_fma_small(audio, metadata=tmp_path, seed=0)
    (tmp_path / "tracks.csv").write_text("track_id,title\n2,Food\n3,Electric Ave\n4,Night\n")
    with pytest.raises(SettingsError, match=r"is not the table of FMA, with the columns set.subset, "):
        read_fma_small(audio, metadata=tmp_path, seed=0)
    write_fma_table(tmp_path, [["7", "A", "", "a98", "training", "medium", "Rock", "of another subset"]])
    with pytest.raises(SettingsError, match=r"has no clip of the small set in its part training"):
        read_fma_small(audio, metadata=tmp_path, seed=0)
