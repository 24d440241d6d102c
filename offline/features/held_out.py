"""`tastewave-offline hold-out`: tracks that no training sees, so that what never heard them can be judged by them.

They are drawn before anything is trained, and stand in a list that the trainings of a user tower and of an audio
encoder read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import polars as pl
from msgspec import Meta
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from models.errors import SettingsError
from offline.features.store import StoredTrack, open_store
from offline.files import new_file, writing

_COLUMNS = ("track_id", "part")


class Part(IntEnum):
    """What a track is for."""

    TRAIN = 0
    VALID = 1
    TEST = 2


_CODES = {part.name.lower(): int(part) for part in Part if part != Part.TRAIN}


class HoldOut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `tastewave-offline hold-out`."""

    store: Annotated[str, Meta(description="Folder that `features` wrote: the tracks, their artists and contents.")]

    out: Annotated[str, Meta(description="CSV file to write: track_id and part, test or valid.")]

    share: Annotated[
        float,
        Meta(
            gt=0.0,
            lt=0.5,
            description="Share of the tracks, of whole artists, that is held out for the report; as many again choose "
            "the step of an encoder and of a fine-tuned tower that is kept.",
        ),
    ] = 0.1

    seed: Annotated[int, Meta(ge=0, description="Of the draw.")] = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A list that was written.

    Attributes:
        out: the file.
        tracks: of each part.
    """

    out: Path
    tracks: dict[str, int]

    def lines(self) -> list[str]:
        """One line."""
        test, valid, train = (f"{self.tracks[name]:,}" for name in ("test", "valid", "train"))
        return [f"{self.out}: {test} tracks for the report, {valid} to choose steps; {train} are left to learn from"]


def run(settings: HoldOut) -> Outcome:
    """Draw the tracks of a store that are held out, and write their list.

    Raises:
        SettingsError: the store has too few artists, or the file cannot be written.
        ReleaseError: the store cannot be used.
    """
    store, out = open_store(settings.store), Path(settings.out)
    tracks = list(store)
    parts = hold_out(tracks, share=settings.share, seed=settings.seed) if tracks else np.empty(0, np.uint8)
    counts = {part.name.lower(): int((parts == part).sum()) for part in Part}
    if missing := [name for name, count in counts.items() if not count]:
        raise SettingsError(
            f"the {len(tracks)} tracks of {settings.store} have too few artists: none is left for {missing[0]}; take a "
            "larger catalogue, or another share"
        )
    names = {code: name for name, code in _CODES.items()}
    held = [(track.track_id, names[part]) for track, part in zip(tracks, parts.tolist(), strict=True) if part in names]
    with writing(out), new_file(out) as draft:
        pl.DataFrame(held, orient="row", schema=dict.fromkeys(_COLUMNS, pl.String)).write_csv(draft)
    return Outcome(out=out, tracks=counts)


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """A list of tracks that are held out.

    Attributes:
        where: the file.
        sha256: 12 hex digits of the hash of it.
        tracks: track_id, and the code of its Part.
    """

    where: str
    sha256: str
    tracks: pl.DataFrame

    def parts(self, track_ids: pl.Series) -> NDArray[np.int64]:
        """(n,) codes of Part: TRAIN where the list does not have a track."""
        return track_ids.replace_strict(
            self.tracks["track_id"], self.tracks["part"], default=int(Part.TRAIN), return_dtype=pl.Int64
        ).to_numpy()

    def facts(self) -> dict[str, Any]:
        """For the manifest of what was trained without these tracks."""
        return {"sha256": self.sha256, "tracks": len(self.tracks)}


def read_held_out(where: str) -> HeldOut:
    """Read a list that `hold-out` wrote, or another CSV file of the same columns.

    Raises:
        SettingsError: it cannot be read, or says something else.
    """
    try:
        content = Path(where).read_bytes()
        table = pl.read_csv(content, infer_schema=False).select(_COLUMNS)
        tracks = table.select("track_id", pl.col("part").replace_strict(_CODES, return_dtype=pl.Int64))
    except OSError as error:
        raise SettingsError(f"{where} cannot be read ({error.strerror}); name a file that `hold-out` wrote") from None
    except pl.exceptions.PolarsError as error:
        why = str(error).partition("\n")[0]
        raise SettingsError(
            f"{where} is no list of held-out tracks ({why}); it has the columns track_id and part, which is test or "
            "valid: write it with `hold-out`"
        ) from error
    if tracks["track_id"].is_duplicated().any():
        raise SettingsError(f"{where} has a track twice; write it again with `hold-out`")
    return HeldOut(where=where, sha256=hashlib.sha256(content).hexdigest()[:12], tracks=tracks)


def hold_out(tracks: Sequence[StoredTrack], *, share: float, seed: int) -> NDArray[np.uint8]:
    """Draw the tracks that are held out: whole artists, and with a track all others whose files are equal to its own.

        parts = hold_out(list(store), share=0.1, seed=0)
        parts == Part.TRAIN

    Args:
        tracks: of a store. One whose artist is not known is an artist of its own.
        share: of the tracks for TEST, and as many for VALID. An artist that would exceed it stays in TRAIN.
        seed: of the draw.

    Returns:
        (tracks,) codes of Part.
    """
    groups = _groups(tracks)
    sizes, wanted = np.bincount(groups), max(1, round(share * len(tracks)))
    left = {Part.TEST: wanted, Part.VALID: wanted}
    parts = np.full(len(sizes), Part.TRAIN, np.uint8)
    for group in np.random.default_rng(seed).permutation(len(sizes)):
        for part, room in left.items():
            if sizes[group] <= room:
                left[part] = room - int(sizes[group])
                parts[group] = part
                break
    return parts[groups]


def _groups(tracks: Sequence[StoredTrack]) -> NDArray[np.int64]:
    """(tracks,) numbers of the groups that stay together: those that a chain of artists and contents connects."""
    names = dict[tuple[str, str | None], int]()
    edges = [
        (number, len(tracks) + names.setdefault(name, len(names)))
        for number, track in enumerate(tracks)
        for name in (("artist", track.artist_id), ("content", track.content))
        if name[1]
    ]
    size = len(tracks) + len(names)
    rows, columns = np.array(edges).T
    _, labels = connected_components(coo_array((np.ones(len(edges), bool), (rows, columns)), shape=(size, size)))
    return np.unique(labels[: len(tracks)], return_inverse=True)[1]
