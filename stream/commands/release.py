"""`tastewave release show` and `activate`."""

from __future__ import annotations

import click
import msgspec
from rich.console import Console
from rich.table import Table

from models.contract import LIVE_KEY
from models.release import load_release
from stream.settings import Settings
from stream.store.client import sync_client
from stream.store.tracks import SET_LIVE, live_arguments


def show_release(where: str | None, *, as_json: bool) -> None:
    """Verify a release and print what it is. Raises ReleaseError."""
    manifest = load_release(where).manifest
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        return
    configuration = manifest.configuration
    facts = {
        "contract": manifest.contract,
        "created": f"{manifest.created} by tastewave {manifest.code_version}",
        "hears": f"up to {configuration.windows} windows of {configuration.window_s} s, "
        f"front end {configuration.front_end}",
        "networks": f"{', '.join(configuration.networks)}; workers run {', '.join(configuration.run)}",
        "genres": ", ".join(configuration.genres),
        "taste space": f"{configuration.embedding_dim}-d" if configuration.embedding_dim else "none",
        "metrics": ", ".join(f"{name} {value}" for name, value in manifest.metrics.items()),
        "training": ", ".join(f"{k} {v}" for k, v in manifest.training.items() if isinstance(v, int | float)),
        "files": "\n".join(f"{name}  {file.bytes:,} bytes" for name, file in manifest.files.items()),
    }
    table = Table(title=f"release {manifest.release_id}, verified", show_header=False, title_justify="left", box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, str(value))
    Console().print(table)


def activate_release(settings: Settings, release_id: str | None) -> None:
    """Point tw:live at a release. Raises RedisUnusable or ReleaseError."""
    release_id = release_id or load_release(settings.worker.release).release_id

    with sync_client(settings.redis) as client:
        client.register_script(SET_LIVE)(keys=[LIVE_KEY], args=live_arguments(release_id))
        previous = (client.hget(LIVE_KEY, "previous") or b"").decode()  # pyright: ignore[reportAttributeAccessIssue]
    click.echo(
        f"{release_id} is live" + (f"; go back with `tastewave release activate {previous}`" if previous else "")
    )
