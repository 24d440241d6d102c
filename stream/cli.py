"""The `tastewave` command. Bodies import what they need, so that --help answers at once."""

from __future__ import annotations

import sys
from pathlib import Path

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
    """Answer uploaded tracks until SIGTERM.

    Needs the topics (`tastewave topics create`), Kafka and Redis; waits for what is away.

    \b
    Example:
      TASTEWAVE_FILE_ROOTS=/srv/uploads tastewave worker tracks
    """
    from stream.settings import load_settings
    from stream.worker.tracks import run_tracks_worker

    run_tracks_worker(load_settings())


@cli.group()
def release() -> None:
    """Look at a release, make one live."""


@release.command("show")
@click.argument("path", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as it is.")
def release_show(path: str | None, as_json: bool) -> None:
    """Verify the release at PATH (a folder or URL; the configured one when absent) and describe it.

    \b
    Examples:
      tastewave release show
      tastewave release show s3://models/tastewave/2026-11 --json
    """
    from stream.commands.release import show_release
    from stream.settings import load_settings

    show_release(path or load_settings().worker.release, as_json=as_json)


@release.command("activate")
@click.argument("release_id", required=False)
def release_activate(release_id: str | None) -> None:
    """Point readers at RELEASE_ID (the configured release when absent) through tw:live.

    Workers are not touched: run those of both releases side by side, activate the new one when it has
    answered, and go back by activating the previous one.

    \b
    Examples:
      tastewave release activate
      tastewave release activate 3f9c2a7d10be
    """
    from stream.commands.release import activate_release
    from stream.settings import load_settings

    activate_release(load_settings(), release_id)


@cli.group()
def topics() -> None:
    """Provision the Kafka topics, and compare them with the settings."""


@topics.command("create")
def topics_create() -> None:
    """Create the topics that are missing; those that are there stay as they are.

    \b
    Example:
      TASTEWAVE_TOPIC_REPLICATION=3 TASTEWAVE_TOPIC_MIN_INSYNC=2 tastewave topics create
    """
    from stream.commands.topics import create_topics, print_topics
    from stream.settings import load_settings

    print_topics(create_topics(load_settings()))


@topics.command("check")
def topics_check() -> None:
    """Report topics that are missing or differ from the settings; exit status 1 if there are any.

    \b
    Example:
      tastewave topics check || tastewave topics create
    """
    from stream.commands.topics import check_topics, print_topics
    from stream.settings import load_settings

    states = check_topics(load_settings())
    print_topics(states)
    if any(state.state != "there" for state in states):
        sys.exit(1)


@cli.command("dead-letters")
@click.option("--last", default=20, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.option("--json", "as_json", is_flag=True, help="A JSON line each, with the original value.")
def dead_letters(last: int, as_json: bool) -> None:
    """List the latest dead letters: events that could not be answered, and why.

    \b
    Examples:
      tastewave dead-letters
      tastewave dead-letters --last 500 --json | jq -r .reason | sort | uniq -c
    """
    from stream.broker.dead_letters import show_dead_letters
    from stream.settings import load_settings

    show_dead_letters(load_settings(), last=last, as_json=as_json)


@cli.group()
def rewind() -> None:
    """Answer a stretch of time again, after Redis lost what it had acknowledged."""


@rewind.command("tracks")
@click.option(
    "--minutes", required=True, type=click.IntRange(min=1), help="How far back; rather too far than too near."
)
@click.option("--release", help="The release whose workers are to answer again; the configured one when absent.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; the workers may run.")
def rewind_tracks(minutes: int, release: str | None, dry_run: bool) -> None:
    """Move the tracks workers' consumer group back to the uploads of N minutes ago.

    Stop the workers of the release first, and start them afterwards. What Redis lost is fetched and heard
    again; what it still holds is only published again. Failed uploads are tried again.

    \b
    Examples:
      tastewave rewind tracks --minutes 30 --dry-run
      tastewave rewind tracks --minutes 30
    """
    from stream.commands.rewind import rewind_tracks as rewind
    from stream.settings import load_settings

    rewind(load_settings(), minutes=minutes, release=release, dry_run=dry_run)


@cli.group()
def get() -> None:
    """Read an answer from Redis."""


@get.command("track")
@click.argument("track_id")
@click.option("--release", help="The release to ask; the live one when absent.")
@click.option("--json", "as_json", is_flag=True, help="The answer as it is on the output topic.")
def get_track(track_id: str, release: str | None, as_json: bool) -> None:
    """Show what is known of TRACK_ID; exit status 1 where nothing is.

    \b
    Examples:
      tastewave get track 5d41402abc4b2a76b9719d911017c592
      tastewave get track my-track --json | jq .genre
    """
    from stream.reader.answers import show_track
    from stream.settings import load_settings

    show_track(load_settings(), track_id, release=release, as_json=as_json)


@cli.command("upload")
@click.argument("audio", nargs=-1, required=True, metavar="FILE|FOLDER|URL...")
@click.option("--track-id", help="Id of the track, where only one is uploaded; from the content's hash when absent.")
@click.option("--wait", is_flag=True, help="Follow the uploads to their answers; exit status 1 if any failed.")
@click.option(
    "--timeout",
    "timeout_s",
    default=120.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="With --wait: give up when no answer came for so many seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON line for each upload.")
def upload_audio(audio: tuple[str, ...], track_id: str | None, wait: bool, timeout_s: float, as_json: bool) -> None:
    """Publish an upload event for each file, each audio file in a folder, and each URL.

    The worker fetches the audio itself: files must lie in its TASTEWAVE_FILE_ROOTS.

    \b
    Examples:
      tastewave upload song.mp3 --wait
      tastewave upload /srv/uploads --wait --json > answers.jsonl
      tastewave upload https://example.org/song.mp3 --track-id song-1
    """
    from stream.commands.upload import upload
    from stream.settings import load_settings

    upload(load_settings(), audio, track_id=track_id, wait=wait, timeout_s=timeout_s, as_json=as_json)


@cli.command("tag")
@click.argument("audio", nargs=-1, required=True, metavar="FILE|FOLDER...")
@click.option("--json", "as_json", is_flag=True, help="A JSON line for each file, as soon as it is known.")
@click.option("--top-k", default=5, show_default=True, type=click.IntRange(1, 50), help="Genres and tags to tell.")
@click.option("--release", metavar="PATH|URL", help="The release to hear with; the shipped one when absent.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the taggram of one file (PNG).")
@click.option(
    "--features",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write log-mel, taggram, tags, max_pool, mean_pool and penultimate of one whole file (npz).",
)
def tag_audio(
    audio: tuple[str, ...], *, as_json: bool, top_k: int, release: str | None, plot: Path | None, features: Path | None
) -> None:
    """Tell genre, confidence and tags of audio files. Needs no service.

    Of a folder, the audio files in it at any depth. A file that cannot be tagged does not stop the others,
    and makes the exit status 1.

    \b
    Examples:
      tastewave tag song.mp3
      tastewave tag ~/Music --json > tags.jsonl
      tastewave tag song.mp3 --plot taggram.png --features song.npz
    """
    from stream.commands.tag import tag_files

    tag_files(audio, release=release, top_k=top_k, as_json=as_json, plot=plot, features=features)


def main() -> None:
    """Entry point: an error of ours is one sentence and exit status 1."""
    try:
        cli()
    except TastewaveError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
