"""Readers that keep their answers in memory: for the tests of those who read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from tastewave_reader.readers import AsyncReader, Reader
from tastewave_reader.steps import CONTRACT, Request

if TYPE_CHECKING:
    from tastewave_reader.rows import Values

_RELEASE = "0123456789ab"


class _Memory:
    """Hashes as Redis would hold them.

    Attributes:
        hashes: fields and their bytes by the names of keys.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.hashes: dict[str, dict[bytes, bytes]] = {}
        self.set_release(_RELEASE)

    def set_release(self, release: str) -> None:
        self._release = release
        self.hashes[f"{self._prefix}:live"] = {b"contract": CONTRACT, b"release": release.encode()}

    def put(self, kind: str, one: str, embedding: ArrayLike | None, fields: dict[bytes, str | None]) -> None:
        values = {name: text.encode() for name, text in fields.items() if text is not None}
        if embedding is not None:
            values[b"embedding"] = np.asarray(embedding, "<f4").tobytes()
        self.hashes[f"{self._prefix}:{self._release}:{kind}:{{{one}}}"] = values

    def fetch(self, request: Request) -> Sequence[Values]:
        return [[self.hashes.get(key, {}).get(field) for field in request.fields] for key in request.keys]


class _Fake:
    """What both fakes share: how answers get into them."""

    _memory: _Memory

    def put_track(
        self,
        track_id: str,
        *,
        genre: str | None = None,
        confidence: float | None = None,
        embedding: ArrayLike | None = None,
        status: str | None = None,
        age_s: float = 0.0,
    ) -> None:
        """Give a track an answer: tagged where it has a genre, abstained where it has none, unless `status` says else.

        Args:
            track_id: of the track.
            genre: of the answer.
            confidence: 0 to 1.
            embedding: (dim,).
            status: tagged, abstained, failed or corrected.
            age_s: how old the answer is.
        """
        self._memory.put(
            "track",
            track_id,
            embedding,
            {
                b"status": status or ("tagged" if genre else "abstained"),
                b"genre": genre,
                b"confidence": None if confidence is None else repr(confidence),
                b"tagged_at": _ago(age_s),
            },
        )

    def put_user(self, user_id: str, embedding: ArrayLike, *, source: str = "history", age_s: float = 0.0) -> None:
        """Give a user a place.

        Args:
            user_id: of the user.
            embedding: (dim,).
            source: history or global.
            age_s: how old the embedding is.
        """
        self._memory.put("user", user_id, embedding, {b"source": source, b"refreshed_at": _ago(age_s)})

    def set_release(self, release: str) -> None:
        """Make another release live, which has no answers yet. Readers notice it within a second."""
        self._memory.set_release(release)


class FakeReader(_Fake, Reader):
    """A Reader without Redis.

    reader = FakeReader()
    reader.put_track("t1", genre="jazz", confidence=0.9, embedding=np.ones(40) / 40**0.5)
    assert recommend(reader, "t1") == ...
    """

    def __init__(self, *, key_prefix: str = "tw", dim: int = 40) -> None:
        super().__init__(None, key_prefix=key_prefix, dim=dim)
        self._memory = _Memory(key_prefix)

    def close(self) -> None:
        """Nothing is open."""

    def _fetch(self, request: Request) -> Sequence[Values]:
        return self._memory.fetch(request)


class FakeAsyncReader(_Fake, AsyncReader):
    """An AsyncReader without Redis; see FakeReader."""

    def __init__(self, *, key_prefix: str = "tw", dim: int = 40) -> None:
        super().__init__(None, key_prefix=key_prefix, dim=dim)
        self._memory = _Memory(key_prefix)

    async def close(self) -> None:
        """Nothing is open."""

    async def _fetch(self, request: Request) -> Sequence[Values]:
        return self._memory.fetch(request)


def _ago(age_s: float) -> str:
    return str(round(1000 * (time.time() - age_s)))
