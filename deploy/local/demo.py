"""`make demo`: real workers tag a few tracks and follow two listeners on a real Kafka and Redis; all is cleaned up.

Whatever can start side by side does: the servers boot while the music is synthesised.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import click
import numpy as np

from deploy.local import Kafka, LaunchError, Redis, Server
from deploy.local.process import bound, tail
from models.errors import TastewaveError
from models.release import load_release
from offline.release.settings import BuildDemonstration
from offline.synth.catalogue import draw_catalogue
from stream.commands.tables import print_table

BIN = Path(sys.executable).parent
TRACKS, TRACKS_OF_A_PAGE = 8, 24
LISTENS = 8
FOLDER = click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path)


class Worker(Server):
    """`tastewave worker tracks`; its port is that of its health server."""

    name: ClassVar[str] = "tastewave worker tracks"

    def _command(self) -> list[str]:
        # env, since the variable is another one for each worker
        return ["env", f"TASTEWAVE_HEALTH_PORT={self.port}", *program(*self.name.split())]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=1.0) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


class ListensWorker(Worker):
    """`tastewave worker listens`."""

    name: ClassVar[str] = "tastewave worker listens"


class Api(Worker):
    """`tastewave serve`; its port is that of the API."""

    name: ClassVar[str] = "tastewave serve"

    def _command(self) -> list[str]:
        return ["env", f"TASTEWAVE_SERVE_PORT={self.port}", *program(*self.name.split())]


class _NothingHere(BaseHTTPRequestHandler):
    """A web server that has no track."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("audio", required=False, type=FOLDER)
