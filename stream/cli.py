"""The `tastewave` command. Each command imports what it needs when it runs, so that --help answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import click

from models.errors import TastewaveError
from models.events import Kind


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
    from stream.worker.start import import_quickly
    from stream.worker.stop import end_at_signals

    end_at_signals()
    import_quickly()
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
    from stream.worker.start import import_quickly
    from stream.worker.stop import end_at_signals

    end_at_signals()
    import_quickly()
    from stream.settings import load_settings
    from stream.worker.listens import run_listens_worker

    run_listens_worker(load_settings())


@cli.command("serve")
def serve() -> None:
    """Serve answers over HTTP until SIGTERM: tracks, users, similar tracks, audiences, events, and a page for people.

    Listens on loopback, at TASTEWAVE_SERVE_PORT. At another address (TASTEWAVE_SERVE_HOST) requests for users need the
    token of TASTEWAVE_SERVE_TOKEN. Needs Redis and Kafka with the topics. / is the page, /docs describes the routes.

    \b
    Examples:
      tastewave serve
      curl http://127.0.0.1:6068/v1/tracks/my-track
    """
    from stream.worker.start import import_quickly
    from stream.worker.stop import end_at_signals

    end_at_signals()
    import_quickly()
    # Read when numpy is imported. An index is built in one thread, and those of OpenBLAS would compete for the cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from stream.serve.server import run_server
    from stream.settings import load_settings

    run_server(load_settings())


@cli.group()
def release() -> None:
    """Look at a release, have it answer tracks that were heard before, or choose the one that readers use."""


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
@click.option("--force", is_flag=True, help="Take an unknown RELEASE_ID, and a release that covers too little.")
def release_activate(release_id: str | None, force: bool) -> None:
    """Make a release the live one, whose answers readers use (the key tw:live in Redis).

    It is named by its id, or by the folder or URL where it is. Without a name, it is the release of
    TASTEWAVE_RELEASE, or the shipped one. An id that has no answer in Redis and is not that of this release is
    refused: it may be misspelt, and readers would find nothing.

    A release is refused, too, that lacks more than 0.5 % of the tracks or users of the live one
    (TASTEWAVE_LEAST_COVERAGE). Tracks whose upload failed do not count. Of many keys, some are drawn, and more
    until they tell.

    Workers do not change. To move to another release, run workers of both side by side, have the new release
    answer older tracks (`tastewave release rescore`) and users (`tastewave users rebuild`), and activate it. To go
    back, activate the previous one.

    \b
    Examples:
      tastewave release activate
      tastewave release activate 3f9c2a7d10be
      tastewave release activate s3://models/tastewave/2026-11
    """
    from stream.commands.release import activate_release
    from stream.settings import load_settings

    activate_release(load_settings(), release_id, force=force)


@release.command("rescore")
@click.argument("path", required=False)
@click.option(
    "--rate",
    default=2000.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Most tracks a second.",
)
@click.option("--from-start", is_flag=True, help="Begin with the first track again, where Redis has lost answers.")
@click.option(
    "--lacking",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Add a JSON line to this file for each track that has to be heard.",
)
def release_rescore(path: str | None, *, rate: float, from_start: bool, lacking: Path | None) -> None:
    """Answer the tracks of tastewave.tracks.features with a release, without their audio.

    Run it for a new release before it goes live, so that it has answers to the tracks that workers heard before. PATH
    is its folder or URL; without it, the release of TASTEWAVE_RELEASE, or the shipped one. Workers may run: their
    answers to later uploads stand. After a stop, run it again: it goes on where it was. When it has ended, a further
    run takes the tracks that came since.

    Features that lack a network or an audio encoder of the release do not tell its answer. These tracks are counted,
    and have to be heard by workers of the release.

    \b
    Examples:
      tastewave release rescore releases/2026-12 --rate 5000
      TASTEWAVE_RELEASE=releases/2026-12 tastewave release rescore --lacking to-be-heard.jsonl
    """
    from stream.commands.rescore import rescore
    from stream.settings import load_settings

    rescore(load_settings(), path, rate=rate, from_start=from_start, lacking=lacking)


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


@cli.group()
def contract() -> None:
    """Check what other services read."""


@contract.command("check")
@click.argument("url", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line.")
def contract_check(url: str | None, as_json: bool) -> None:
    """Look at every key of tastewave in a Redis, and list what is not as contract 1 says.

    URL is that of a Redis; without it, the one of TASTEWAVE_REDIS_URL. Nothing is written. The exit status is 1 when
    something breaks the contract.

    \b
    Examples:
      tastewave contract check
      tastewave contract check redis://localhost:6379 --json | jq '.breaches[0]'
    """
    from stream.commands.contract import check_contract
    from stream.settings import load_settings

    if not check_contract(load_settings().redis, url=url, as_json=as_json):
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
@click.option(
    "--metrics-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the outcome as metrics too, for the textfile collector of Prometheus's node_exporter; ends in .prom.",
)
def parity(sample: int, minutes: int, as_json: bool, metrics_file: Path | None) -> None:
    """Check that users stand where the listens on Kafka put them.

    Some users are drawn from Redis. Their histories and embeddings in the release of TASTEWAVE_RELEASE are computed
    anew from the listens of the last minutes and what Redis holds from before. The workers may run. The exit status
    is 1 when a user differs.

    \b
    Examples:
      tastewave parity
      tastewave parity --sample 100 --minutes 10 --json | jq .differing
      tastewave parity --metrics-file /var/lib/node_exporter/tastewave.prom
    """
    from stream.commands.parity import check_parity
    from stream.settings import load_settings

    if not check_parity(load_settings(), sample=sample, minutes=minutes, as_json=as_json, metrics_file=metrics_file):
        sys.exit(1)


@cli.group("dead-letters", invoke_without_command=True)
@click.option("--last", default=20, show_default=True, type=click.IntRange(min=1), help="How many to list.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each, with the original value.")
@click.pass_context
def dead_letters(context: click.Context, last: int, as_json: bool) -> None:
    """List the events that could not be answered, or send them again.

    Without a command, these are the latest dead letters, each with its age, the reason and a message.

    \b
    Examples:
      tastewave dead-letters
      tastewave dead-letters --last 500 --json | jq -r .reason | sort | uniq -c
    """
    if context.invoked_subcommand is not None:
        return
    from stream.commands.dead_letters import show_dead_letters
    from stream.settings import load_settings

    show_dead_letters(load_settings(), last=last, as_json=as_json)


@dead_letters.command("redrive")
@click.option("--reason", help="Only letters of this reason.")
@click.option(
    "--since", metavar="TIME", help="Only letters of this time or later: 2026-11-26T13:00, in UTC unless it says so."
)
@click.option(
    "--rate",
    default=100.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Most events a second. New events wait behind those that are sent again.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be sent, and send nothing.")
def dead_letters_redrive(*, reason: str | None, since: str | None, rate: float, dry_run: bool) -> None:
    """Send the events of dead letters to their topic again, when the cause is gone.

    They go with their key and headers, as they came the first time. An event that fails again becomes a new dead
    letter, which this run leaves alone. A truncated letter is refused, since a part of its event is missing.

    Letters stay, and none is marked: after a stop, run it again. An event that is sent twice is answered once, so that
    does no harm. Standard error gets two log lines that say who did what, to be kept.

    \b
    Examples:
      tastewave dead-letters redrive --reason not_found --dry-run
      tastewave dead-letters redrive --reason not_found --since 2026-11-26T13:00
    """
    from stream.commands.dead_letters import redrive_dead_letters
    from stream.settings import load_settings

    redrive_dead_letters(load_settings(), reason=reason, since=since, rate=rate, dry_run=dry_run)


@cli.command("correct")
@click.argument("track_id")
@click.argument("genre")
@click.option("--by", required=True, help="Who says so: the name of the editor.")
def correct_track(track_id: str, genre: str, *, by: str) -> None:
    """Say that TRACK_ID is GENRE, whatever releases say.

    Publishes the fact on tastewave.tracks.corrected, and writes it into the answers of all releases, in Redis and on
    tastewave.tracks.tagged: their status is `corrected` from now on, also after a rewind, a rescoring, a new upload of
    the track or a new release. The latest correction of a track counts. Forgetting the track removes it.

    \b
    Example:
      tastewave correct track-1 jazz --by ann
    """
    from stream.commands.correct import show_correction
    from stream.settings import load_settings

    show_correction(load_settings(), track_id, genre, by=by)


@cli.group()
def forget() -> None:
    """Forget a user or a track for good."""


def _confirmed(what: str, *, yes: bool) -> None:
    if not yes:
        click.confirm(f"Forget {what}? This cannot be undone", abort=True)


@forget.command("user")
@click.argument("user_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget_user(user_id: str, *, yes: bool) -> None:
    """Forget all that USER_ID did until now.

    Removes history, feedback and embeddings from Redis, empties the user's records on the compacted topics, and
    publishes the fact on tastewave.forgotten. From then on no redelivery, rewind, rebuild, dump or training brings
    anything of the user from before back. Prints a receipt: what was removed, and what Kafka still holds until when.

    \b
    Example:
      tastewave forget user ann --yes
    """
    from stream.commands.forget import forget
    from stream.settings import load_settings

    _confirmed(f"user {user_id}", yes=yes)
    forget(load_settings(), "user", user_id)


@forget.command("track")
@click.argument("track_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget_track(track_id: str, *, yes: bool) -> None:
    """Forget all answers to uploads of TRACK_ID until now.

    Removes the answers of all releases from Redis, empties the track's records on the compacted topics, and
    publishes the fact on tastewave.forgotten. A worker that is hearing the track at this moment leaves no answer
    either. A later upload is answered again. Prints a receipt: what was removed, and what Kafka still holds until when.

    \b
    Example:
      tastewave forget track track-1 --yes
    """
    from stream.commands.forget import forget
    from stream.settings import load_settings

    _confirmed(f"track {track_id}", yes=yes)
    forget(load_settings(), "track", track_id)


@cli.group()
def users() -> None:
    """Work on the embeddings of all users."""


@users.command("rebuild")
@click.option(
    "--rate",
    default=2000.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Most users a second, and with --from-kafka most listens a second.",
)
@click.option(
    "--from-kafka", is_flag=True, help="First add the listens of --since minutes from Kafka to the histories."
)
@click.option(
    "--since", "since_minutes", type=click.IntRange(min=1), help="With --from-kafka: how many minutes to go back."
)
def users_rebuild(*, rate: float, from_kafka: bool, since_minutes: int | None) -> None:
    """Compute the embeddings of all users in the release of TASTEWAVE_RELEASE.

    It reads the histories in Redis, and may run beside workers. Users whose history has not changed since their
    embedding was written are left out: after a stop, run it again. So a track that was tagged since counts from a
    user's next listen, and not from a rebuild. Run it for a new release before it goes live. Where Redis has lost
    histories, --from-kafka adds the listens again that Kafka still holds.

    \b
    Examples:
      TASTEWAVE_RELEASE=releases/2026-12 tastewave users rebuild --rate 5000
      tastewave users rebuild --from-kafka --since 1440
    """
    if from_kafka != (since_minutes is not None):
        raise click.UsageError("--from-kafka and --since go together")
    from stream.commands.users import rebuild_users
    from stream.settings import load_settings

    rebuild_users(load_settings(), rate=rate, since_minutes=since_minutes)


@cli.group()
def rewind() -> None:
    """Replay events after Redis lost what they led to."""


def _rewind_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--dry-run", is_flag=True, help="Print what would be done and change nothing. The workers may run."
        ),
        click.option(
            "--release",
            help="The release whose workers do so; without it, that of TASTEWAVE_RELEASE, or the shipped one.",
        ),
        click.option(
            "--minutes",
            required=True,
            type=click.IntRange(min=1),
            help="How many minutes to go back. More repeats more work; fewer may miss what was lost.",
        ),
    ):
        command = option(command)
    return command


@rewind.command("tracks")
@_rewind_options
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
    from stream.commands.rewind import rewind
    from stream.settings import load_settings

    rewind(load_settings(), "tracks", minutes=minutes, release=release, dry_run=dry_run)


@rewind.command("listens")
@_rewind_options
def rewind_listens(minutes: int, release: str | None, dry_run: bool) -> None:
    """Have the listens workers take the listens of the last minutes again.

    Stop all workers of the release first, and start them afterwards. They begin at the first listen of that
    time. Listens that Redis has lost come back into the histories, and the embeddings of all users of that time
    are written again. A listen that a history still holds changes nothing.

    \b
    Examples:
      tastewave rewind listens --minutes 30 --dry-run
      tastewave rewind listens --minutes 30
    """
    from stream.commands.rewind import rewind
    from stream.settings import load_settings

    rewind(load_settings(), "listens", minutes=minutes, release=release, dry_run=dry_run)


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


@get.command("user")
@click.argument("user_id")
@click.option("--release", help="The release whose taste space to look at; the live one when absent.")
@click.option("--json", "as_json", is_flag=True, help="Print the user as on tastewave.users.embedded.")
def get_user(user_id: str, release: str | None, as_json: bool) -> None:
    """Print where USER_ID stands in taste space, and the nearest tracks that are new to them.

    The tracks are those of the release of TASTEWAVE_RELEASE. Tracks that the user has heard, dislikes or has
    excluded are left out. A user of whom Redis knows nothing stands where people without a history do.

    \b
    Examples:
      tastewave get user ann
      tastewave get user ann --json | jq .embedding
    """
    from stream.commands.get import show_user
    from stream.settings import load_settings

    show_user(load_settings(), user_id, release=release, as_json=as_json)


@cli.command("listen")
@click.argument("user_id")
@click.argument("track_id", nargs=-1, required=True)
@click.option("--kind", type=click.Choice(get_args(Kind)), default="play", show_default=True, help="What the user did.")
@click.option("--at", type=click.IntRange(min=0), help="When, in milliseconds since 1970, UTC; now when absent.")
@click.option(
    "--played-ms",
    type=click.IntRange(min=0),
    help="For play and skip: how much was heard. When absent, a play is heard to its end, a skip not at all.",
)
@click.option(
    "--duration-ms", type=click.IntRange(min=0), help="For play and skip: length of the track; 180000 when absent."
)
@click.option(
    "--wait",
    is_flag=True,
    help="Wait until the user's embedding was computed anew since, and from events as new as the listen.",
)
@click.option(
    "--timeout",
    "timeout_s",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="With --wait: give up after so many seconds.",
)
def publish_listens(
    user_id: str,
    track_id: tuple[str, ...],
    *,
    kind: Kind,
    at: int | None,
    played_ms: int | None,
    duration_ms: int | None,
    wait: bool,
    timeout_s: float,
) -> None:
    """Publish a listen of USER_ID for each TRACK_ID, oldest first.

    \b
    Examples:
      tastewave listen ann track-1 track-2 --wait
      tastewave listen ann track-2 --kind like
      tastewave listen ann track-1 --kind exclude
    """
    from stream.commands.listen import listen
    from stream.settings import load_settings

    listen(
        load_settings(),
        user_id,
        track_id,
        kind=kind,
        at=at,
        played_ms=played_ms,
        duration_ms=duration_ms,
        wait=wait,
        timeout_s=timeout_s,
    )


@cli.command("simulate")
@click.argument("platform", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--rate",
    default=5000.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Most events a second.",
)
@click.option(
    "--speedup",
    type=click.FloatRange(min=0, min_open=True),
    help="How much faster than the clock the platform's time passes; as fast as --rate allows when absent.",
)
def simulate_platform(platform: Path, *, rate: float, speedup: float | None) -> None:
    """Publish the uploads and listens of a synthetic PLATFORM, in the order of their times.

    PLATFORM is a folder of `tastewave-offline synth platform`. Prints the rate that was reached.

    \b
    Examples:
      tastewave simulate platform --rate 5000
      tastewave simulate platform --speedup 3600
    """
    from stream.commands.simulate import simulate
    from stream.settings import load_settings

    simulate(load_settings(), platform, rate=rate, speedup=speedup)


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
