"""Answers in Redis, read: for operators, and for services in Python that would rather not read the keys themselves."""

from __future__ import annotations

import datetime
from typing import Any

from models.contract import LIVE_KEY, track_answer, track_key
from models.errors import TastewaveError
from models.events import TrackTagged, encode_event
from stream.settings import Settings
from stream.store.client import sync_client


class NoAnswer(TastewaveError):
    """No release is live, or the track is unknown to the release."""


def live_release(client: Any) -> str | None:
    """The release that readers should use now, or None where none is live.

    client: a redis.Redis or RedisCluster that returns bytes. Keep the answer for one second at most.
    """
    release: bytes | None = client.hget(LIVE_KEY, "release")
    return release.decode() if release else None


def read_track(client: Any, track_id: str, *, release: str | None = None) -> TrackTagged | None:
    """The answer for a track in a release (the live one when None); None where there is none.

    client: a redis.Redis or RedisCluster that returns bytes.
    """
    release = release or live_release(client)
    fields: dict[bytes, bytes] = client.hgetall(track_key(release, track_id)) if release else {}
    return track_answer(track_id, release, fields) if release and fields else None


def show_track(settings: Settings, track_id: str, *, release: str | None, as_json: bool) -> None:
    """Print the answer for a track. Raises NoAnswer or RedisUnusable."""
    import click

    with sync_client(settings.redis) as client:
        release = release or live_release(client)
        if release is None:
            raise NoAnswer("no release is live; start a worker, or run `tastewave release activate`")
        answer = read_track(client, track_id, release=release)
    if answer is None:
        raise NoAnswer(f"release {release} knows no track {track_id}; upload it, or name another --release")
    if as_json:
        click.echo(encode_event(answer))
    else:
        _print_answer(answer)


def _print_answer(answer: TrackTagged) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    verdict = {"tagged": answer.genre or "", "abstained": "abstained", "failed": f"failed: {answer.reason}"}
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim")

    def row(name: str, value: str | None) -> None:
        if value:
            table.add_row(name, Text(value))

    row("track", answer.track_id)
    row("title", answer.title)
    row("artist", answer.artist_id)
    row("genre", verdict[answer.status])
    row("confidence", None if answer.confidence is None else f"{answer.confidence:.2f}")
    row("genres", ranked(answer.genres))
    row("tags", ranked(answer.tags))
    row("embedding", f"{len(answer.embedding)} dimensions" if answer.embedding else None)
    row("release", answer.release)
    row("uploaded", _time(answer.event_time))
    row("tagged", f"{_time(answer.tagged_at)}, {answer.tagged_at - answer.event_time} ms later")
    Console().print(table)


def ranked(pairs: tuple[tuple[str, float], ...]) -> str:
    """Names and probabilities on one line, best first."""
    return ", ".join(f"{name} {probability:.2f}" for name, probability in pairs)


def _time(milliseconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(milliseconds / 1000, tz=datetime.UTC)
    return moment.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", " UTC")
