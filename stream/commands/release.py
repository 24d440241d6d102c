"""`tastewave release show` and `tastewave release activate`."""

from __future__ import annotations

import click
import msgspec

from models.release import load_release
from stream.commands.tables import print_facts
from stream.settings import Settings
from stream.store.client import sync_client
from stream.store.live import activate


def show_release(where: str | None, *, as_json: bool) -> None:
    """Verify a release and print what is in it.

    Args:
        where: its folder or URL; the shipped one when None.
        as_json: the whole manifest instead of a summary.

    Raises:
        ReleaseError: it is missing or damaged.
    """
    manifest = load_release(where).manifest
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        return
    configuration = manifest.configuration
    print_facts(
        {
            "contract": str(manifest.contract),
            "created": f"{manifest.created} by tastewave {manifest.code_version}",
            "hears": f"up to {configuration.windows} windows of {configuration.window_s} s, "
            f"front end {configuration.front_end}",
            "networks": f"{', '.join(configuration.networks)}; workers run {', '.join(configuration.run)}",
            "genres": ", ".join(configuration.genres),
            "taste space": f"{configuration.embedding_dim}-d" if configuration.embedding_dim else "none",
            "metrics": ", ".join(f"{name} {value}" for name, value in manifest.metrics.items()),
            "training": ", ".join(f"{k} {v}" for k, v in manifest.training.items() if isinstance(v, int | float)),
            "files": "\n".join(f"{name}  {file.bytes:,} bytes" for name, file in manifest.files.items()),
        },
        title=f"release {manifest.release_id}, verified",
    )


def activate_release(settings: Settings, release_id: str | None) -> None:
    """Point tw:live at a release (the configured one when None). Raises RedisUnusable or ReleaseError."""
    release_id = release_id or load_release(settings.worker.release).release_id
    with sync_client(settings.redis) as client:
        previous = activate(client, release_id)
    click.echo(
        f"{release_id} is live" + (f"; go back with `tastewave release activate {previous}`" if previous else "")
    )
