"""Whether a log is that of a made-up platform."""

from __future__ import annotations

from pathlib import Path

import msgspec


class _Platform(msgspec.Struct):
    """Of truth/config.json, which `tastewave-offline synth platform` writes, what is repeated elsewhere."""

    caveat: str


def platform_caveat(where: str) -> str | None:
    """What the maker of a made-up platform says about figures measured on it; None for any other log.

    Args:
        where: the log: the platform's folder, its folder of listens, or files of that.
    """
    path = Path(where)
    for folder in (path, *list(path.parents)[:2]):
        try:
            return msgspec.json.decode((folder / "truth" / "config.json").read_bytes(), type=_Platform).caveat
        except (OSError, msgspec.DecodeError):  # there is none, or somebody else's
            continue
    return None
