"""How a URI is shown in errors and logs. It comes from a stranger, and may hold a password."""

from __future__ import annotations

import re

_LONGEST = 160
_SCHEME = re.compile(r"[A-Za-z0-9+.-]+")
_PLAIN_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]*\]|[^\s:/?#\[\]]*)(:[0-9]{0,5})?([/?#]|$)")


def shown_uri(uri: str) -> str:
    """The URI without user, password, query, fragment and control characters, and not too long.

    shown_uri("https://host/a.mp3?token=abc")   # "https://host/a.mp3"
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        return "a URI without scheme://"
    local = scheme.lower() == "file" and rest.startswith("/")
    if not local and ("@" in rest or "%40" in rest or not _PLAIN_HOST.match(rest)):
        return f"{scheme[:_LONGEST]}://(withheld, as it may hold a password)"
    rest = "".join(letter if letter.isprintable() else "?" for letter in re.split(r"[?#]", rest, maxsplit=1)[0])
    shown = f"{scheme}://{rest}"
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
