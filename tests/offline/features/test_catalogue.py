from pathlib import Path
from typing import Any

import polars as pl
import pytest

from models.errors import SettingsError
from offline.features.catalogue import read_catalogue
from offline.features.settings import Features
from tests.offline.features.catalogues import write_table


def rows(where: Path, **settings: Any) -> list[tuple[str | None, ...]]:
    return read_catalogue(Features(catalogue=str(where), out="out", **settings)).rows()


def test_a_folder_gives_each_audio_file_its_path_as_id_and_its_first_folder_as_genre_where_that_is_asked(tmp_path):
    for name in ("rock/b.wav", "rock/live/a.MP3", "top.flac", "rock/cover.jpg", ".hidden/c.wav", "rock/.d.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert rows(tmp_path, genre_folders=True) == [
        ("rock/b.wav", f"{tmp_path}/rock/b.wav", None, "rock"),
        ("rock/live/a.MP3", f"{tmp_path}/rock/live/a.MP3", None, "rock"),
        ("top.flac", f"{tmp_path}/top.flac", None, None),
    ]
    assert {genre for *_, genre in rows(tmp_path)} == {None}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("place", ["uri", "path", "audio"])
def test_a_table_says_where_files_are_relative_to_itself(tmp_path, ending, place):
    table = write_table(
        tmp_path / f"tracks.{ending}",
        {
            "track_id": ["007", "b", "c", "d"],
            place: ["audio/a.wav", "/elsewhere/b.wav", "s3://bucket/c.wav", "file:///with%20space.wav"],
            "artist_id": ["x", None, "", "y"],
            "style": ["jazz", "", None, "rock"],
        },
    )
    assert rows(table, genre_column="style") == [
        ("007", f"{tmp_path}/audio/a.wav", "x", "jazz"),
        ("b", "/elsewhere/b.wav", None, None),
        ("c", "s3://bucket/c.wav", None, None),
        ("d", "file:///with%20space.wav", "y", "rock"),
    ]


def test_several_genres_of_a_track_are_joined(tmp_path):
    columns = {"track_id": ["a", "b"], "uri": ["a", "b"], "genre": [["Rock", "Electronic---House"], []]}
    pl.DataFrame(columns, schema_overrides={"genre": pl.List(pl.String)}).write_parquet(tmp_path / "tracks.parquet")
    assert [genre for *_, genre in rows(tmp_path / "tracks.parquet")] == ["Rock; Electronic---House", None]


def test_a_table_at_a_url_means_files_beside_itself():
    import fsspec

    with fsspec.open("memory://platform/tracks.csv", "w") as file:
        file.write("track_id,path\na,audio/a.wav\n")  # type: ignore[attr-defined]
    settings = Features(catalogue="memory://platform/tracks.csv", out="out")
    assert read_catalogue(settings)["uri"].to_list() == ["memory://platform/audio/a.wav"]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"id": ["a"], "uri": ["a.wav"]}, "has the columns id, uri; it needs track_id, and uri, path or audio"),
        ({"track_id": ["a"], "file": ["a.wav"]}, "has the columns track_id, file; it needs"),
        ({"track_id": ["a", "a"], "uri": ["a.wav", "b.wav"]}, "has the track a twice; leave one out"),
        ({"track_id": ["a", "b"], "uri": ["a.wav", None]}, "does not say where the audio of b is"),
        ({"track_id": ["a", ""], "uri": ["a.wav", "b.wav"]}, "has ids that are missing, empty"),
        ({"track_id": [], "uri": []}, "has no tracks; name a table of tracks"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_sentence(tmp_path, columns, sentence):
    with pytest.raises(SettingsError, match=sentence):
        rows(write_table(tmp_path / "tracks.parquet", columns))


def test_what_is_no_catalogue_is_one_sentence(tmp_path):
    (tmp_path / "tracks.parquet").write_bytes(b"no Parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="cannot be read as a catalogue"):
        rows(tmp_path / "tracks.parquet")
    with pytest.raises(SettingsError, match="cannot be read as a catalogue"):
        rows(tmp_path / "missing.csv")
    with pytest.raises(SettingsError, match="has no tracks"):
        rows(tmp_path / "empty")
    table = write_table(tmp_path / "tracks.csv", {"track_id": ["a"], "uri": ["a.wav"]})
    with pytest.raises(SettingsError, match="has no column kind; name one that has the genre"):
        rows(table, genre_column="kind")
