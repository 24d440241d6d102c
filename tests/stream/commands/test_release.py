import json
from pathlib import Path

from stream.commands.release import show_release
from tests.conftest import TowerOf
from tests.platform import taste
from tests.platform.encoders import write_filterbank, write_mean_mel


def shown(where: Path | None, capsys) -> str:
    show_release(where and str(where), as_json=False)
    return " ".join(capsys.readouterr().out.split())


def test_show_tells_the_tower_of_a_release(tmp_path: Path, tower_of: TowerOf, capsys) -> None:
    text = shown(taste.write_release(tmp_path / "release", tower_of(["a", "b"])), capsys)
    assert "taste space 40-d" in text
    assert (
        "user tower mean pooling, 40-d, 2 items, the newest 50 listens, trained until 2026-01-01 00:00:00 UTC" in text
    )


def test_show_says_that_a_taste_space_is_a_demonstration(tmp_path: Path, tower_of: TowerOf, capsys) -> None:
    folder = taste.write_release(tmp_path / "release", tower_of(["a", "b"]))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["demonstration"] = "All of it is made up."
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert (
        "taste space 40-d, a demonstration, learned from a made-up platform: All of it is made up. user tower"
    ) in shown(folder, capsys)


def test_show_says_that_a_release_has_no_tower(tmp_path: Path, capsys) -> None:
    text = shown(taste.write_release(tmp_path / "release", None), capsys)
    assert "taste space none user tower none" in text
    assert "audio encoder none" in text


def test_show_says_that_the_taste_space_of_the_shipped_release_is_a_demonstration(capsys) -> None:
    assert (
        "taste space 40-d, a demonstration, learned from a made-up platform: Figures measured on this platform are "
        "plumbing: they were programmed in. user tower mean pooling, 40-d"
    ) in shown(None, capsys)


def test_show_tells_the_audio_encoders_of_a_release_and_their_licences(tmp_path: Path, capsys) -> None:
    encoder = write_mean_mel(tmp_path / "encoder", frames=938)
    block = write_filterbank(tmp_path / "block", dim=7, sample_rate=24_000, window_s=10.0)
    text = shown(
        taste.write_release(tmp_path / "release", None, audio_encoder=encoder, blocks={"foreign": block}), capsys
    )
    assert (
        "audio encoder mean mel, 96-d, hears a log-mel of 938 frames and 96 mels of 30 s at 16000 Hz; "
        "licence: of the tests"
    ) in text
    assert "block foreign filterbank, 7-d, hears the waveform of 10 s at 24000 Hz; licence: of the tests" in text


def test_a_release_whose_head_hears_artists_says_how_many_it_knows(tmp_path, capsys):
    folder = taste.write_release_that_hears_artists(tmp_path / "release", {"first": "jazz", "second": "metal"})
    assert "2 that the genre head knows by their listeners" in shown(folder, capsys)
