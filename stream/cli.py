"""The `tastewave` command. Bodies import what they need, so that --help answers at once."""

from __future__ import annotations

import sys

import click

from models.errors import TastewaveError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tastewave")
def cli() -> None:
    """Tag uploaded tracks and follow listeners on Kafka, with answers in Redis."""


@cli.group()
def worker() -> None:
    """Run a worker; settings come from TASTEWAVE_* variables (see the table in the README)."""


@worker.command("tracks")
def worker_tracks() -> None:
    r"""Answer uploaded tracks until SIGTERM.

    Needs the topics (`tastewave topics create`), Kafka and Redis; waits for what is away.

    \b
    Example:
      TASTEWAVE_FILE_ROOTS=/srv/uploads tastewave worker tracks
    """
    from stream.settings import load_settings
    from stream.worker import run_tracks_worker

    run_tracks_worker(load_settings())


@cli.group()
def release() -> None:
    """Look at a release, make one live."""


@release.command("show")
@click.argument("path", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as it is.")
def release_show(path: str | None, as_json: bool) -> None:
    r"""Verify the release at PATH (a folder or URL; the configured one when absent) and describe it.

    \b
    Examples:
      tastewave release show
      tastewave release show s3://models/tastewave/2026-11 --json
    """
    from stream.release import show_release
    from stream.settings import load_settings

    show_release(path or load_settings().release, as_json=as_json)


@release.command("activate")
@click.argument("release_id", required=False)
def release_activate(release_id: str | None) -> None:
    r"""Point readers at RELEASE_ID (the configured release when absent) through tw:live.

    Workers are not touched: run those of both releases side by side, activate the new one when it has
    answered, and go back by activating the previous one.

    \b
    Examples:
      tastewave release activate
      tastewave release activate 3f9c2a7d10be
    """
    from stream.release import activate_release
    from stream.settings import load_settings

    activate_release(load_settings(), release_id)


def main() -> None:
    """Entry point: an error of ours is one sentence and exit status 1."""
    try:
        cli()
    except TastewaveError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
