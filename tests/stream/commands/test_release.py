from pathlib import Path

from stream.commands.release import show_release
from tests.platform import taste


def shown(where: Path | None, capsys) -> str:
    show_release(where and str(where), as_json=False)
    return " ".join(capsys.readouterr().out.split())


def test_show_tells_the_tower_of_a_release(tmp_path: Path, capsys) -> None:
    tower = taste.write_tower(tmp_path / "tower", ["a", "b"], history=20)
    text = shown(taste.write_release(tmp_path / "release", tower), capsys)
    assert "taste space 40-d" in text
    assert (
        "user tower mean pooling, 40-d, 2 items, the newest 20 listens, trained until 2026-01-01 00:00:00 UTC" in text
    )


def test_show_says_that_a_release_has_no_tower(capsys) -> None:
    assert "user tower none" in shown(None, capsys)


def test_a_release_whose_head_hears_artists_says_how_many_it_knows(tmp_path, capsys):
    folder = taste.write_release_that_hears_artists(tmp_path / "release", {"first": "jazz", "second": "metal"})
    assert "2 that the genre head knows by their listeners" in shown(folder, capsys)
