"""A job as a command: a small one, which writes nothing and prints its settings."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import msgspec
import pytest
from click.testing import CliRunner, Result
from msgspec import Meta

from models.errors import SettingsError
from offline.jobs import Argument, Job, JobCommand, Option


class Server(msgspec.Struct, frozen=True, kw_only=True):
    host: Annotated[str, Meta(description="Where it is.")] = "localhost"
    port: int = 80


class Tasting(msgspec.Struct, frozen=True, kw_only=True):
    log: Annotated[str, Meta(description="What is read.")]
    out: Annotated[str | None, Meta(description="Folder to write to.")] = None
    split: Annotated[Literal["temporal", "leave-last"], Meta(description="What is held back.")] = "temporal"
    wines: Annotated[int, Meta(description="How many are tasted.", ge=1, le=9)] = 4
    sip: Annotated[float, Meta(description="Of a glass.", gt=0.0, lt=1.0)] = 0.25
    cellars: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(description="These alone.")] = ()
    guests: Annotated[int | None, Meta(description="None: nobody.")] = None
    blind: Annotated[bool, Meta(description="Labels are hidden.")] = False
    minutes: Annotated[int, Meta(description="How long it lasts.")] = 60
    server: Annotated[Server, Meta(description="Where notes go.")] = Server()


@dataclass(frozen=True)
class Notes:
    settings: Tasting

    def lines(self) -> list[str]:
        return [f"tasted {self.settings}", "and noted"]


def run(settings: Tasting) -> Notes:
    return Notes(settings)


TASTE = Job(
    name="taste",
    settings=f"{__name__}:Tasting",
    run=f"{__name__}:run",
    short="Taste wines.",
    help="Taste the wines of LOG.",
    arguments=(Argument("log", "LOG"), Argument("out", "OUT_DIR", click.Path(file_okay=False))),
    options=(
        Option("--split"),
        Option("--wines"),
        Option("--sip"),
        Option("--cellar", "cellars", "N"),
        Option("--guests"),
        Option("--blind"),
        Option("--hours", "minutes", "HOURS", lambda text: 60 * int(text)),
        Option("--server-config", "server"),
    ),
)


def taste(*words: Any) -> Result:
    return CliRunner().invoke(JobCommand(TASTE), [str(word) for word in words])


def tasted(*words: Any) -> str:
    result = taste(*words)
    assert result.exit_code == 0, result.output
    return result.output


def test_what_is_not_given_has_its_default_and_the_outcome_is_printed():
    assert tasted("log") == f"tasted {Tasting(log='log')}\nand noted\n"


def test_every_setting_can_be_given_by_its_place_or_option_by_word_and_by_file(tmp_path: Path):
    (tmp_path / "server.toml").write_text('host = "cellar"\n')
    (tmp_path / "all.toml").write_text(
        'out = "notes"\nsplit = "leave-last"\nwines = 7\nsip = 0.5\ncellars = [1, 2]\nguests = 3\nblind = true\n'
        'minutes = 120\n[server]\nhost = "cellar"\n'
    )
    options = ["--split", "leave-last", "--wines", 7, "--sip", 0.5, "--cellar", 1, "--cellar", 2, "--guests", 3,
               "--blind", "--hours", 2, "--server-config", tmp_path / "server.toml"]  # fmt: skip
    words = ["out=notes", "split=leave-last", "wines=7", "sip=0.5", "cellars=[1, 2]", "guests=3", "blind=true",
             "minutes=120", "server.host=cellar"]  # fmt: skip
    expected = Tasting(log="log", out="notes", split="leave-last", wines=7, sip=0.5, cellars=(1, 2), guests=3,
                       blind=True, minutes=120, server=Server(host="cellar"))  # fmt: skip
    for given in (["notes", *options], words, ["--config", tmp_path / "all.toml"]):
        assert tasted("log", *given) == f"tasted {expected}\nand noted\n"


def test_an_option_wins_over_a_word_and_a_word_over_the_file(tmp_path: Path):
    (tmp_path / "some.toml").write_text("wines = 7\nguests = 3\nminutes = 30\n")
    given = ["--config", tmp_path / "some.toml", "wines=8", "guests=4", "--wines", 9]
    assert f"tasted {Tasting(log='log', wines=9, guests=4, minutes=30)}\n" in tasted("log", *given)


def test_a_word_in_the_place_of_an_argument_that_may_be_left_out_is_a_setting():
    assert f"tasted {Tasting(log='log', wines=7)}\n" in tasted("log", "wines=7")
    assert f"tasted {Tasting(log='log', out='a/b=c')}\n" in tasted("log", "a/b=c")


def test_the_help_text_of_an_option_is_what_is_said_of_its_setting():
    shown = " ".join(taste("--help").output.split())
    assert "Usage: taste [OPTIONS] LOG [OUT_DIR] [KEY=VALUE]..." in shown
    for option in (
        "--split [leave-last|temporal] What is held back. [default: temporal]",
        "--wines INTEGER RANGE How many are tasted. [default: 4; 1<=x<=9]",
        "--sip FLOAT RANGE Of a glass. [default: 0.25; 0.0<x<1.0]",
        "--cellar N These alone.",
        "--guests INTEGER None: nobody.",
        "--blind Labels are hidden.",
        "--hours HOURS How long it lasts. [default: 60]",
        "--server-config FILE Where notes go.",
    ):
        assert option in shown


def test_all_settings_are_shown_with_their_defaults_and_meanings():
    shown = taste("--settings").output
    assert shown.startswith("log\n    What is read.\nout\n    Folder to write to.\nsplit=")
    for setting in ("wines=4\n    How many are tasted.\n", "server.host=\"localhost\"\n    Where it is.\n",
                    "server.port=80\n", "blind=false\n    Labels"):  # fmt: skip
        assert setting in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Missing argument 'LOG'"),
        (["log", "--wines", 10], "10 is not in the range 1<=x<=9"),
        (["log", "--split", "all"], "'all' is not one of"),
        (["log", "--cellar", -1], "-1 is not in the range x>=0"),
        (["log", "--config", "absent.toml"], "'absent.toml' does not exist"),
        (["log", __file__], "is a file"),
    ],
)
def test_what_click_can_see_to_be_wrong_is_a_matter_of_usage(words, message):
    result = taste(*words)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["wines=10"], "Tasting cannot be set so: Expected `int` <= 9"),
        (["wins=3"], "Tasting has no setting 'wins'; did you mean wines"),
        (["notes", "wines"], "'wines' is no setting; write key=value, for example split="),
        (["--server-config", "absent.toml"], "absent.toml cannot be read"),
    ],
)
def test_other_wrong_settings_are_one_sentence(words, message):
    error = taste("log", *words).exception
    assert isinstance(error, SettingsError)
    assert str(error).startswith(message)


def test_a_command_imports_its_job_only_when_it_is_called():
    group = click.Group()
    group.add_command(JobCommand(replace(TASTE, settings="no.such.module:Settings", run="no.such.module:run")))
    shown = CliRunner().invoke(group, ["--help"])
    assert shown.exit_code == 0
    assert "Taste wines." in shown.output
    assert isinstance(CliRunner().invoke(group, ["taste", "--help"]).exception, ModuleNotFoundError)
