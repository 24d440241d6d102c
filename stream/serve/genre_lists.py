"""The tracks of each genre in the order of their ids, for pages that stay consistent while tracks come and go."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

_SORTED_AT_ONCE = 16


class GenreLists:
    """Ids by genre.

    lists = GenreLists()
    lists.add("jazz", "t2")
    lists.add("jazz", "t1")
    lists.page("jazz", after=None, limit=10)  # ["t1", "t2"]

    A track is added once, and removed from the genre that it was added to.
    """

    def __init__(self) -> None:
        self._ids: dict[str, list[str]] = {}
        self._new: dict[str, list[str]] = {}

    def add(self, genre: str, track_id: str) -> None:
        """Note that a track has a genre."""
        self._new.setdefault(genre, []).append(track_id)

    def remove(self, genre: str, track_id: str) -> None:
        """Note that a track has a genre no more."""
        ids = self._sorted(genre)
        at = bisect_left(ids, track_id)
        if at < len(ids) and ids[at] == track_id:
            del ids[at]

    def page(self, genre: str, *, after: str | None, limit: int) -> list[str]:
        """The first ids after one, or of all, in the order of their UTF-8 bytes."""
        ids = self._sorted(genre)
        start = 0 if after is None else bisect_right(ids, after)
        return ids[start : start + limit]

    def counts(self) -> dict[str, int]:
        """How many tracks each genre has; genres without any are left out."""
        counts = {genre: len(self._sorted(genre)) for genre in {*self._ids, *self._new}}
        return {genre: count for genre, count in sorted(counts.items()) if count}

    def _sorted(self, genre: str) -> list[str]:
        """The ids of a genre. What came since the last look is sorted in: one by one where it is little."""
        new = self._new.pop(genre, [])
        if not new:
            return self._ids.get(genre, [])
        ids = self._ids.setdefault(genre, [])
        if len(new) < _SORTED_AT_ONCE:
            for track_id in new:
                insort(ids, track_id)
        else:
            ids += new
            ids.sort()
        return ids
