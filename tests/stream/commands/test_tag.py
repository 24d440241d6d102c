import io
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from models.errors import NotAudio, ReleaseError, SettingsError, TooLarge
from models.release import load_release
from stream.cli import cli, main
from stream.commands.tag import TaggingFailed, tag_files
from tests.platform import taste
from tests.platform.encoders import write_filterbank

RATE = 16000


def music(duration_s):
    t = np.arange(round(duration_s * RATE)) / RATE
    return (0.2 * np.sin(2 * np.pi * 220 * t) * (t % 0.5 < 0.3) + 0.1 * np.sin(2 * np.pi * 330 * t)).astype(np.float32)


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "song.wav"
    soundfile.write(path, music(8), RATE)
    return path


@pytest.fixture
def library(tmp_path):
    """A folder with two songs at different depths, a broken one, and what is no audio by its name."""
    folder = tmp_path / "library"
    (folder / "deep" / "er").mkdir(parents=True)
    soundfile.write(folder / "b.wav", music(5), RATE)
    soundfile.write(folder / "deep" / "er" / "a.FLAC", music(6), RATE, format="FLAC")
    (folder / "broken.mp3").write_bytes(b"this is no music")
    (folder / "cover.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def run(*arguments):
    return CliRunner().invoke(cli, ["tag", *map(str, arguments)], terminal_width=200)


def lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


class TestOneFile:
    def test_the_table_tells_genre_confidence_and_tags(self, song, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        result = run(song)
        assert result.exit_code == 0, result.output
        answer = lines(run(song, "--json"))[0]
        assert "song.wav" in result.stdout
        assert answer["genres"][0][0] in result.stdout
        assert f"{answer['confidence']:.2f}" in result.stdout
        assert "0:08" in result.stdout

    def test_a_json_line_has_the_fields_of_the_answer_to_an_upload(self, song):
        result = run(song, "--json", "--top-k", "3")
        assert result.exit_code == 0, result.output
        (answer,) = lines(result)
        assert answer["file"] == str(song)
        assert answer["release"] == load_release().release_id
        assert answer["status"] in ("tagged", "abstained")
        assert ("genre" in answer) == (answer["status"] == "tagged")
        assert len(answer["genres"]) == len(answer["tags"]) == 3
        assert answer["confidence"] == answer["genres"][0][1]
        assert answer["duration_s"] == 8.0
        assert not {"reason", "error"} & answer.keys()

    @pytest.mark.parametrize("name", [b"caf\xe9 \xff.wav", "日本語 $x^2$ [b].wav".encode(), b"line\nbreak.wav"])
    def test_a_file_may_have_any_name(self, tmp_path, name):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
        with Path(path).open("wb") as file:
            soundfile.write(file, music(4), RATE, format="WAV")
        tag_files([path], plot=tmp_path / "plot.png")
        tag_files([path], as_json=True)
        assert (tmp_path / "plot.png").stat().st_size > 10_000

    def test_a_named_file_is_tried_whatever_it_ends_in(self, song):
        renamed = song.rename(song.with_name("song.dat"))
        assert lines(run(renamed, "--json"))[0]["duration_s"] == 8.0

    def test_a_broken_file_is_a_row_with_its_reason_and_exit_status_1(self, tmp_path, monkeypatch, capsys):
        broken = tmp_path / "broken.mp3"
        broken.write_bytes(b"this is no music")
        monkeypatch.setattr(sys, "argv", ["tastewave", "tag", str(broken), "--json"])
        with pytest.raises(SystemExit) as exit_status:
            main()
        assert exit_status.value.code == 1
        out, err = capsys.readouterr()
        answer = json.loads(out)
        assert (answer["status"], answer["reason"]) == ("failed", "not_audio")
        assert "this is no m" in answer["error"]
        assert err == "Error: 1 of 1 files could not be tagged; see the reasons above\n"

    def test_a_file_that_is_not_there_is_not_found(self, tmp_path):
        result = run(tmp_path / "none.mp3", "--json")
        assert isinstance(result.exception, TaggingFailed)
        assert lines(result)[0]["reason"] == "not_found"

    def test_a_release_that_is_not_there_is_refused(self, song, tmp_path):
        assert isinstance(run(song, "--release", tmp_path / "none").exception, ReleaseError)


class TestTasteSpace:
    def test_json_tells_the_embedding_where_the_release_has_an_audio_encoder(self, tmp_path, song):
        encoder = write_filterbank(tmp_path / "encoder", dim=40)
        release = taste.write_release(tmp_path / "release", None, audio_encoder=encoder)
        (answer,) = lines(run(song, "--json", "--release", release))
        assert len(answer["embedding"]) == 40
        assert np.linalg.norm(answer["embedding"]) == pytest.approx(1.0, abs=1e-5)
        plain = taste.write_release(tmp_path / "plain", None)
        assert "embedding" not in lines(run(song, "--json", "--release", plain))[0]


class TestPipes:
    def test_a_pipe_is_heard_like_the_file_behind_it(self, song, tmp_path):
        pipe, plot = tmp_path / "pipe", tmp_path / "plot.png"
        os.mkfifo(pipe)
        with subprocess.Popen(["dd", f"if={song}", f"of={pipe}", "status=none"]):
            (heard,) = lines(run(pipe, "--json", "--plot", plot, "--features", tmp_path / "features.npz"))
        assert heard == lines(run(song, "--json"))[0] | {"file": str(pipe)}
        assert plot.exists()

    def test_as_a_shell_names_it(self, song):
        command = f"{sys.executable} -c 'from stream.cli import main; main()' tag --json <(cat {song}) {song}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        piped, named = map(json.loads, done.stdout.splitlines())
        assert piped["file"].startswith("/dev/fd/")
        assert piped | {"file": ""} == named | {"file": ""}

    def test_a_pipe_that_does_not_end_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("stream.commands.tag._PIPE_MAX_BYTES", 3 * 2**20)
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with subprocess.Popen(["dd", "if=/dev/zero", f"of={pipe}", "status=none"]), pytest.raises(TooLarge):
            tag_files([str(pipe)])


class TestManyFiles:
    def test_a_broken_file_does_not_stop_the_others_and_their_order_stays(self, library, song, tmp_path):
        result = run(song, library, tmp_path / "none.wav", "--json")
        assert isinstance(result.exception, TaggingFailed)
        assert "2 of 5 files" in str(result.exception)
        told = [(Path(line["file"]).name, line.get("reason")) for line in lines(result)]
        assert told == [
            ("song.wav", None),
            ("b.wav", None),
            ("broken.mp3", "not_audio"),
            ("a.FLAC", None),
            ("none.wav", "not_found"),
        ]

    def test_the_table_names_files_within_their_folder(self, library):
        result = run(library)
        assert isinstance(result.exception, TaggingFailed)
        assert result.stdout.startswith(f"in {library}\n")
        assert "deep/er/a.FLAC" in result.stdout
        assert "cover.jpg" not in result.stdout
        assert "not_audio" in result.stdout

    def test_many_files_and_one_file_get_the_same_answers(self, library, song):
        alone = lines(run(song, "--json"))
        both = lines(run(song, library / "b.wav", "--json"))
        assert both[0] == alone[0]

    def test_hidden_files_of_a_folder_are_left_out_and_named_ones_are_not(self, library, song):
        (library / "._b.wav").write_bytes(b"\0\5\x16\7 what macOS leaves on foreign disks")
        (library / ".trash").mkdir()
        song.rename(library / ".trash" / "old.wav")
        hidden = song.parent / ".hidden" / "library"
        hidden.parent.mkdir()
        library.rename(hidden)
        assert [Path(line["file"]).name for line in lines(run(hidden, "--json"))] == ["b.wav", "broken.mp3", "a.FLAC"]
        assert lines(run(hidden / ".trash" / "old.wav", "--json"))[0]["duration_s"] == 8.0

    def test_a_folder_without_audio_is_refused(self, tmp_path):
        (tmp_path / "notes.txt").write_text("nothing to hear")
        with pytest.raises(SettingsError, match="no audio file"):
            tag_files([str(tmp_path)])

    @pytest.mark.parametrize("option", ["plot", "features"])
    def test_a_plot_and_features_are_of_one_file(self, library, tmp_path, option):
        out = tmp_path / "out"
        with pytest.raises(SettingsError, match="one file, got 3"):
            tag_files([str(library)], **{option: out})
        assert not out.exists()


class TestPlot:
    def test_it_draws_a_picture(self, song, tmp_path):
        path = tmp_path / "taggram.png"
        assert run(song, "--plot", path).exit_code == 0
        picture = matplotlib.image.imread(path)
        assert picture.shape == (825, 1800, 4)
        assert len(np.unique(picture[200:700, 400:1500].reshape(-1, 4), axis=0)) > 20

    def test_a_file_that_cannot_be_tagged_is_not_drawn(self, tmp_path):
        silent = tmp_path / "silent.wav"
        soundfile.write(silent, np.zeros(5 * RATE), RATE)
        with pytest.raises(TaggingFailed):
            tag_files([str(silent)], plot=tmp_path / "taggram.png")
        assert not (tmp_path / "taggram.png").exists()


class TestFeatures:
    def test_it_writes_what_both_networks_hear_in_the_whole_file(self, tmp_path):
        path, out = tmp_path / "long.wav", tmp_path / "long.npz"
        soundfile.write(path, music(40), RATE)
        assert run(path, "--features", out).exit_code == 0
        with np.load(out) as arrays:
            assert {name: array.dtype.name for name, array in arrays.items()} == dict.fromkeys(
                [
                    "log_mel",
                    *(
                        f"{model}_{what}"
                        for model in ("mtt", "msd")
                        for what in ("taggram", "tags", "max_pool", "mean_pool", "penultimate")
                    ),
                ],
                "float32",
            )
            assert arrays["log_mel"].shape == (2501, 96)
            assert arrays["mtt_taggram"].shape == (13, 50)

    def test_what_is_no_audio_has_no_features(self, tmp_path):
        broken = tmp_path / "broken.mp3"
        broken.write_bytes(b"this is no music")
        with pytest.raises(NotAudio):
            tag_files([str(broken)], features=tmp_path / "out.npz")
        assert not (tmp_path / "out.npz").exists()

    @pytest.mark.parametrize("option", ["plot", "features"])
    def test_a_place_that_cannot_be_written_is_named(self, song, tmp_path, option):
        place = tmp_path / "none" / "out"
        with pytest.raises(SettingsError, match="cannot be written"):
            tag_files([str(song)], **{option: place})

    def test_nothing_is_left_where_writing_fails_in_the_middle(self, song, tmp_path, monkeypatch):
        out = tmp_path / "out.npz"
        out.write_bytes(b"the one from before")

        def full(file, **arrays):
            file.write(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np, "savez", full)
        with pytest.raises(SettingsError, match="No space left"):
            tag_files([str(song)], features=out)
        assert out.read_bytes() == b"the one from before"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz", "song.wav"]


class TestColdStart:
    def test_one_file_needs_none_of_the_slow_imports(self, song):
        slow = {"av", "matplotlib", "pydantic", "asyncio", "scipy", "kafka", "redis"}
        script = (
            "import sys\nfrom stream.commands.tag import tag_files\n"
            "assert 'numpy' not in sys.modules\n"
            f"tag_files([{str(song)!r}], as_json=True)\n"
            f"print(sorted({slow!r} & sys.modules.keys()))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"

    def test_lines_of_many_files_go_to_standard_output_alone(self, library):
        done = subprocess.run(
            [sys.executable, "-c", "from stream.cli import main; main()", "tag", str(library), "--json"],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 1
        assert [json.loads(line)["status"] == "failed" for line in io.BytesIO(done.stdout)] == [False, True, False]
