"""The `tastewave-offline` command: its list of jobs."""

import fcntl
import subprocess
import sys
from pkgutil import resolve_name

import pytest
from click.testing import CliRunner
from onnx import ModelProto

from models.errors import SettingsError
from offline.cli import JOBS, REPRODUCE_JOBS, SYNTH_JOBS, cli
from offline.config import describe_settings
from offline.jobs import Job

COMMANDS = (
    {(job.name,): job for job in JOBS}
    | {("synth", job.name): job for job in SYNTH_JOBS}
    | {("reproduce", job.name): job for job in REPRODUCE_JOBS}
)
every_job = pytest.mark.parametrize(("words", "job"), COMMANDS.items(), ids=map(" ".join, COMMANDS))
HEAVY = {"torch", "tensorflow", "sklearn", "polars", "pyarrow", "kafka", "numpy", "scipy", "rich"}


def modules_after(*words: str) -> set[str]:
    code = (
        "import sys\nfrom offline.cli import cli\n"
        f"cli({[*words]!r}, standalone_mode=False)\nprint('MODULES', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.partition("MODULES ")[2].split())


def test_help_imports_next_to_nothing():
    modules = modules_after("--help") | modules_after("synth", "--help")
    assert "offline.jobs" in modules
    assert modules.isdisjoint(HEAVY)
    assert not any(module.startswith("offline.") for module in modules - {"offline.cli", "offline.jobs"})


def test_the_help_of_every_command_names_its_jobs():
    assert len(COMMANDS) >= 5
    for words, job in COMMANDS.items():
        shown = CliRunner().invoke(cli, [*words[:-1], "--help"]).output
        assert f"  {job.name} " in shown


@every_job
def test_every_job_is_where_the_list_says_and_teaches_with_examples(words: tuple[str, ...], job: Job):
    assert callable(resolve_name(job.run))
    shown = CliRunner().invoke(cli, [*words, "--help"])
    assert shown.exit_code == 0, shown.output
    assert f"  tastewave-offline {' '.join(words)}" in shown.output
    assert "[KEY=VALUE]..." in shown.output


@every_job
def test_every_setting_of_every_job_is_shown_and_says_what_it_means(words: tuple[str, ...], job: Job):
    settings = list(describe_settings(resolve_name(job.settings)))
    shown = CliRunner().invoke(cli, [*words, "--settings"]).output.splitlines()
    assert settings
    for setting in settings:
        assert str(setting) in shown
        assert setting.meaning, f"{setting.name} needs Meta(description=...)"


def test_a_setting_that_has_no_option_is_set_by_a_word(tmp_path):
    options = ["--tracks", "8", "--users", "3", "--listens", "50", "no_audio=true", "zipf=0.5", "users=4"]
    result = CliRunner().invoke(cli, ["synth", "platform", str(tmp_path / "platform"), *options])
    assert result.exit_code == 0, result.output
    assert "50 listens of 3 users to 8 tracks" in result.output
    assert '"zipf": 0.5' in (tmp_path / "platform" / "truth" / "config.json").read_text()


def run_with(*words: object, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import sys\nfrom offline.cli import main\n{before}\nsys.argv[1:] = {[*map(str, words)]!r}\nmain()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("audio_format", ["flac", "wav", "ogg", "mp3"])
def test_a_disk_that_is_full_of_music_is_one_sentence_and_leaves_no_half_track(tmp_path, audio_format):
    full = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    words = ["synth", "audio", tmp_path / "music", "--tracks", 1, "--seconds", 5, "--format", audio_format]
    done = run_with(*words, before=full)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith(f"Error: {tmp_path}/music/")
    assert "cannot be written (" in done.stderr
    assert done.stderr.strip().endswith("make room, and run this again")
    assert len(done.stderr.splitlines()) == 1
    assert not list((tmp_path / "music").iterdir())


def test_an_error_of_a_disk_that_no_job_expected_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    lost = (
        "import pathlib\nfrom offline.cli import cli\n@cli.command()\ndef job():\n"
        f"    pathlib.Path({str(tmp_path / 'file' / 'of')!r}).read_bytes()"
    )
    done = run_with("job", before=lost)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: {tmp_path}/file/of cannot be used (Not a directory); mend that, and run this again\n"
    )


def test_what_would_replace_the_shipped_release_has_to_be_named(tmp_path):
    done = run_with("build-release", tmp_path)
    assert (done.returncode, done.stderr) == (1, "Error: BuildRelease needs the setting out; see --help\n")
    assert "Missing argument 'OUT_DIR'" in run_with("convert-musicnn").stderr
    assert "[required]" in CliRunner().invoke(cli, ["build-release", "--help"]).output


@pytest.mark.parametrize(
    ("words", "lock"),
    [
        (["train-user-tower", "log", "OUT"], "out.partial/.lock"),
        (["evaluate", "log", "OUT", 'towers=["tower"]'], "out/.lock"),
        (["ladder", "log", "OUT"], "out/.lock"),
        (["synth", "audio", "OUT", "--tracks", "1"], "out/.lock"),
        (["synth", "platform", "OUT", "--no-audio"], ".out.lock"),
        (["convert-musicnn", "OUT"], "out/.musicnn-msd.onnx.lock"),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_a_second_run_on_a_folder_is_one_sentence(words, lock, tmp_path, monkeypatch):
    monkeypatch.setattr("offline.musicnn.convert.published_weights", lambda _: {})
    monkeypatch.setattr("offline.musicnn.convert.build", lambda _: ModelProto())
    path = tmp_path / lock
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        said = CliRunner().invoke(cli, [str(tmp_path / "out") if word == "OUT" else word for word in words]).exception
    assert isinstance(said, SettingsError)
    assert str(said).startswith(f"another run is writing {tmp_path}/")
    assert str(said).endswith("; wait for its end, or name another place")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [lock]
