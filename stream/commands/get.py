"""`tastewave get track` and `tastewave get user`: what Redis holds of a track, and of a user."""

from __future__ import annotations

import time
from typing import Any

import click

from models.errors import TastewaveError
from models.events import TrackTagged, UserEmbedded, encode_event
from models.release import Release, load_release
from stream.commands.tables import age, print_facts, print_table, utc
from stream.reader.answers import live_release, read_track, read_user
from stream.reader.offers import known_tracks, nearest_tracks
from stream.settings import RedisSettings, Settings
from stream.store.client import sync_client

_NEAREST = 5


class NoAnswer(TastewaveError):
    """No release is live, or the release has no answer for the track or the user."""


def show_track(settings: RedisSettings, track_id: str, *, release: str | None = None, as_json: bool = False) -> None:
    """Print the answer for a track in a release (the live one when None). Raises NoAnswer or RedisUnusable."""
    with sync_client(settings) as client:
        release = release or _live(client, settings)
        answer = read_track(client, track_id, release=release, key_prefix=settings.key_prefix)
    if answer is None:
        raise NoAnswer(f"release {release} knows no track {track_id}; upload it, or name another --release")
    if as_json:
        click.echo(encode_event(answer))
    else:
        print_facts(_facts(answer))


def show_user(settings: Settings, user_id: str, *, release: str | None = None, as_json: bool = False) -> None:
    """Print where a user stands in a release (the live one when None), and the nearest tracks that are new to them.

    A user of whom Redis knows nothing stands where the release puts people without a history.

    Args:
        settings: of Redis, and of the configured release, which knows the tracks.
        user_id: as in the listens.
        release: a release id.
        as_json: print the user as on tastewave.users.embedded, without the tracks.

    Raises:
        NoAnswer: no release is live, or Redis knows nothing of the user and the release is not the configured one.
        RedisUnusable: Redis is away.
        ReleaseError: the configured release cannot be read.
    """
    prefix = settings.redis.key_prefix
    with sync_client(settings.redis) as client:
        release = release or _live(client, settings.redis)
        configured = load_release(settings.worker.release)
        known = read_user(client, user_id, release=release, key_prefix=prefix)
        user = known or _nobody(user_id, release, configured)
        if as_json:
            click.echo(encode_event(user))
            return
        print_facts(_user_facts(user, is_known=known is not None))
        if configured.release_id != release:
            click.echo(f"Set TASTEWAVE_RELEASE to release {release} to see the nearest tracks.")
            return
        heard = known_tracks(client, user_id, key_prefix=prefix)
        nearest = nearest_tracks(configured.user_tower(), user.embedding, count=_NEAREST, without=heard)
        answers = {track: read_track(client, track, release=release, key_prefix=prefix) for track, _ in nearest}
    rows = [(track, *_title_and_genre(answers[track]), f"{score:.2f}") for track, score in nearest]
    print_table(("nearest new tracks", "title", "genre", "score"), rows)


def _nobody(user_id: str, release: str, configured: Release) -> UserEmbedded:
    """A user of whom nothing is known."""
    if configured.release_id != release:
        raise NoAnswer(
            f"release {release} knows no user {user_id}; publish a listen, or name another --release "
            "(set TASTEWAVE_RELEASE to it to see where people without a history stand)"
        )
    return UserEmbedded(
        user_id=user_id,
        release=release,
        embedding=configured.user_tower().manifest.global_embedding,
        source="global",
        listens=0,
        event_time=0,
        revision=0,
        refreshed_at=0,
    )


def _user_facts(user: UserEmbedded, *, is_known: bool) -> dict[str, str | None]:
    now_ms = time.time_ns() // 1_000_000
    return {
        "user": user.user_id,
        "source": user.source if is_known else f"{user.source} (Redis knows nothing of this user)",
        "listens": str(user.listens),
        "newest event": utc(user.event_time, timespec="milliseconds") if is_known else None,
        "refreshed": f"{age((now_ms - user.refreshed_at) / 1000)} ago" if is_known else None,
        "embedding": f"{len(user.embedding)} dimensions",
        "release": user.release,
    }


def _title_and_genre(answer: TrackTagged | None) -> tuple[str | None, str | None]:
    return (answer.title, answer.genre) if answer else (None, None)


def _live(client: Any, settings: RedisSettings) -> str:
    release = live_release(client, key_prefix=settings.key_prefix)
    if release is None:
        raise NoAnswer("no release is live; start a worker, or run `tastewave release activate`")
    return release


def _facts(answer: TrackTagged) -> dict[str, str | None]:
    verdict = {"tagged": answer.genre, "abstained": "abstained", "failed": f"failed: {answer.reason}"}
    if answer.corrected_at is not None:
        verdict["corrected"] = f"{answer.genre} (an editor, {utc(answer.corrected_at)})"
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
