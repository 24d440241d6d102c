"""The taste space of one release, in memory: its tracks, the users of the last days, and the questions about them.

Everything is called from one event loop. Only the searches run in threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from numpy.typing import ArrayLike


class Hit(NamedTuple):
    """A track or a user that a search found.

    Attributes:
        id: track_id or user_id.
        score: dot product of the two embeddings, -1 to 1.
    """

    id: str
    score: float


class Taste:
    """What the topics tell of one release, to be searched.

        taste = feed.taste
        await taste.similar("t1", k=20, genre="jazz")   # [Hit("t7", 0.93), ...]
        await taste.tracks_for(user.embedding, k=20, leave_out=heard)
        taste.tracks_of_genre("jazz", limit=100)         # ["t1", "t12", ...]

    Keep it for one request: all of its answers are of `release`, and the next request may find another one live. Read a
    user's embedding under that release as well.

    Args:
        release: release_id.
        audience_days: users are held for so many days after their newest event.
    """

    release: str

    def __init__(self, release: str, *, audience_days: int) -> None:
        raise NotImplementedError

    async def similar(self, track_id: str, *, k: int, genre: str | None = None) -> list[Hit] | None:
        """The nearest tracks of a track, best first, without the track itself and without the same recording.

        A recording is the same where the content hash of its file is, or where its embedding and its duration are all
        but the same. Where a duration is not known the embedding alone decides, and more strictly.

        Args:
            track_id: of the track.
            k: the most hits.
            genre: only tracks that were tagged with it.

        Returns:
            None where no embedding of the track is held: it is unknown, or failed, was forgotten, or has no place.
        """
        raise NotImplementedError

    async def tracks_for(
        self, vector: ArrayLike, *, k: int, genre: str | None = None, leave_out: Iterable[str] = ()
    ) -> list[Hit]:
        """The nearest tracks of a place in taste space, best first.

        Args:
            vector: (dim,) of unit norm, such as a user's embedding of the same release.
            k: the most hits.
            genre: only tracks that were tagged with it.
            leave_out: ids of tracks that are not wanted; those that are not known do no harm.
        """
        raise NotImplementedError

    async def audience(self, track_id: str, *, k: int) -> list[Hit] | None:
        """The users whom a track is nearest to, best first, of those who were active in the last days.

        A user without a history (source global) has no taste of their own and is not among them. Whether a user has
        heard the track already is not known here.

        Returns:
            None where no embedding of the track is held.
        """
        raise NotImplementedError

    def tracks_of_genre(self, genre: str, *, after: str | None = None, limit: int) -> list[str]:
        """Ids of the tracks that were tagged with a genre, in the order of their UTF-8 bytes.

        Args:
            genre: its name; empty answers where no track has it.
            after: the last id of the page before. Pages stay consistent while tracks come and go: none is told twice,
                and none is passed over that was there all the time.
            limit: the most ids of a page.
        """
        raise NotImplementedError

    def genres(self) -> dict[str, int]:
        """How many tracks each genre has."""
        raise NotImplementedError
