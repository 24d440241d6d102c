"""`tastewave get track`: the answer for a track, as Redis holds it."""

from __future__ import annotations

import click

from models.errors import TastewaveError
from models.events import TrackTagged, encode_event
from stream.commands.tables import print_facts, utc
from stream.reader.answers import live_release, read_track
from stream.settings import RedisSettings
from stream.store.client import sync_client


class NoAnswer(TastewaveError):
    """No release is live, or the release has no answer for the track."""


def show_track(settings: RedisSettings, track_id: str, *, release: str | None = None, as_json: bool = False) -> None:
    """Print the answer for a track in a release (the live one when None). Raises NoAnswer or RedisUnusable."""
    with sync_client(settings) as client:
        release = release or live_release(client, key_prefix=settings.key_prefix)
        if release is None:
            raise NoAnswer("no release is live; start a worker, or run `tastewave release activate`")
        answer = read_track(client, track_id, release=release, key_prefix=settings.key_prefix)
    if answer is None:
        raise NoAnswer(f"release {release} knows no track {track_id}; upload it, or name another --release")
    if as_json:
        click.echo(encode_event(answer))
    else:
        print_facts(_facts(answer))


def _facts(answer: TrackTagged) -> dict[str, str | None]:
    verdict = {"tagged": answer.genre, "abstained": "abstained", "failed": f"failed: {answer.reason}"}
    uploaded, tagged = (utc(time, timespec="milliseconds") for time in (answer.event_time, answer.tagged_at))
    return {
        "track": answer.track_id,
        "title": answer.title or None,
        "artist": answer.artist_id or None,
        "genre": verdict[answer.status],
        "confidence": None if answer.confidence is None else f"{answer.confidence:.2f}",
        "genres": _ranked(answer.genres) + (" (from the tags)" if answer.genres_from else "") or None,
        "tags": _ranked(answer.tags) or None,
        "embedding": f"{len(answer.embedding)} dimensions" if answer.embedding else None,
        "release": answer.release,
        "uploaded": uploaded,
        "tagged": f"{tagged}, {answer.tagged_at - answer.event_time} ms later",
    }


def _ranked(pairs: tuple[tuple[str, float], ...]) -> str:
    return ", ".join(f"{name} {probability:.2f}" for name, probability in pairs)
