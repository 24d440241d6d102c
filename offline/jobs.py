"""Jobs as commands: every setting of every job is given and shown in the same way.

    LADDER = Job(
        name="ladder",
        settings="offline.user_tower.settings:TowerTraining",
        run="offline.user_tower.ladder:run",
        arguments=(Argument("log", "LOG"), Argument("out", "OUT_DIR")),
        options=(Option("--split"),),
        short="Compare the deployed form of towers with freer ones.",
        help="Print what the 40-d cosine costs on LOG.",
    )
    cli.add_command(JobCommand(LADDER))

makes the command `ladder LOG OUT_DIR [KEY=VALUE]...` with the options --split, --config and --settings. What --split
takes, its default and its help text are those of the setting `split`. A job's modules are imported when its command is
called, so that the help of the whole program answers at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Protocol

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    import msgspec
    from msgspec.inspect import Type

    from offline.config import Setting

_WORD = re.compile(r"[\w.]+=")
ClickType = click.ParamType | Callable[[str], Any]


class Outcome(Protocol):
    """What the `run` of a job returns."""

    def lines(self) -> list[str]:
        """What the command prints."""
        ...


@dataclass(frozen=True)
class Argument:
    """A setting that is given by its place on the command line; it may be left out where the setting has a default.

    Args:
        sets: name of the setting.
        shown: its name in the help text, for example OUT_DIR.
        type: how click reads it; as text when it is None.
    """

    sets: str
    shown: str
    type: ClickType | None = None


@dataclass(frozen=True)
class Option:
    """A setting that has an option of its own.

    Args:
        flag: for example --split.
        sets: name of the setting; that of the flag when it is None.
        shown: name of the value in the help text; click's own when it is None.
        type: how click reads the value. When it is None, it follows from the setting: a setting that is true or
            false is a flag, the value of one that is a struct is a TOML file, an option for a tuple may be repeated.
    """

    flag: str
    sets: str | None = None
    shown: str | None = None
    type: ClickType | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command of `tastewave-offline`.

    Attributes:
        name: of the command.
        settings: the frozen struct of its settings, as `module:class`; --help imports this module.
        run: the function that takes the settings and returns an Outcome, as `module:function`.
        short: a few words for the list of commands.
        help: text of --help, with examples.
        arguments: settings that are given by their place.
        options: settings that have options of their own; KEY=VALUE and --config set these too.
    """

    name: str
    settings: str
    run: str
    short: str
    help: str
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()


class JobCommand(click.Command):
    """The command of a job."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.name, help=job.help, short_help=job.short)
        self.job = job

    def describe(self) -> dict[str, Setting]:
        """The job's settings by name."""
        from offline.config import describe_settings

        return {setting.name: setting for setting in describe_settings(self._kind())}

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's parameters; click asks for them when the command is called, not when it is listed."""
        if not self.params:
            self.params = [*self._parameters()]
        return super().get_params(ctx)

    def invoke(self, ctx: click.Context) -> None:
        """Run the job and print the lines of its outcome."""
        from offline.config import load_config

        given = {
            name: value
            for name, value in ctx.params.items()
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        }
        toml, words = given.pop("toml", None), list(given.pop("words", ()))
        for argument in self.job.arguments:  # click takes the first KEY=VALUE for an argument that was left out
            if _WORD.match(str(given.get(argument.sets))) and not self.describe()[argument.sets].required:
                words.insert(0, given.pop(argument.sets))
        settings = load_config(self._kind(), toml=toml, overrides=words, **given)
        outcome: Outcome = resolve_name(self.job.run)(settings)
        for line in outcome.lines():
            click.echo(line)

    def _kind(self) -> type[msgspec.Struct]:
        return resolve_name(self.job.settings)

    def _parameters(self) -> Iterator[click.Parameter]:
        settings = self.describe()
        for argument in self.job.arguments:
            required = settings[argument.sets].required
            shown = argument.shown if required else f"[{argument.shown}]"
            yield click.Argument([argument.sets], metavar=shown, type=argument.type, required=required)
        yield click.Argument(["words"], metavar="[KEY=VALUE]...", nargs=-1)
        for option in self.job.options:
            sets = option.sets or option.flag.removeprefix("--").replace("-", "_")
            yield _click_option(option, settings[sets])
        yield click.Option(["--config", "toml"], type=click.Path(exists=True, dir_okay=False, path_type=Path),
                           metavar="FILE", help="TOML file of settings; KEY=VALUE wins over it.")  # fmt: skip
        yield click.Option(["--settings"], is_flag=True, is_eager=True, expose_value=False,
                           callback=self._show_settings, help="List what KEY can be, and exit.")  # fmt: skip

    def _show_settings(self, ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if not wanted:
            return
        for setting in self.describe().values():
            click.echo(setting)
            if setting.meaning:
                click.echo(click.wrap_text(setting.meaning, 100, initial_indent="    ", subsequent_indent="    "))
        ctx.exit()


def _click_option(option: Option, setting: Setting) -> click.Option:
    """The option of a setting; click calls its value by the name of the setting."""
    from msgspec.inspect import BoolType, StructType, VarTupleType

    kind, takes = setting.type, {}
    if isinstance(kind, BoolType):
        takes = {"is_flag": True}
    elif isinstance(kind, VarTupleType):
        takes = {"type": option.type or _click_type(kind.item_type), "multiple": True, "metavar": option.shown}
    else:
        shown = option.shown or ("FILE" if isinstance(kind, StructType) else None)
        takes = {"type": option.type or _click_type(kind), "metavar": shown}
    if not setting.required and not isinstance(kind, StructType):
        takes |= {"default": setting.default, "show_default": True}
    # It may stand in a file or a word as well, so that click cannot ask for it.
    meaning = f"{setting.meaning}  [required]" if setting.required else setting.meaning
    return click.Option([option.flag, setting.name], help=meaning, **takes)


def _click_type(kind: Type) -> ClickType:
    """How click reads a setting of a type; what it does not check, load_config does."""
    from msgspec.inspect import FloatType, IntType, LiteralType, StructType

    from offline.config import load_config

    match kind:
        case LiteralType(values):
            return click.Choice(values)
        case StructType(struct):
            return lambda path: load_config(struct, toml=Path(path))
        case IntType() | FloatType():
            whole = isinstance(kind, IntType)
            low, high = (kind.gt if kind.ge is None else kind.ge), (kind.lt if kind.le is None else kind.le)
            if low is None and high is None:
                return click.INT if whole else click.FLOAT
            between = click.IntRange if whole else click.FloatRange
            return between(low, high, min_open=kind.gt is not None, max_open=kind.lt is not None)
        case _:
            return click.STRING
