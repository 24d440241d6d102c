"""Servers of audio that are away: a circuit breaker for each, so that their trouble is not taken for their tracks'.

A server is the scheme, host and port of web addresses, a bucket, or one of the folders that files are read from (it
may be mounted over a network). After FEW different tracks in a row have failed on
it, it is away: its tracks wait (HostAway), and one of them at a time asks it again, every 1 to 10 s. Its first answer
ends that. Where FEW tracks in a row have failed on whatever servers, and none has answered in between, the network or
the name servers are away for everybody, and each further server is taken to be away from its first failure on.

Tracks that wait stand aside (stream.broker.in_hand), and hold up nobody before they take 64 MB, some 4,000 tracks. So
that the tracks of a server that does not come back end too, and the offset in Kafka moves on, a track waits for
PATIENCE_S at most, or for LISTED_PATIENCE_S where the operator has listed the server. After that,

- if another server has answered meanwhile, its tracks fail at once;
- if not, a track fails when it has asked in vain, about six a minute; those of a listed server wait on, unless another
  server was well when it was last asked.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Self

from models.errors import FetchError, FetchFailed, FetchRefused, TastewaveError
from stream.audio.uris import shown_uri

FEW = 3
PATIENCE_S = 120.0
LISTED_PATIENCE_S = 600.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 10.0
_MOST_SERVERS = 1000  # strangers name as many as they like


class HostAway(TastewaveError):
    """The server of the audio does not answer now; the track waits for it."""


@dataclass(slots=True)
class _Server:
    """What is known of a server. `away_since` is None while it is well, or has failed under FEW tracks in a row."""

    listed: bool = False
    failed: set[str] = field(default_factory=set)
    trouble: str = ""
    away_since: float | None = None
    wait_s: float = _FIRST_WAIT_S
    ask_at: float = 0.0
    is_asked: bool = False
    answered_at: float = -math.inf
    is_well: bool = False


class Breaker:
    """Knows which servers are away.

    with breaker.visit(uri) as visit:
        visit.reach("https://music.example", listed=False)
        with visit.answering():
            ...

    Args:
        monotonic: the clock, in seconds.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._servers: dict[str, _Server] = {}
        self._failed_in_a_row: set[str] = set()

    @contextlib.contextmanager
    def visit(self, uri: str) -> Iterator[Visit]:
        """A fetch of this URI, with all its tries and redirects."""
        visit = Visit(self, uri)
        try:
            yield visit
        finally:
            for name in visit.asks:
                self._server(name).is_asked = False

    def admit(self, name: str, uri: str, *, listed: bool) -> bool:
        """Whether this fetch asks a server that is away. Raises HostAway or FetchFailed where another one does."""
        server = self._server(name)
        server.listed = listed
        if server.away_since is None:
            return False
        now = self._monotonic()
        if server.is_asked or now < server.ask_at:
            away_s = now - server.away_since
            others_answer = any(other.answered_at >= server.away_since for other in self._servers.values())
            if others_answer and away_s > _patience_s(server):
                raise FetchFailed(
                    f"{shown_uri(uri)} cannot be fetched: {name} has not answered for {away_s:.0f} s "
                    f"({server.trouble}), and others do; upload the track again when it is well"
                )
            raise self._away(name, server)
        server.is_asked = True
        return True

    def note_answer(self, name: str) -> None:
        """The server has answered, whatever it said about the track."""
        server = self._server(name)
        server.failed.clear()
        server.away_since, server.answered_at, server.is_well = None, self._monotonic(), True
        self._failed_in_a_row.clear()

    def note_failure(self, name: str, uri: str, error: FetchFailed, *, trouble: str, asked: bool) -> TastewaveError:
        """A fetch has failed on the server in all its tries. Returns what becomes of it: HostAway, or the error."""
        server, now = self._server(name), self._monotonic()
        server.is_well, server.trouble = False, trouble
        if server.away_since is None:
            for failed in (server.failed, self._failed_in_a_row):
                if len(failed) < FEW:
                    failed.add(uri)
            if max(len(server.failed), len(self._failed_in_a_row)) < FEW:
                return error
            server.away_since, server.wait_s = now, _FIRST_WAIT_S
            server.ask_at = now + server.wait_s
        elif asked:
            server.wait_s = min(2 * server.wait_s, _LONGEST_WAIT_S)
            server.ask_at = now + server.wait_s
        nobody_is_well = not any(other.is_well for other in self._servers.values())
        if now - server.away_since <= _patience_s(server) or (server.listed and nobody_is_well):
            return self._away(name, server)
        return error

    def _server(self, name: str) -> _Server:
        server = self._servers[name] = self._servers.pop(name, None) or _Server()  # the last used stands last
        if len(self._servers) > _MOST_SERVERS:
            del self._servers[next(iter(self._servers))]
        return server

    def _away(self, name: str, server: _Server) -> HostAway:
        return HostAway(
            f"{name} is away ({server.trouble}); its tracks wait, and it is asked every {server.wait_s:g} s"
        )


class Visit:
    """One fetch and the servers that it reaches, one after the other."""

    def __init__(self, breaker: Breaker, uri: str) -> None:
        self.asks: set[str] = set()
        """The servers that are away, and that this fetch asks whether they are back."""
        self._breaker = breaker
        self._uri = uri
        self._admitted: set[str] = set()
        self._name: str | None = None

    def reach(self, name: str, *, listed: bool) -> Self:
        """The fetch turns to this server now. Raises HostAway or FetchFailed where the server is away."""
        if name not in self._admitted:
            if self._breaker.admit(name, self._uri, listed=listed):
                self.asks.add(name)
            self._admitted.add(name)
        self._name = name
        return self

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """The server begins to answer: a FetchError of the block, such as NotFound, is an answer too.

        FetchRefused is none: it is said without asking anybody.
        """
        try:
            yield
        except FetchRefused:
            raise
        except FetchError:
            self._note_answer()
            raise
        self._note_answer()

    def failed(self, error: FetchFailed, *, trouble: str) -> TastewaveError:
        """What becomes of the fetch, which has failed on the server in all its tries: HostAway, or the error."""
        if self._name is None:
            return error
        asked = self._name in self.asks
        return self._breaker.note_failure(self._name, self._uri, error, trouble=trouble, asked=asked)

    def _note_answer(self) -> None:
        if self._name is not None:
            self._breaker.note_answer(self._name)


def _patience_s(server: _Server) -> float:
    return LISTED_PATIENCE_S if server.listed else PATIENCE_S
