from pathlib import Path

import polars as pl
import pytest

from models.errors import SettingsError
from offline.genre.catalogue import LabelledFile, choose_classes, label_array, read_source


def file(*labels: str) -> LabelledFile:
    return LabelledFile(where="x.wav", labels=labels, artist_id=None)


def test_a_folder_of_folders_names_the_genres(tmp_path: Path):
    for name in ("jazz/b.wav", "jazz/a.mp3", "Drum & Bass/c.ogg", "jazz/.hidden", ".cache/x.wav", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    files, unlabelled = read_source(tmp_path)
    assert unlabelled == 0
    assert [(Path(each.where).name, each.labels, each.artist_id) for each in files] == [
        ("c.ogg", ("Drum & Bass",), None),
        ("a.mp3", ("jazz",), None),
        ("b.wav", ("jazz",), None),
    ]


def test_a_catalogue_gives_paths_beside_it_urls_artists_and_several_genres(tmp_path: Path):
    (tmp_path / "c.csv").write_text(
        "path,genre,artist_id\naudio/1.mp3,Rock; Electronic---House;Rock,7\ns3://bucket/2.mp3,Pop,\n/music/3.mp3,,8\n"
    )
    files, unlabelled = read_source(tmp_path / "c.csv")
    assert unlabelled == 1
    assert files == [
        LabelledFile(where=str(tmp_path / "audio/1.mp3"), labels=("Rock", "Electronic---House"), artist_id="7"),
        LabelledFile(where="s3://bucket/2.mp3", labels=("Pop",), artist_id=None),
    ]
    frame = pl.DataFrame({"uri": ["1.mp3", "2.mp3"], "genre": [["Rock", "Pop"], []], "artist_id": [7, None]})
    frame.write_parquet(tmp_path / "c.parquet")
    files, unlabelled = read_source(tmp_path / "c.parquet")
    assert (files[0].labels, files[0].artist_id, unlabelled) == (("Rock", "Pop"), "7", 1)


def test_an_editors_genre_counts_instead_of_that_of_the_catalogue(tmp_path: Path):
    (tmp_path / "c.csv").write_text("track_id,path,genre\nt1,1.mp3,Rock; Pop\nt2,2.mp3,\nt3,3.mp3,Rock\n")
    files, unlabelled = read_source(tmp_path / "c.csv", corrections={"t1": "Dub", "t2": "Ska", "t9": "Pop"})
    assert ([each.labels for each in files], unlabelled) == ([("Dub",), ("Ska",), ("Rock",)], 0)
    (tmp_path / "c.csv").write_text("path,genre\n1.mp3,Rock\n")
    with pytest.raises(SettingsError, match="no column track_id"):
        read_source(tmp_path / "c.csv", corrections={"t1": "Dub"})
    with pytest.raises(SettingsError, match="is a folder"):
        read_source(tmp_path, corrections={"t1": "Dub"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name,genre\n1.mp3,Rock\n", "columns name, genre; give"),
        ("path,label\n1.mp3,Rock\n", "columns path, label; give"),
        ("path,genre\n,Rock\n", "rows without a path"),
        ("path,genre\n1.mp3,\n", "no track with a genre"),
        ("", "cannot be read"),
    ],
)
def test_a_catalogue_of_another_form_is_refused(tmp_path: Path, content: str, said: str):
    (tmp_path / "c.csv").write_text(content)
    with pytest.raises(SettingsError, match=said):
        read_source(tmp_path / "c.csv")


def test_a_source_that_is_not_there_or_empty_is_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match="cannot be read"):
        read_source(tmp_path / "missing.csv")
    with pytest.raises(SettingsError, match="no track with a genre"):
        read_source(tmp_path)


def test_classes_come_with_what_they_are_within_and_parents_first():
    files = [file("Electronic---House---Deep"), file("Rock"), file("Electronic---Techno")]
    assert choose_classes(files, ()) == (
        "Electronic", "Electronic---House", "Electronic---House---Deep", "Electronic---Techno", "Rock",
    )  # fmt: skip
    assert choose_classes(files, ("Rock", "Electronic---House")) == ("Electronic", "Electronic---House", "Rock")
    with pytest.raises(SettingsError, match="no track has the genre 'Rok'; did you mean Rock"):
        choose_classes(files, ("Rok",))
    with pytest.raises(SettingsError, match=r"no track has the genre 'gamelan'; there are Electronic, "):
        choose_classes(files, ("gamelan",))


def test_one_genre_a_track_is_a_number_and_several_are_a_row():
    assert label_array([file("b"), file("a"), file("b", "c")], ("a", "b")).tolist() == [1, 0, 1]
    assert label_array([file("b"), file("a", "b")], ("a", "b")).tolist() == [[False, True], [True, True]]
    within = label_array([file("a---x"), file("a"), file("b")], ("a", "a---x", "b"))
    assert within.tolist() == [[True, True, False], [True, False, False], [False, False, True]]


def test_a_track_of_a_finer_genre_is_one_of_what_that_is_within():
    files = [file("a---x"), file("a---y"), file("b")]
    assert choose_classes(files, ("a", "b")) == ("a", "b")
    assert label_array(files, ("a", "b")).tolist() == [0, 0, 1]
    finer = choose_classes(files, ("a---x", "b"))
    assert label_array(files, finer).tolist() == [[True, True, False], [True, False, False], [False, False, True]]
