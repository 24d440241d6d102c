"""The taste space of one release, in memory: its tracks, the users of the last days, and the questions about them.

Everything is called from one event loop. Only searches and rebuilds run in threads.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import structlog
from aiokafka.structs import ConsumerRecord
from numpy.typing import ArrayLike, NDArray

from models.errors import EventError
from models.events import Forgotten, Status, decode_event
from stream.serve.genre_lists import GenreLists
from stream.serve.held import Held, Hit
from stream.serve.index import NO_LABEL, Found, Sample

log = structlog.get_logger(__name__)

SAME_SCORE, SAME_DURATION_MS = 0.995, 1000
"""Two tracks whose embeddings have this score and whose durations differ by no more are one recording."""
SAME_SCORE_ALONE = 0.9999
"""The score that says so where a duration is not known."""

_MORE = 8  # hits that are asked for beyond k, for recordings that are left out
_MOST_ASKED = 4096
_UNKNOWN = -1
_NO_CONTENT = hash("")
_DAY_MS = 86_400_000


class Change(NamedTuple):
    """What a record has changed.

    Attributes:
        kind: track (answered), track_removed, user (refreshed) or user_removed.
        id: track_id or user_id.
        at: tagged_at or refreshed_at, ms; 0 where removed.
        known_to: event_time of the answer, ms: what was forgotten up to then is not told any more.
        status: of a track.
        genre: of a tagged track.
    """

    kind: Literal["track", "track_removed", "user", "user_removed"]
    id: str
    at: int = 0
    known_to: int = 0
    status: str | None = None
    genre: str | None = None


class _Track(msgspec.Struct, gc=False):
    """What is read of a TrackTagged; the rest is passed over, which takes a third of the time."""

    status: Status
    event_time: int
    tagged_at: int
    genre: str | None = None
    confidence: float | None = None
    embedding: list[float] | None = None
    content_hash: str | None = None
    duration_ms: int = _UNKNOWN


class _User(msgspec.Struct, gc=False):
    """What is read of a UserEmbedded."""

    embedding: list[float]
    source: Literal["history", "global"]
    event_time: int
    refreshed_at: int


_track, _user = msgspec.json.Decoder(_Track), msgspec.json.Decoder(_User)
_TRACK_FACTS = np.dtype(
    [("event_time", "i8"), ("content", "i8"), ("duration_ms", "i8"), ("genre", "i4"), ("rank", "f4")]
)
_USER_FACTS = np.dtype([("event_time", "i8"), ("refreshed_at", "i8")])


class Doubtful(NamedTuple):
    """A track that an editor should look at, and its place in the queue of these: the pair of rank and row."""

    id: str
    rank: float
    row: int


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
        now_ms: the clock.

    Attributes:
        track_changes: how many records have changed tracks.
    """

    def __init__(
        self,
        release: str,
        *,
        audience_days: int,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.release = release
        self._key = f"{release}:".encode()
        self._audience_ms = audience_days * _DAY_MS
        self._now_ms = now_ms
        self._tracks, self._users = Held(_TRACK_FACTS), Held(_USER_FACTS)
        self._genres: dict[str, int] = {}
        self._genre_names: list[str] = []
        self._of_genre = GenreLists()
        self._forgotten: dict[Literal["user", "track"], dict[str, int]] = {"user": {}, "track": {}}
        self.track_changes = 0

    # Questions

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
        row = self._tracks.rows.row(track_id)
        if row is None or (vector := self._tracks.vector(row)) is None:
            return None
        asked = k + _MORE
        while True:
            found = await self._tracks.search(vector, asked, label=self._label(genre), leave_out=[row])
            if found is None:
                return []
            other = ~self._is_same_recording(row, found)
            if other.sum() >= k or len(found.rows) < asked or asked >= _MOST_ASKED:
                return self._tracks.hits(Found(found.rows[other], found.scores[other]), k)
            asked = min(4 * asked, _MOST_ASKED)

    async def tracks_for(
        self, vector: ArrayLike, *, k: int, genre: str | None = None, leave_out: Iterable[str] = ()
    ) -> list[Hit]:
        """The nearest tracks of a place in taste space, best first.

        Args:
            vector: (dim,) of unit norm, such as a user's embedding of the same release.
            k: the most hits.
            genre: only tracks that were tagged with it.
            leave_out: ids of tracks that are not wanted; those that are not known do no harm.

        Raises:
            ValueError: the vector has other dimensions than the release.
        """
        unwanted = [row for track_id in leave_out if (row := self._tracks.rows.row(track_id)) is not None]
        found = await self._tracks.search(vector, k, label=self._label(genre), leave_out=unwanted)
        return self._tracks.hits(found, k) if found else []

    async def audience(self, track_id: str, *, k: int) -> list[Hit] | None:
        """The users whom a track is nearest to, best first, of those who were active in the last days.

        A user without a history (source global) has no taste of their own and is not among them. Whether a user has
        heard the track already is not known here.

        Returns:
            None where no embedding of the track is held.
        """
        row = self._tracks.rows.row(track_id)
        if row is None or (vector := self._tracks.vector(row)) is None:
            return None
        found = await self._users.search(vector, k)
        return self._users.hits(found, k) if found else []

    def tracks_of_genre(self, genre: str, *, after: str | None = None, limit: int) -> list[str]:
        """Ids of the tracks that were tagged with a genre, in the order of their UTF-8 bytes.

        Args:
            genre: its name; empty answers where no track has it.
            after: the last id of the page before. Pages stay consistent while tracks come and go: none is told twice,
                and none is passed over that was there all the time.
            limit: the most ids of a page.
        """
        return self._of_genre.page(genre, after=after, limit=limit)

    def genres(self) -> dict[str, int]:
        """How many tracks each genre has."""
        return self._of_genre.counts()

    def place_of(self, track_id: str) -> tuple[int, NDArray[np.float32]] | None:
        """The row of a track and its embedding, (dim,); None where no embedding is held."""
        row = self._tracks.rows.row(track_id)
        return None if row is None or (vector := self._tracks.vector(row)) is None else (row, vector)

    def sample(self, most: int) -> Sample | None:
        """The embeddings of all tracks, or of a part that stays the same, with their genres as `genre_names` counts.

        It may be called in a thread. None where there is none.
        """
        return self._tracks.index.sample(most) if self._tracks.index else None

    def track_id(self, row: int) -> str | None:
        """The track of a row, or None where it has left."""
        return self._tracks.rows.id(row)

    def genre_names(self) -> list[str]:
        """The genres that tracks of this release have had, by their numbers."""
        return list(self._genre_names)

    async def doubtful(self, *, after: tuple[float, int] = (-math.inf, 0), limit: int) -> list[Doubtful]:
        """The tracks that need an editor most: those without a genre since the release abstained, then those with one.

        Of both, the least confident come first. What failed, and what an editor has corrected, is not among them.

        Args:
            after: rank and row of the last track of the page before. Tracks that come later are told on a page of their
                rank.
            limit: the most tracks.
        """
        ranks = self._tracks.facts["rank"][: self._tracks.rows.size].copy()
        rows = await asyncio.to_thread(_least, ranks, after=after, limit=limit)
        named = ((self._tracks.rows.id(row), float(ranks[row]), row) for row in rows.tolist())
        return [Doubtful(id_, rank, row) for id_, rank, row in named if id_ is not None]

    def knows(self, change: Change) -> bool:
        """Whether a change may still be told: its track or user was not forgotten since."""
        kind = "user" if change.kind.startswith("user") else "track"
        return change.at == 0 or change.known_to > self._forgotten[kind].get(change.id, -1)

    @property
    def sizes(self) -> tuple[int, int]:
        """How many tracks have an embedding, and how many users are held."""
        return len(self._tracks), len(self._users)

    @property
    def nbytes(self) -> int:
        """Bytes of vectors, indexes and tables, without the ids."""
        return self._tracks.nbytes + self._users.nbytes

    # Records

    def take_tracks(self, records: Sequence[ConsumerRecord]) -> list[Change | None]:
        """Take records of tastewave.tracks.tagged, in their order; returns what each has changed."""
        with self._tracks.writing():
            taken = [self._take_track(name, record.value) if name else None for name, record in self._named(records)]
        self.track_changes += len(taken) - taken.count(None)
        return taken

    def take_users(self, records: Sequence[ConsumerRecord]) -> list[Change | None]:
        """Take records of tastewave.users.embedded, in their order; returns what each has changed."""
        oldest_ms = self._now_ms() - self._audience_ms
        with self._users.writing():
            return [
                self._take_user(name, record, oldest_ms=oldest_ms) if name else None
                for name, record in self._named(records)
            ]

    def take_forgotten(self, records: Sequence[ConsumerRecord]) -> list[Change | None]:
        """Take records of tastewave.forgotten, in their order. The empty values that follow elsewhere tell of it."""
        for record in records:
            if record.value:
                self._forget(record.value)
        return [None] * len(records)

    def let_go(self) -> None:
        """Let users go whose newest event is older than the last days."""
        for name in self._users.before(self._now_ms() - self._audience_ms):
            self._users.drop(name)

    async def rebuild(self) -> None:
        """Build anew what is due to, in a thread."""
        for held in (self._tracks, self._users):
            if held.index and held.index.rebuild_due:
                await asyncio.to_thread(held.index.rebuild)

    def _named(self, records: Sequence[ConsumerRecord]) -> Iterable[tuple[str | None, ConsumerRecord]]:
        """The id in the key of each record; None where it is of another release."""
        own, start = self._key, len(self._key)
        for record in records:
            key: Any = record.key
            try:
                yield (key[start:].decode() if key and key.startswith(own) else None), record
            except UnicodeDecodeError:
                yield None, record

    def _take_track(self, track_id: str, value: bytes | None) -> Change | None:
        if not value:
            self._drop_track(track_id)
            return Change("track_removed", track_id)
        track = _decoded(_track, value, "track", track_id)
        if track is None or track.event_time <= self._forgotten["track"].get(track_id, -1):
            return None
        genre = track.genre
        if genre is None and track.embedding is None and track.status != "abstained":
            self._drop_track(track_id)
        else:
            self._hold_track(track_id, track, genre)
        return Change("track", track_id, track.tagged_at, track.event_time, track.status, genre)

    def _hold_track(self, track_id: str, track: _Track, genre: str | None) -> None:
        held = self._tracks
        is_new = held.rows.row(track_id) is None
        row = held.add(track_id)
        code = self._genre_code(genre)
        before = NO_LABEL if is_new else int(held.facts["genre"][row])
        if before != code:
            if before != NO_LABEL:
                self._of_genre.remove(self._genre_names[before], track_id)
            if genre:
                self._of_genre.add(genre, track_id)
        held.facts[row] = (track.event_time, hash(track.content_hash or ""), track.duration_ms, code, _rank(track))
        held.put(row, track.embedding, code)

    def _drop_track(self, track_id: str) -> None:
        row = self._tracks.rows.row(track_id)
        if row is None:
            return
        if (code := int(self._tracks.facts["genre"][row])) != NO_LABEL:
            self._of_genre.remove(self._genre_names[code], track_id)
        self._tracks.facts["rank"][row] = math.nan
        self._tracks.drop(track_id)

    def _take_user(self, user_id: str, record: ConsumerRecord, *, oldest_ms: int) -> Change | None:
        if not record.value:
            self._users.drop(user_id)
            return Change("user_removed", user_id)
        if record.timestamp < oldest_ms:  # published before, and computed from events before that
            return None
        user = _decoded(_user, record.value, "user", user_id)
        if user is None or min(user.event_time, user.refreshed_at) <= self._forgotten["user"].get(user_id, -1):
            return None
        if user.source == "history" and user.event_time >= oldest_ms:
            row = self._users.add(user_id)
            self._users.facts[row] = (user.event_time, user.refreshed_at)
            self._users.put(row, user.embedding, NO_LABEL)
        else:
            self._users.drop(user_id)
        return Change("user", user_id, user.refreshed_at, min(user.event_time, user.refreshed_at))

    def _forget(self, value: bytes) -> None:
        try:
            fact = decode_event(value, Forgotten)
        except EventError as error:
            log.warning("feed.refused", what="forgotten", error=str(error))
            return
        marks = self._forgotten[fact.kind]
        marks[fact.id] = max(fact.forgotten_at, marks.get(fact.id, -1))
        held = self._tracks if fact.kind == "track" else self._users
        row = held.rows.row(fact.id)
        if row is None:
            return
        if fact.kind == "track":
            if held.facts["event_time"][row] <= fact.forgotten_at:
                self._drop_track(fact.id)
        elif min(held.facts["event_time"][row], held.facts["refreshed_at"][row]) <= fact.forgotten_at:
            self._users.drop(fact.id)

    def _label(self, genre: str | None) -> int | None:
        return None if genre is None else self._genres.get(genre, _UNKNOWN - 1)

    def _genre_code(self, genre: str | None) -> int:
        if genre is None:
            return NO_LABEL
        if (code := self._genres.get(genre)) is None:
            code = self._genres[genre] = len(self._genre_names)
            self._genre_names.append(genre)
        return code

    def _is_same_recording(self, row: int, found: Found) -> NDArray[np.bool_]:
        """Whether each track that was found is the recording of a track."""
        facts, own = self._tracks.facts[found.rows], self._tracks.facts[row]
        same_content = (facts["content"] == own["content"]) & (own["content"] != _NO_CONTENT)
        both_known = (facts["duration_ms"] != _UNKNOWN) & (own["duration_ms"] != _UNKNOWN)
        near = np.abs(facts["duration_ms"] - own["duration_ms"]) <= SAME_DURATION_MS
        same_sound = np.where(both_known, near & (found.scores >= SAME_SCORE), found.scores >= SAME_SCORE_ALONE)
        return same_content | same_sound


def _rank(track: _Track) -> float:
    """Where a track stands in the queue of an editor; NaN where it does not."""
    if track.status not in ("tagged", "abstained"):
        return math.nan
    return (track.confidence or 0.0) - (track.status == "abstained")


def _least(ranks: NDArray[np.float32], *, after: tuple[float, int], limit: int) -> NDArray[np.intp]:
    """The rows of the least ranks after a pair of rank and row, in the order of these pairs; NaN is no rank."""
    rank, row = after
    rows = np.flatnonzero(ranks >= rank)
    rows = rows[(ranks[rows] > rank) | (rows > row)]
    if len(rows) > limit:
        greatest = np.partition(ranks[rows], limit - 1)[limit - 1]
        less, same = rows[ranks[rows] < greatest], rows[ranks[rows] == greatest]
        rows = np.concatenate([less, same[: limit - len(less)]])
    return rows[np.lexsort((rows, ranks[rows]))]


def _decoded(decoder: msgspec.json.Decoder[Any], value: bytes, what: str, name: str) -> Any:
    try:
        return decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        log.warning("feed.refused", what=what, id=name, error=str(error))
        return None
