"""The `tastewave` command. Each command imports what it needs when it runs, so that --help answers at once."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from models.errors import TastewaveError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tastewave")
def cli() -> None:
    """Tag the uploaded tracks of a music platform: events on Kafka, answers in Redis.

    Settings are environment variables that start with TASTEWAVE_ (see deploy/docs/settings.md).

    \b
    Without Kafka and Redis:
      tastewave tag song.mp3
    With them:
      tastewave topics create
      tastewave worker tracks
      tastewave upload song.mp3 --wait
    """


@cli.group()
def worker() -> None:
    """Run a worker. Its settings are TASTEWAVE_* variables (see deploy/docs/settings.md)."""


@worker.command("tracks")
def worker_tracks() -> None:
    """Answer uploaded tracks until SIGTERM.

    Needs Kafka with the topics (`tastewave topics create`), and Redis. While one of them is away, the worker waits.

    \b
    Example:
      TASTEWAVE_FILE_ROOTS=/srv/uploads tastewave worker tracks
    """
    from stream.worker.stop import end_at_signals

    end_at_signals()
    from stream.settings import load_settings
    from stream.worker.tracks import run_tracks_worker

    run_tracks_worker(load_settings())


@worker.command("listens")
def worker_listens() -> None:
    """Refresh the users of listens until SIGTERM.

    Needs a release with a user tower (`tastewave release show` tells), Kafka with the topics (`tastewave topics
    create`), and Redis. While one of the servers is away, the worker waits.

    \b
    Example:
      TASTEWAVE_RELEASE=releases/2026-11 tastewave worker listens
    """
    from stream.worker.stop import end_at_signals

    end_at_signals()
    from stream.settings import load_settings
    from stream.worker.listens import run_listens_worker

    run_listens_worker(load_settings())


@cli.group()
def release() -> None:
    """Look at a release, or choose the one that readers use."""


@release.command("show")
@click.argument("path", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest.")
def release_show(path: str | None, as_json: bool) -> None:
    """Verify a release and describe it.

    PATH is a folder or URL; without it, the release of TASTEWAVE_RELEASE, or the shipped one.

    \b
    Examples:
      tastewave release show
      tastewave release show s3://models/tastewave/2026-11 --json
    """
    from stream.commands.release import show_release
    from stream.settings import load_settings

    show_release(path or load_settings().worker.release, as_json=as_json)


@release.command("activate")
@click.argument("release_id", required=False, metavar="[RELEASE_ID|PATH]")
@click.option("--force", is_flag=True, help="Take a RELEASE_ID that nothing is known of.")
def release_activate(release_id: str | None, force: bool) -> None:
    """Make a release the live one, whose answers readers use (the key tw:live in Redis).

    It is named by its id, or by the folder or URL where it is. Without a name, it is the release of
    TASTEWAVE_RELEASE, or the shipped one. An id that has no answer in Redis and is not that of this release is
    refused: it may be misspelt, and readers would find nothing.

    Workers do not change. To move to another release, run workers of both side by side, and activate the
    new release when it has answered. To go back, activate the previous one.

    \b
    Examples:
      tastewave release activate
      tastewave release activate 3f9c2a7d10be
      tastewave release activate s3://models/tastewave/2026-11
    """
    from stream.commands.release import activate_release
    from stream.settings import load_settings

    activate_release(load_settings(), release_id, force=force)


@cli.group()
def topics() -> None:
    """Create the Kafka topics, or compare them with the settings."""


@topics.command("create")
def topics_create() -> None:
    """Create the topics that are missing. Topics that exist are not changed.

    \b
    Example:
      TASTEWAVE_TOPIC_REPLICATION=3 TASTEWAVE_TOPIC_MIN_INSYNC=2 tastewave topics create
    """
    from stream.commands.topics import create_topics, print_topics
    from stream.settings import load_settings

    print_topics(create_topics(load_settings()))


@topics.command("check")
def topics_check() -> None:
    """List the topics with their differences from the settings.

    The exit status is 1 when a topic is missing or differs.

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


@cli.command("parity")
@click.option("--sample", default=1000, show_default=True, type=click.IntRange(min=1), help="How many users to draw.")
@click.option(
    "--minutes",
    default=60,
    show_default=True,
    type=click.IntRange(min=1),
    help="How far back to read the listens on Kafka. About 20,000 are read in a second.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line.")
def parity(sample: int, minutes: int, as_json: bool) -> None:
    """Check that users stand where the listens on Kafka put them.

    Some users are drawn from Redis. Their histories and embeddings in the release of TASTEWAVE_RELEASE are computed
    anew from the listens of the last minutes and what Redis holds from before. The workers may run. The exit status
    is 1 when a user differs.

    \b
    Examples:
      tastewave parity
      tastewave parity --sample 100 --minutes 10 --json | jq .differing
    """
    from stream.commands.parity import check_parity
    from stream.settings import load_settings

    if not check_parity(load_settings(), sample=sample, minutes=minutes, as_json=as_json):
        sys.exit(1)


