"""`tastewave release show` and `activate`."""

from __future__ import annotations

import click
import msgspec
from rich.console import Console
from rich.table import Table

from models.contract import LIVE_KEY
from models.release import load_release
from stream.redis_client import sync_client
from stream.settings import Settings
from stream.store import SET_LIVE, live_arguments


def show_release(where: str | None, *, as_json: bool) -> None:
    """Verify a release and print what it is. Raises ReleaseError."""
    manifest = load_release(where).manifest
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        return
    table = Table(title=f"release {manifest.release_id}, verified", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in msgspec.to_builtins(manifest).items():
        shown = value if isinstance(value, str) else msgspec.json.format(msgspec.json.encode(value), indent=1).decode()
        table.add_row(name, shown)
    Console().print(table)


def activate_release(settings: Settings, release_id: str | None) -> None:
    """Point tw:live at a release. Raises RedisUnusable or ReleaseError."""
    release_id = release_id or load_release(settings.release).release_id

    with sync_client(settings) as client:
        client.register_script(SET_LIVE)(keys=[LIVE_KEY], args=live_arguments(release_id))
        previous = (client.hget(LIVE_KEY, "previous") or b"").decode()  # pyright: ignore[reportAttributeAccessIssue]
    click.echo(
        f"{release_id} is live" + (f"; go back with `tastewave release activate {previous}`" if previous else "")
    )
