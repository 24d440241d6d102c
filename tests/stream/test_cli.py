from collections.abc import Iterator

import click
import pytest

from stream.cli import cli


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield " ".join((*names, name)), command


COMMANDS = dict(commands(cli))


def test_the_commands_are_those_that_an_operator_needs() -> None:
    assert sorted(COMMANDS) == [
        "contract check",
        "correct",
        "dead-letters",
        "dead-letters redrive",
        "forget track",
        "forget user",
        "get track",
        "get user",
        "listen",
        "parity",
        "release activate",
        "release rescore",
        "release show",
        "rewind listens",
        "rewind tracks",
        "serve",
        "simulate",
        "tag",
        "topics check",
        "topics create",
        "upload",
        "users rebuild",
        "worker listens",
        "worker tracks",
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example_and_a_text_for_each_option(name: str) -> None:
    command = COMMANDS[name]
    assert f"tastewave {name}" in (command.help or "").partition("Example")[2]
    assert all(option.help for option in command.params if isinstance(option, click.Option))