@cli.command("dead-letters")
@click.option("--last", default=20, show_default=True, type=click.IntRange(min=1), help="How many to list.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each, with the original value.")
def dead_letters(last: int, as_json: bool) -> None:
    """List the events that could not be answered.

    These are the latest dead letters, each with its age, the reason and a message.

    \b
    Examples:
      tastewave dead-letters
      tastewave dead-letters --last 500 --json | jq -r .reason | sort | uniq -c
    """
    from stream.commands.dead_letters import show_dead_letters
    from stream.settings import load_settings

    show_dead_letters(load_settings(), last=last, as_json=as_json)


@cli.group()
def rewind() -> None:
    """Replay uploads after Redis lost answers."""


@rewind.command("tracks")
@click.option(
    "--minutes",
    required=True,
    type=click.IntRange(min=1),
    help="How many minutes to go back. More repeats more work; fewer may miss lost answers.",
)
@click.option(
    "--release",
    help="The release whose workers answer again; without it, that of TASTEWAVE_RELEASE, or the shipped one.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done and change nothing. The workers may run.")
def rewind_tracks(minutes: int, release: str | None, dry_run: bool) -> None:
    """Have the tracks workers answer the uploads of the last minutes again.

    Stop all workers of the release first, and start them afterwards. They begin at the first upload of that
    time. A track whose answer Redis has lost is fetched and heard again. An answer that Redis still holds is
    published again. An upload that failed is tried again.

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
    """Read answers from Redis."""


@get.command("track")
@click.argument("track_id")
@click.option("--release", help="The release whose answer to read; the live one when absent.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as it is on tastewave.tracks.tagged.")
def get_track(track_id: str, release: str | None, as_json: bool) -> None:
    """Print the answer for TRACK_ID. The exit status is 1 when there is none.

    \b
    Examples:
      tastewave get track 5d41402abc4b2a76b9719d911017c592
      tastewave get track my-track --json | jq .genre
    """
    from stream.commands.get import show_track
    from stream.settings import load_settings

    show_track(load_settings().redis, track_id, release=release, as_json=as_json)


@cli.command("upload")
@click.argument("audio", nargs=-1, required=True, metavar="FILE|FOLDER|URL...")
@click.option(
    "--track-id", help="Id of the track, when only one is uploaded. Without it, the id is made from the content."
)
@click.option("--wait", is_flag=True, help="Wait for the answers. The exit status is 1 when an upload failed.")
@click.option("--release", help="With --wait: the release whose answers to wait for; the live one when absent.")
@click.option(
    "--timeout",
    "timeout_s",
    default=120.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="With --wait: give up when no answer has come for so many seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each upload.")
def upload_audio(
    audio: tuple[str, ...], *, track_id: str | None, wait: bool, release: str | None, timeout_s: float, as_json: bool
) -> None:
    """Publish upload events for audio files.

    There is one event for each file, each audio file in a folder, and each URL. It holds the address of the
    audio, and the worker fetches it from there. So a file must lie in a folder of the worker's
    TASTEWAVE_FILE_ROOTS.

    \b
    Examples:
      tastewave upload song.mp3 --wait
      tastewave upload /srv/uploads --wait --json > answers.jsonl
      tastewave upload https://example.org/song.mp3 --track-id song-1
    """
    from stream.commands.upload import upload
    from stream.settings import load_settings

    upload(load_settings(), audio, track_id=track_id, wait=wait, release=release, timeout_s=timeout_s, as_json=as_json)


@cli.command("tag")
@click.argument("audio", nargs=-1, required=True, metavar="FILE|FOLDER...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each file, as soon as it is tagged.")
@click.option(
    "--top-k", default=5, show_default=True, type=click.IntRange(1, 50), help="How many genres and tags to print."
)
@click.option("--release", metavar="PATH|URL", help="The release to use; the shipped one when absent.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the tags of one file over time (PNG)."
)
@click.option(
    "--features",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write log-mel, taggram, tags, max_pool, mean_pool and penultimate of one whole file (npz).",
)
def tag_audio(
    audio: tuple[str, ...], *, as_json: bool, top_k: int, release: str | None, plot: Path | None, features: Path | None
) -> None:
    """Tag audio files without Kafka or Redis.

    Prints genre, confidence and tags of each file. A folder stands for the audio files in it, at any depth.
    When a file cannot be tagged, the others are tagged all the same, and the exit status is 1.

    \b
    Examples:
      tastewave tag song.mp3
      tastewave tag ~/Music --json > tags.jsonl
      tastewave tag song.mp3 --plot taggram.png --features song.npz
    """
    from stream.commands.tag import tag_files

    tag_files(audio, release=release, top_k=top_k, as_json=as_json, plot=plot, features=features)


def main() -> None:
    """Entry point. A TastewaveError is printed as one sentence, and makes the exit status 1."""
    try:
        cli()
    except TastewaveError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
