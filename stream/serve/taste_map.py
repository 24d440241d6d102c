"""The tracks of a release in two dimensions: principal components (PCA) of the embeddings that a map shows."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream.serve.index import NO_LABEL, Sample
from stream.serve.taste import Taste

Floats = NDArray[np.float64]

MOST_POINTS = 50_000
"""Points of a map; of more tracks it shows a sample."""
REDRAW_S, REDRAW_SOON_S, MUCH = 60.0, 2.0, 0.1
"""A map that changes have made old is drawn anew after so long; sooner where they are a tenth of its points."""

_NO_GENRE = 0xFFFF
_STEPS = 0xFFFF  # of a coordinate
_GZIP_LEVEL = 5


class Projection(NamedTuple):
    """From taste space to the plane.

    Attributes:
        mean: (dim,) of the embeddings.
        axes: (2, dim) orthonormal, the one along which they differ most first.
        variance: the share of their variance that the two show.
    """

    mean: Floats
    axes: Floats
    variance: float

    @classmethod
    def fitted(cls, vectors: ArrayLike, *, before: Projection | None = None) -> Self:
        """The principal components of (n, dim) vectors.

        The sign of a principal axis is arbitrary. It is that of the axis before, so that no map is the mirror of the
        one that it replaces; without one, the coordinate of greatest size is positive.
        """
        vectors = np.asarray(vectors, np.float64)
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        variances, axes = np.linalg.eigh(centred.T @ centred / len(vectors))
        axes = axes[:, :-3:-1].T
        greatest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
        turned = greatest < 0 if before is None else (axes * before.axes).sum(axis=1) < 0
        total = variances.sum()
        share = float(variances[-2:].sum() / total) if total > 0 else 0.0
        return cls(mean, np.where(turned[:, None], -axes, axes), min(share, 1.0))

    def place(self, vectors: ArrayLike) -> Floats:
        """(..., 2) of (..., dim) vectors."""
        return (np.asarray(vectors, np.float64) - self.mean) @ self.axes.T


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What stands before the points of a map.

    Attributes:
        version: of the map; a place that names another version belongs to another map.
        release: whose tracks these are.
        tracks: how many tracks have an embedding.
        points: how many of them the map shows.
        dimensions: of the embeddings.
        variance: the share of the variance of these that the map shows, 0 to 1.
        box: least x, least y, greatest x, greatest y.
        genres: their names, by the numbers of the points.
    """

    version: str
    release: str
    tracks: int
    points: int
    dimensions: int
    variance: float
    box: tuple[float, float, float, float]
    genres: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class TasteMap:
    """A map, drawn.

    Attributes:
        head: of it.
        projection: by which tracks and users are placed in it; None where it has no point.
        rows: (points,) of the tracks, ascending.
        track_ids: of the points; None where one has left meanwhile.
        places: (points, 2).
        body: as it is sent: the length of the head (uint32), the head as JSON, padded with spaces to a multiple of 4;
            then uint16: the x of all points, the y of all points (0 to 65535 across the box), and the numbers of their
            genres (65535: none). Little-endian.
        packed: the same, gzipped.
        drawn_at: when, in seconds of the monotonic clock.
        changes: Taste.track_changes when it was drawn.
    """

    head: Head
    projection: Projection | None
    rows: NDArray[np.int64]
    track_ids: list[str | None]
    places: Floats
    body: bytes
    packed: bytes
    drawn_at: float
    changes: int

    def point(self, row: int) -> int | None:
        """The point of a row, or None."""
        at = int(np.searchsorted(self.rows, row))
        return at if at < len(self.rows) and self.rows[at] == row else None


