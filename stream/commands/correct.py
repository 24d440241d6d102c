"""`tastewave correct`: an editor's genre for a track, published and written into the answers of all releases."""

from __future__ import annotations

import click

from stream.settings import Settings
from stream.tracks.editor import correct


def show_correction(settings: Settings, track_id: str, genre: str, *, by: str) -> None:
    """Correct a track, and say in which releases. Arguments and errors are those of `correct`."""
    releases = correct(settings, track_id, genre, by=by)
    where = f"in {', '.join(releases)}" if releases else "once it has an answer"
    click.echo(f"{track_id} is {genre}, says {by}: {where}")
