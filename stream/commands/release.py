"""`tastewave release show` and `tastewave release activate`."""

from __future__ import annotations

import re
from typing import Any, Literal

import click
import msgspec

from models.audio_encoder import AudioEncoder, LogMelInput
from models.contract import live_key
from models.errors import TastewaveError
from models.release import Release, load_release
from stream.commands.tables import print_facts, progress_bar, utc
from stream.settings import Settings
from stream.store.client import sync_client
from stream.store.coverage import coverage
from stream.store.live import activate, has_answers


class UnknownRelease(TastewaveError):
    """Nothing is known of a release that is to go live."""


class ReleaseCoversTooLittle(TastewaveError):
    """A release that is to go live lacks much of what the live one has."""


def show_release(where: str | None, *, as_json: bool) -> None:
    """Verify a release and print what is in it.

    Args:
        where: its folder or URL; the shipped one when None.
        as_json: the whole manifest instead of a summary.

    Raises:
        ReleaseError: it is missing or damaged.
    """
    release = load_release(where)
    manifest = release.manifest
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        return
    configuration = manifest.configuration
    lufs = configuration.loudness_lufs
    loudness = "as loud as it is" if lufs is msgspec.UNSET else f"made {lufs:g} LUFS loud"
    print_facts(
        {
            "contract": str(manifest.contract),
            "created": f"{manifest.created} by tastewave {manifest.code_version}",
            "hears": f"up to {configuration.windows} windows of {configuration.window_s} s, "
            f"front end {configuration.front_end}, {loudness}",
            "networks": f"{', '.join(configuration.networks)}; workers run {', '.join(configuration.run)}",
            "genres": ", ".join(configuration.genres),
            "taste space": _taste_text(release),
            "user tower": _tower_text(release),
            "audio encoder": _encoder_text(release.audio_encoder()),
            **{f"block {name}": _encoder_text(encoder) for name, encoder in release.blocks().items()},
            "artists": _artists_text(release),
            "metrics": ", ".join(f"{name} {value}" for name, value in manifest.metrics.items()),
            "training": ", ".join(f"{k} {v}" for k, v in manifest.training.items() if isinstance(v, int | float)),
            "files": "\n".join(f"{name}  {file.bytes:,} bytes" for name, file in manifest.files.items()),
        },
        title=f"release {manifest.release_id}, verified",
    )


def _taste_text(release: Release) -> str:
    dim, caveat = release.configuration.embedding_dim, release.manifest.demonstration
    if not dim:
        return "none"
    return f"{dim}-d" + (f", a demonstration, learned from a made-up platform: {caveat}" if caveat else "")


def _tower_text(release: Release) -> str:
    if release.configuration.user_tower is msgspec.UNSET:
        return "none: `tastewave worker listens` needs one"
    tower = release.user_tower().manifest
    text = f"{tower.pooling} pooling, {tower.dim}-d, {tower.items:,} items, the newest {tower.history} listens"
    until_ms = tower.training.get("trained_until_ms")  # of earlier versions, a tower does not tell
    return text if until_ms is None else f"{text}, trained until {utc(until_ms)}"


def _encoder_text(encoder: AudioEncoder | None) -> str:
    if encoder is None:
        return "none: tracks that the user tower does not know have no embedding"
    manifest = encoder.manifest
    heard = manifest.input
    what = (
        f"a log-mel of {heard.frames} frames and {heard.mel.n_mels} mels"
        if isinstance(heard, LogMelInput)
        else "the waveform"
    )
    return (
        f"{manifest.name}, {manifest.dim}-d, hears {what} of {manifest.window_s:g} s at {manifest.sample_rate} Hz; "
        f"licence: {manifest.licence}"
    )


def _artists_text(release: Release) -> str:
    table = release.artist_table()
    return "none" if table is None else f"{len(table):,} that the genre head knows by their listeners"


def activate_release(settings: Settings, release: str | None, *, force: bool = False) -> None:
    """Point tw:live at a release.

    Args:
        settings: of Redis, and of the configured release.
        release: its id, folder or URL; the configured release when None.
        force: whether to take an id that nothing is known of, and a release that covers too little.

    Raises:
        UnknownRelease: Redis has no answer of the release, and the configured release is another one.
        ReleaseCoversTooLittle: readers would miss more tracks or users of the live release than the settings allow.
        ReleaseError: no release is at the folder or URL.
        RedisUnusable: Redis is away.
    """
    is_known = force
    if release is None:
        release, is_known = load_release(settings.worker.release).release_id, True
    elif not re.fullmatch(r"[0-9a-f]{12}", release):
        release, is_known = load_release(release).release_id, True
    prefix = settings.redis.key_prefix
    with sync_client(settings.redis) as client:
        if (
            not is_known
            and not has_answers(client, release, key_prefix=prefix)
            and not _is_configured(settings, release)
        ):
            raise UnknownRelease(
                f"Redis has no answer of release {release}, and the configured release is another one; check the id, "
                "start workers of the release, or add --force"
            )
        pointed: Any = client.hget(live_key(prefix=prefix), "release")
        live = (pointed or b"").decode()
        if live and live != release and not force:
            _check_coverage(settings, client, release, live=live)
        previous = activate(client, release, key_prefix=prefix)
    click.echo(f"{release} is live" + (f"; go back with `tastewave release activate {previous}`" if previous else ""))


_MENDS = {
    "track": "run `tastewave release rescore` with it, or wait until its workers have heard them",
    "user": "run `tastewave users rebuild` with it",
}


def _check_coverage(settings: Settings, client: Any, release: str, *, live: str) -> None:
    """Raise ReleaseCoversTooLittle where readers of the release would miss too much of what they find now."""
    least, prefix = settings.worker.least_coverage, settings.redis.key_prefix
    kinds: tuple[Literal["track", "user"], ...] = ("track", "user")
    for what in kinds:
        with progress_bar() as progress:
            task = progress.add_task(f"{what}s of {live}", total=None)
            found = coverage(
                client, what, of=live, by=release, least=least, key_prefix=prefix,
                on_keys=lambda keys, task=task: progress.advance(task, keys),
            )  # fmt: skip
        if not found.tells(least):
            seen = f"all {found.keys:,}" if found.whole else f"{found.keys:,} drawn"
            raise ReleaseCoversTooLittle(
                f"release {release} covers {100 * found.share:.2f} % of {seen} {what}s of the live release {live}, and "
                f"{100 * least:g} % are needed (TASTEWAVE_LEAST_COVERAGE): readers would find nothing of the others; "
                f"{_MENDS[what]}, or add --force"
            )


def _is_configured(settings: Settings, release: str) -> bool:
    return load_release(settings.worker.release).release_id == release
