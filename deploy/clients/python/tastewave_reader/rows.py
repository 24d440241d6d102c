"""What a read gives: an array of embeddings, and a column for everything else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tastewave_reader.errors import ContractBroken

TRACK_FIELDS = (b"embedding", b"tagged_at", b"status", b"genre", b"confidence")
USER_FIELDS = (b"embedding", b"refreshed_at", b"source")
Values = Sequence["bytes | None"]


@dataclass(frozen=True)
class Tracks:
    """Tracks in the order in which they were asked for.

    Attributes:
        ids: as asked for.
        release: whose answers these are.
        embeddings: (n, dim) float32, rows of norm 1; zeros where a track has none, or is not found.
        placed: (n,) whether it has an embedding.
        found: (n,) whether the release has an answer for it.
        status: tagged, abstained, failed or corrected (by an editor); None where it is not found.
        genre: None unless tagged or corrected.
        confidence: (n,) float32, probability of the genre that was named or guessed; NaN where there is none.
        age_s: (n,) float64, seconds since the answer was given; NaN where it is not found.
    """

    ids: tuple[str, ...]
    release: str
    embeddings: NDArray[np.float32]
    placed: NDArray[np.bool_]
    found: NDArray[np.bool_]
    status: tuple[str | None, ...]
    genre: tuple[str | None, ...]
    confidence: NDArray[np.float32]
    age_s: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Users:
    """Users in the order in which they were asked for.

    Attributes:
        ids: as asked for.
        release: whose taste space this is.
        embeddings: (n, dim) float32, rows of norm 1; zeros where a user is not found.
        found: (n,) whether the release knows the user.
        source: history, or global for a user without a listen that counts; None where the user is not found.
        age_s: (n,) float64, seconds since the embedding was computed; NaN where the user is not found.
    """

    ids: tuple[str, ...]
    release: str
    embeddings: NDArray[np.float32]
    found: NDArray[np.bool_]
    source: tuple[str | None, ...]
    age_s: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)


def tracks_of(ids: Sequence[str], release: str, replies: Sequence[Values], *, dim: int) -> Tracks:
    """Tracks from the values of TRACK_FIELDS of each.

    Raises:
        ContractBroken: the values are not those of tracks.
    """
    embedding, tagged_at, status, genre, confidence = _columns(replies, len(TRACK_FIELDS))
    embeddings, placed = _embeddings(ids, embedding, dim=dim)
    found, age_s = _ages(ids, tagged_at)
    return Tracks(
        ids=tuple(ids),
        release=release,
        embeddings=embeddings,
        placed=placed,
        found=found,
        status=_texts(status),
        genre=_texts(genre),
        confidence=_numbers(ids, confidence).astype(np.float32),
        age_s=age_s,
    )


def users_of(ids: Sequence[str], release: str, replies: Sequence[Values], *, dim: int) -> Users:
    """Users from the values of USER_FIELDS of each.

    Raises:
        ContractBroken: the values are not those of users.
    """
    embedding, refreshed_at, source = _columns(replies, len(USER_FIELDS))
    embeddings, _ = _embeddings(ids, embedding, dim=dim)
    found, age_s = _ages(ids, refreshed_at)
    return Users(
        ids=tuple(ids), release=release, embeddings=embeddings, found=found, source=_texts(source), age_s=age_s
    )


def _columns(replies: Sequence[Values], width: int) -> Sequence[Values]:
    return list(zip(*replies, strict=True)) if replies else [()] * width


def _embeddings(ids: Sequence[str], column: Values, *, dim: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    placed = np.array([value is not None for value in column], np.bool_)
    known = [value for value in column if value is not None]
    for track_or_user, value in zip(ids, column, strict=True):
        if value is not None and len(value) != 4 * dim:
            raise ContractBroken(
                f"the embedding of {track_or_user!r} has {len(value)} bytes, and {dim} float32 have {4 * dim}; open "
                "the reader with the dim of your release"
            )
    values = np.frombuffer(b"".join(known), "<f4").reshape(len(known), dim)
    if len(known) == len(column):
        return values.astype(np.float32), placed
    embeddings = np.zeros((len(column), dim), np.float32)
    embeddings[placed] = values
    return embeddings, placed


def _ages(ids: Sequence[str], column: Values) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    times = _numbers(ids, column)
    return ~np.isnan(times), np.maximum(time.time() - times / 1000.0, 0.0)


def _numbers(ids: Sequence[str], column: Values) -> NDArray[np.float64]:
    try:
        return np.array([np.nan if value is None else float(value) for value in column], np.float64)
    except ValueError as error:
        raise ContractBroken(f"among the answers for {list(ids)[:3]} ... a number is none: {error}") from error


def _texts(column: Values) -> tuple[str | None, ...]:
    return tuple([None if value is None else value.decode() for value in column])
