"""Commands of tastewave in the process of the tests, which has imported what a process of their own would import."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import click.testing

import offline.cli
import stream.cli
from stream.settings import PREFIX

TASTEWAVE = Path(sys.executable).with_name("tastewave")
OFFLINE = TASTEWAVE.with_name("tastewave-offline")
_MAIN: Mapping[str, Callable[[], None]] = {TASTEWAVE.name: stream.cli.main, OFFLINE.name: offline.cli.main}
_TIMEOUT_S = 120


def run_command(*command: str | Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command with these TASTEWAVE_* variables, whether it succeeds or not. An unexpected error is raised.

    A worker and a redrive set up signals or logs of a whole process: they get one.

        done = run_command("tastewave", "get", "track", "t1", environment=environment)
        done.returncode, done.stdout, done.stderr
    """
    name, *arguments = map(str, command)
    if arguments[0] == "worker" or arguments[:2] == ["dead-letters", "redrive"]:
        return subprocess.run(
            [TASTEWAVE.with_name(name), *arguments],
            env=environment, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S,
        )  # fmt: skip
    others = dict.fromkeys(one for one in os.environ if one.startswith(PREFIX))
    status = 0
    with (
        click.testing.CliRunner().isolation(env=others | environment) as (out, err, _),
        mock.patch.object(sys, "argv", [name, *arguments]),
    ):
        logs = logging.StreamHandler(sys.stderr)  # as Python prints them where nothing is set up
        logs.setLevel(logging.WARNING)
        logging.getLogger().addHandler(logs)
        try:
            _MAIN[name]()
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            logging.getLogger().removeHandler(logs)
            sys.stdout.flush()
        return subprocess.CompletedProcess(command, status, out.getvalue().decode(), err.getvalue().decode())
