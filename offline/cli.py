"""The `tastewave-offline` command. Bodies import what they need, so that --help answers at once."""

from __future__ import annotations

import sys

import click

from models.errors import TastewaveError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tastewave")
def cli() -> None:
    """Convert networks, train and score the genre head, build a release, make synthetic audio."""


def main() -> None:
    """Entry point: an error of ours is one sentence and exit status 1."""
    try:
        cli()
    except TastewaveError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