class TasteMaps:
    """Draws the map of the release that is answered from, and keeps it. One drawing serves all who ask meanwhile.

    Args:
        monotonic: the clock, in seconds.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._drawn: TasteMap | None = None
        self._drawing: tuple[Taste, asyncio.Task[TasteMap]] | None = None

    async def newest(self, taste: Taste) -> TasteMap:
        """The map of a release, drawn anew where it has become old."""
        return await self._draw(taste) if self._is_old(taste) else await self.kept(taste)

    async def kept(self, taste: Taste) -> TasteMap:
        """The map of a release as `newest` told it last, by which places are told. An empty one is not kept."""
        drawn = self._drawn
        if drawn is None or drawn.head.release != taste.release or (drawn.projection is None and self._is_old(taste)):
            return await self._draw(taste)
        return drawn

    def _is_old(self, taste: Taste) -> bool:
        drawn = self._drawn
        if drawn is None or drawn.head.release != taste.release:
            return True
        age_s, changes = self._monotonic() - drawn.drawn_at, taste.track_changes - drawn.changes
        if changes < 0:  # the topics were made anew, and are read anew
            return True
        if drawn.projection is None:
            return changes > 0
        return changes > 0 and (age_s > REDRAW_S or (age_s > REDRAW_SOON_S and changes > MUCH * len(drawn.rows)))

    async def _draw(self, taste: Taste) -> TasteMap:
        if self._drawing is None or self._drawing[0] is not taste:
            self._drawing = taste, asyncio.create_task(self._drawn_of(taste))
        return await asyncio.shield(self._drawing[1])  # who asked first may go away before the others

    async def _drawn_of(self, taste: Taste) -> TasteMap:
        before = self._drawn if self._drawn and self._drawn.head.release == taste.release else None
        try:
            self._drawn = await asyncio.to_thread(drawn, taste, before=before, at=self._monotonic())
            return self._drawn
        finally:
            self._drawing = None


def drawn(taste: Taste, *, before: TasteMap | None = None, at: float = 0.0) -> TasteMap:
    """Draw the map of a release.

    Args:
        taste: the release.
        before: its map that this one replaces.
        at: the time, in seconds of the monotonic clock.
    """
    changes, (tracks, _) = taste.track_changes, taste.sizes
    sample = taste.sample(MOST_POINTS)
    genres = taste.genre_names()  # after the sample, which may have new ones
    if sample is None or not len(sample.rows):
        sample = Sample(np.empty(0, np.int64), np.empty((0, 2), np.float32), np.empty(0, np.int32))
        projection, places, box = None, np.empty((0, 2)), (0.0, 0.0, 0.0, 0.0)
    else:
        projection = Projection.fitted(sample.vectors, before=before.projection if before else None)
        places = projection.place(sample.vectors)
        left, bottom, right, top = *places.min(axis=0).tolist(), *places.max(axis=0).tolist()
        box = (left, bottom, right, top)
    points = _points(places, box, sample.labels)
    head = Head(
        version="",
        release=taste.release,
        tracks=tracks,
        points=len(sample.rows),
        dimensions=len(projection.mean) if projection else 0,
        variance=projection.variance if projection else 0.0,
        box=box,
        genres=genres,
    )
    told = msgspec.json.encode(head) + sample.rows.tobytes() + points
    head = msgspec.structs.replace(head, version=blake2b(told, digest_size=9).hexdigest())
    body = _with_head(head, points)
    return TasteMap(
        head=head,
        projection=projection,
        rows=sample.rows,
        track_ids=[taste.track_id(row) for row in sample.rows.tolist()],
        places=places,
        body=body,
        packed=gzip.compress(body, _GZIP_LEVEL, mtime=0),
        drawn_at=at,
        changes=changes,
    )


def _points(places: Floats, box: tuple[float, ...], labels: NDArray[np.int32]) -> bytes:
    least, size = np.array(box[:2]), np.maximum(np.array(box[2:]) - box[:2], np.finfo(np.float64).tiny)
    steps = np.rint((places - least) / size * _STEPS).astype("<u2")
    codes = np.where(labels == NO_LABEL, _NO_GENRE, np.minimum(labels, _NO_GENRE)).astype("<u2")
    return steps.T.tobytes() + codes.tobytes()


def _with_head(head: Head, points: bytes) -> bytes:
    told = msgspec.json.encode(head)
    told += b" " * (-len(told) % 4)
    return len(told).to_bytes(4, "little") + told + points
