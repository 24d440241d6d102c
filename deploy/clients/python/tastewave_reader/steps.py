"""The steps of a read, without input and output: what is asked of Redis, and what is made of its replies.

A step is a generator. It yields a request, the fields of some hashes, and is sent their values. So one description
serves a blocking client and one of asyncio.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from typing import Generic, NamedTuple, TypeVar

from tastewave_reader.errors import ContractBroken, NoLiveRelease, ReaderError
from tastewave_reader.rows import TRACK_FIELDS, USER_FIELDS, Tracks, Users, Values, tracks_of, users_of

IDS_AT_ONCE = 500
CONTRACT = b"1"
_LIVE_S = 1.0
_MOST_ID_BYTES = 256
_LIVE_FIELDS = (b"contract", b"release")
Rows = TypeVar("Rows", Tracks, Users)


class Request(NamedTuple):
    """The same fields of some hashes: one round trip, or one to each node of a Cluster."""

    keys: Sequence[str]
    fields: Sequence[bytes]


Steps = Generator[Request, "Sequence[Values]", Rows]


class Kind(NamedTuple, Generic[Rows]):
    """What is read of one kind of thing.

    Attributes:
        name: as it stands in keys.
        fields: that are asked for.
        rows: what is made of them.
    """

    name: str
    fields: tuple[bytes, ...]
    rows: Callable[..., Rows]


TRACKS: Kind[Tracks] = Kind("track", TRACK_FIELDS, tracks_of)
USERS: Kind[Users] = Kind("user", USER_FIELDS, users_of)


class Plan:
    """How a reader reads: the names of keys, the width of embeddings, and the live release of the last second.

    Args:
        key_prefix: of all keys: TASTEWAVE_REDIS_KEY_PREFIX of the workers.
        dim: dimensions of the release's taste space.
    """

    def __init__(self, *, key_prefix: str, dim: int) -> None:
        self._prefix, self._dim = key_prefix, dim
        self._live: tuple[float, str] | None = None

    def read(self, kind: Kind[Rows], ids: Sequence[str]) -> Steps[Rows]:
        """The steps that read some ids of one release.

        Raises:
            ValueError: an id is empty, or longer than 256 bytes.
            NoLiveRelease: no release is live.
            ContractBroken: what Redis holds is not as contract 1 says.
        """
        for one in ids:
            if not 0 < len(one.encode()) <= _MOST_ID_BYTES:
                raise ValueError(f"an id has 1 to {_MOST_ID_BYTES} bytes of UTF-8, got {one[:50]!r}")
        release = yield from self._release()
        replies: list[Values] = []
        for first in range(0, len(ids), IDS_AT_ONCE):
            keys = [f"{self._prefix}:{release}:{kind.name}:{{{one}}}" for one in ids[first : first + IDS_AT_ONCE]]
            replies += yield Request(keys, kind.fields)
        return kind.rows(ids, release, replies, dim=self._dim)

    def _release(self) -> Generator[Request, Sequence[Values], str]:
        """The live release, which is asked for once a second."""
        now, live = time.monotonic(), self._live
        if live is None or now - live[0] >= _LIVE_S:
            key = f"{self._prefix}:live"
            ((contract, release),) = yield Request([key], _LIVE_FIELDS)
            if not release:
                raise NoLiveRelease(
                    f"Redis has no release under {key}; start a worker, or open the reader with its key_prefix"
                )
            if isinstance(release, str):
                raise ReaderError(
                    "the client decodes replies, and embeddings are bytes; open it without decode_responses"
                )
            if contract != CONTRACT:
                raise ContractBroken(
                    f"Redis holds contract {(contract or b'none').decode()}, and this reader knows contract 1; install "
                    "the reader of your tastewave"
                )
            self._live = live = (now, release.decode())
        return live[1]