@click.option("--keep", is_flag=True, help="Keep running until Ctrl-C, with a page that shows all of it.")
def demo(audio: Path | None, keep: bool) -> None:
    """Upload AUDIO, a folder of music (synthesised when absent), a broken file and a missing URL; show the answers."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="tastewave-demo-") as name, ExitStack() as stack:
        try:
            run(stack, Path(name), audio, keep=keep)
        finally:  # a second Ctrl-C must not interrupt the cleaning up
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if keep:
        say("\nStopped; everything is cleaned up.")


def run(stack: ExitStack, scratch: Path, audio: Path | None, *, keep: bool) -> None:
    """Run the demo; the stack stops what it starts."""
    tracks = TRACKS_OF_A_PAGE if keep else TRACKS
    kafka, redis = Kafka(folder=scratch / "kafka"), Redis(folder=scratch / "redis")
    worker, listens_worker = Worker(folder=scratch / "worker"), ListensWorker(folder=scratch / "listens-worker")
    api = Api(folder=scratch / "api")
    for server in (redis, kafka, worker, listens_worker, api):
        stack.callback(server.close)
    music = audio or scratch / "music"
    use_servers(kafka, redis, roots=(music, scratch))
    if keep:
        turn_on_page(uploads=scratch / "uploads", roots=(music, scratch))
    say("Starting Kafka and Redis" + ("" if audio else f", synthesising {tracks} pieces of music") + " ...")
    redis.launch()
    kafka.launch()
    synthesis = None
    if audio is None:
        command = program("tastewave-offline", "synth", "audio", music, "--tracks", tracks)
        synthesis = subprocess.Popen(bound(command), stdout=subprocess.DEVNULL)
        stack.callback(synthesis.kill)
    redis.wait()
    kafka.wait()
    say("Creating topics, starting two workers and the HTTP API ...")
    for one in (worker, listens_worker, api):
        one.launch()  # it waits for the topics
    subprocess.run(bound(program("tastewave", "topics", "create")), check=True, stdout=subprocess.DEVNULL)
    if synthesis and synthesis.wait():
        raise LaunchError(f"the music could not be synthesised (status {synthesis.returncode}); see above")
    worker.wait()
    listens_worker.wait()
    api.wait()
    say(f"The HTTP API answers at http://127.0.0.1:{api.port} (/docs describes it, / is its page) until the demo ends.")

    (scratch / "broken.mp3").write_text("This was an mp3 once.\n" * 1000)
    missing = f"http://127.0.0.1:{serve_nothing(stack)}/missing.mp3"
    try:
        uploads = (audio or "music", "broken.mp3", missing)
        show(program("tastewave", "upload", *uploads, "--wait"), folder=scratch, failures_expected=True)
        show(program("tastewave", "dead-letters"))
        show(["redis-cli", "--no-raw", "-p", str(redis.port), "hgetall", answered_key(redis)])
        follow_two_people(redis)
    except subprocess.CalledProcessError:
        for one in (worker, listens_worker, api):
            click.echo(f"The last words of {one.name}:\n{tail(one.log)}", err=True)
        raise
    say(NEXT_STEPS)
    if keep:
        keep_running(api)


def follow_two_people(redis: Redis) -> None:
    """Two people with opposite tastes listen; a table shows where they stood before and after."""
    from redis import Redis as Client

    from stream.reader.answers import read_user
    from stream.reader.offers import known_tracks, nearest_tracks

    tower = load_release().user_tower()
    title_of = {track: title for track, title in titles().items() if tower.items.rows([track])[0] >= 0}
    people = {"ann": "Metal", "bob": "Classical"}
    heard = {
        person: [track for track, title in title_of.items() if title.startswith(style)][:LISTENS]
        for person, style in people.items()
    }
    say("\nThe taste space of this release is a demonstration, learned from a made-up platform.")
    say(f"Two of its people arrive: ann hears {LISTENS} tracks of metal, bob {LISTENS} of classical music.")
    show(program("tastewave", "get", "user", "ann"))
    for person, tracks in heard.items():
        show(program("tastewave", "listen", person, *tracks, "--wait"))
    places: dict[str, dict[str, Any]] = {person: {"before": tower.manifest.global_embedding} for person in people}
    known: dict[str, set[str]] = {}
    with Client.from_url(redis.url) as client:
        uploaded = placed_uploads(client)
        for person, place in places.items():
            user = read_user(client, person)
            if user is None:
                raise LaunchError(f"{person} listened, and has no embedding")
            place["after"], known[person] = user.embedding, known_tracks(client, person)
    rows = []
    for when in ("before", "after"):
        cosine = float(np.dot(places["ann"][when], places["bob"][when]))
        for person in people:
            nearest = nearest_tracks(
                tower, places[person][when], count=3, without=known[person] if when == "after" else ()
            )
            offered = ", ".join(f"{title_of[track]} ({score:.2f})" for track, score in nearest)
            near = max(uploaded, key=lambda name: float(np.dot(places[person][when], uploaded[name])), default="")
            rows.append((person, when, f"{cosine:.2f}", offered, near))
    print_table(("person", "listening", "cosine of the two", "would be offered", "nearest upload"), rows)


def titles() -> dict[str, str]:
    """The title of each track of the made-up platform of the shipped release, by its id."""
    settings = BuildDemonstration(folder="").platform("")
    return draw_catalogue(settings, np.random.default_rng(settings.seed)).titles()


def placed_uploads(client: Any) -> dict[str, tuple[float, ...]]:
    """Where the uploaded tracks that were heard are in taste space, by their titles."""
    from stream.reader.answers import live_release, read_track

    release = live_release(client)
    keys: list[bytes] = sorted(client.scan_iter(f"tw:{release}:track:*"))
    answers = [read_track(client, key.decode().partition("{")[2].rstrip("}"), release=release) for key in keys]
    return {one.title or one.track_id: one.embedding for one in answers if one and one.embedding}


def use_servers(kafka: Kafka, redis: Redis, *, roots: tuple[Path, Path]) -> None:
    """Point the commands that this process starts at its own servers, whatever the shell had set."""
    for name in [name for name in os.environ if name.startswith("TASTEWAVE_")]:
        del os.environ[name]
    os.environ |= {
        "TASTEWAVE_KAFKA_BROKERS": kafka.brokers,
        "TASTEWAVE_REDIS_URL": redis.url,
        "TASTEWAVE_FILE_ROOTS": ",".join(map(str, roots)),
        "TASTEWAVE_ALLOWED_HOSTS": "127.0.0.1",
    }


def turn_on_page(*, uploads: Path, roots: tuple[Path, Path]) -> None:
    """Have the page show and change all that it can, for whoever has the token."""
    uploads.mkdir()
    os.environ |= {
        "TASTEWAVE_STORE_TAGGRAM": "true",
        "TASTEWAVE_SERVE_TOKEN": secrets.token_urlsafe(24),
        "TASTEWAVE_SERVE_AUDIO_ROOTS": ",".join(map(str, roots)),
        "TASTEWAVE_SERVE_UPLOADS": str(uploads),
        "TASTEWAVE_SERVE_REDRIVE": "true",
        "TASTEWAVE_SERVE_CORRECTIONS": "true",
    }


def keep_running(api: Api) -> None:
    """Until Ctrl-C, or until somebody ends this process."""
    say(f"\nThe page: http://127.0.0.1:{api.port}/#token={os.environ['TASTEWAVE_SERVE_TOKEN']}")
    say("All of it runs until Ctrl-C.")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


def serve_nothing(stack: ExitStack) -> int:
    """Port of a web server on loopback that answers 404."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _NothingHere)
    stack.callback(server.server_close)
    stack.callback(server.shutdown)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def program(name: str, *arguments: object) -> list[str]:
    """Command line of a program of this environment."""
    return [str(BIN / name), *map(str, arguments)]


