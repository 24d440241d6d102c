"""Which names a server on loopback is called by.

A page of a stranger may give its own name the address 127.0.0.1, and so read what only this machine may read (DNS
rebinding). The browser then sends that name as Host.
"""

from __future__ import annotations

import functools
import ipaddress
import re

from litestar.types import ASGIApp, Receive, Scope, Send

from stream.serve.problems import ForeignHost


def is_loopback(host: str) -> bool:
    """Whether a host, without a port, is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@functools.lru_cache(maxsize=64)
def names_loopback(header: str) -> bool:
    """Whether a Host header, maybe with a port, names loopback."""
    found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:]+))(?::\d+)?", header)
    return bool(found) and is_loopback((found[1] or found[2]).lower())


def only_loopback(app: ASGIApp) -> ASGIApp:
    """A middleware of a server on loopback. Programs that send no Host at all are let through: browsers always do."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        for name, value in scope["headers"]:
            if name == b"host" and not names_loopback(value.decode("latin-1")):
                raise ForeignHost(
                    "this server listens on loopback alone, and is called by another name; call it by 127.0.0.1 or "
                    "localhost, or have the gateway send that as Host"
                )
        await app(scope, receive, send)

    return checked
