from pathlib import Path

from stream.commands.release import show_release
from tests.conftest import TowerOf
from tests.platform import taste


def shown(where: Path | None, capsys) -> str:
    show_release(where and str(where), as_json=False)
    return " ".join(capsys.readouterr().out.split())


def test_show_tells_the_tower_of_a_release(tmp_path: Path, tower_of: TowerOf, capsys) -> None:
    text = shown(taste.write_release(tmp_path / "release", tower_of(["a", "b"])), capsys)
    assert "taste space 40-d" in text
    assert (
        "user tower mean pooling, 40-d, 2 items, the newest 50 listens, trained until 2026-01-01 00:00:00 UTC" in text
    )


def test_show_says_that_a_release_has_no_tower(capsys) -> None:
    assert "user tower none" in shown(None, capsys)