def show(command: list[str], *, folder: Path | None = None, failures_expected: bool = False) -> None:
    """Run a command with its command line above what it prints."""
    say(f"\n$ {shlex.join([Path(command[0]).name, *command[1:]])}")
    status = subprocess.run(bound(command), cwd=folder, check=False).returncode
    if status and not (failures_expected and status == 1):
        raise subprocess.CalledProcessError(status, command)


def answered_key(redis: Redis) -> str:
    """Redis key of a track that was heard, for another program to read."""
    from redis import Redis as Client

    with Client.from_url(redis.url, decode_responses=True) as client:
        keys = sorted(client.scan_iter("tw:*:track:*"))
        return max(keys, key=lambda key: client.hget(key, "status") == "tagged")


def say(text: str) -> None:
    """Print at once, so that it stands before the output of the next command."""
    click.echo(text)
    sys.stdout.flush()


NEXT_STEPS = """
Where to look next
  make demo AUDIO=/path/to/music          the same with your own tracks
  make demo KEEP=1                        it runs until Ctrl-C, with a page that shows all of it
  .venv/bin/tastewave tag FILE...         genre and tags of files, without any server
  make up                                 Kafka and Redis that stay; then, in a shell with their addresses:
    eval "$(.venv/bin/python -m deploy.local env)"
    .venv/bin/tastewave topics create
    TASTEWAVE_FILE_ROOTS=/path/to/music .venv/bin/tastewave worker tracks
    .venv/bin/tastewave upload /path/to/music --wait
    .venv/bin/tastewave worker listens
    .venv/bin/tastewave listen ann TRACK... --wait
    .venv/bin/tastewave serve               the HTTP API; http://127.0.0.1:6068/docs describes it
    redis-cli -u "$TASTEWAVE_REDIS_URL" --scan --pattern 'tw:*:track:*'
  README.md                               how to read an answer, and the chapters in deploy/docs"""


def main() -> None:
    """Entry point: an error of ours is one sentence and exit status 1, a failed command ends with its own."""
    try:
        demo.main(standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        say("\nStopped; everything is cleaned up.")
        sys.exit(130)
    except TastewaveError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)


if __name__ == "__main__":
    main()
