"""`python -m deploy.local`: Kafka and Redis that go on running until they are told to stop."""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

import click
import msgspec

from deploy.local import Kafka, LaunchError, Redis, Server, kafka_server
from deploy.local.process import BUILD, is_free, locked

FOLDER = BUILD / "local"
USUAL_PORTS = {"kafka": 9092, "redis": 6379}
KINDS: dict[str, type[Server]] = {"kafka": Kafka, "redis": Redis}
STOP_TIMEOUT_MS = 20_000


class Started(msgspec.Struct, frozen=True):
    """A server that `up` started; start_ticks tells its process from a later one with the same id."""

    pid: int
    start_ticks: int
    port: int


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Kafka and Redis on this machine, on the usual ports where they are free."""


@cli.command()
def prepare() -> None:
    """Fetch Kafka's jars and prepare its quick start; nothing happens the second time."""
    kafka_server.prepare()


@cli.command()
def up() -> None:
    """Start both, with data that survives `down`; nothing happens to a server that already runs."""
    with locked(FOLDER / "lock"):
        running = read_running()
        launched: dict[str, Server] = {}
        try:
            for name, kind in KINDS.items():
                if name not in running:
                    port = USUAL_PORTS[name] if is_free(USUAL_PORTS[name]) else None
                    server = launched[name] = kind(folder=FOLDER / name, port=port, outlives=True)
                    server.launch()
                    running[name] = Started(server.pid, start_ticks(server.pid) or 0, server.port)
                    _state().write_bytes(msgspec.json.encode(running))
            for server in launched.values():
                server.wait()
        except BaseException:
            for server in launched.values():
                server.stop()
            raise
    _show(running)
    click.echo('\nTo use them from this shell:  eval "$(.venv/bin/python -m deploy.local env)"')


@cli.command()
def down() -> None:
    """Stop what `up` started, and nothing else."""
    with locked(FOLDER / "lock"):
        running = read_running()
        for name, server in running.items():
            stop(server)
            click.echo(f"{name} stopped")
        _state().unlink(missing_ok=True)
    if not running:
        click.echo("nothing was running")


@cli.command()
def status() -> None:
    """Say what runs where; exit status 1 unless both run."""
    running = read_running()
    _show(running)
    sys.exit(len(running) < len(KINDS))


@cli.command()
def env() -> None:
    """Print the settings that point tastewave at the running servers, for `eval`."""
    running = read_running()
    if len(running) < len(KINDS):
        raise LaunchError("Kafka and Redis are not both running; start them with `make up`")
    click.echo(f"export TASTEWAVE_KAFKA_BROKERS=127.0.0.1:{running['kafka'].port}")
    click.echo(f"export TASTEWAVE_REDIS_URL=redis://127.0.0.1:{running['redis'].port}/0")


def start_ticks(pid: int) -> int | None:
    """When a process started (clock ticks since boot); None where there is no such process."""
    try:
        # The second field, the program's name, stands in brackets and may hold anything.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def read_running() -> dict[str, Started]:
    """What `up` started and still runs, by name."""
    if not _state().exists():
        return {}
    started = msgspec.json.decode(_state().read_bytes(), type=dict[str, Started])
    return {name: server for name, server in started.items() if start_ticks(server.pid) == server.start_ticks}


def stop(server: Started) -> None:
    """End a server that an earlier command started, by force if it takes longer than STOP_TIMEOUT_MS."""
    process = os.pidfd_open(server.pid)
    try:
        ended = select.poll()
        ended.register(process, select.POLLIN)
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not ended.poll(STOP_TIMEOUT_MS):
            signal.pidfd_send_signal(process, signal.SIGKILL)
            ended.poll(STOP_TIMEOUT_MS)
    finally:
        os.close(process)


def _state() -> Path:
    return FOLDER / "state.json"


def _show(running: dict[str, Started]) -> None:
    for name in KINDS:
        if server := running.get(name):
            click.echo(f"{name:6} 127.0.0.1:{server.port:<6} pid {server.pid:<8} log {FOLDER / name / 'server.log'}")
        else:
            click.echo(f"{name:6} is not running")


def main() -> None:
    """Entry point: an error of ours is one sentence and exit status 1."""
    try:
        cli()
    except LaunchError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
