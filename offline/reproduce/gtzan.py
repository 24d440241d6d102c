"""`tastewave-offline reproduce gtzan`: the protocol on the tracks of GTZAN that have no known fault."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import polars as pl

from models.audio.windows import SUFFIXES
from models.errors import SettingsError
from offline.features.catalogue import SCHEMA
from offline.genre.labels import joined
from offline.reproduce.labelled_set import LabelledSet, Published, Split
from offline.reproduce.protocol import Outcome
from offline.reproduce.protocol import run as run_protocol
from offline.reproduce.settings import ReproduceGtzan

LISTS = Path(__file__).parent / "gtzan_lists"
PARTS = ("train", "valid", "test")
PUBLISHED = Published(without=0.7653, preference=0.8013, reference=0.7724)

_ARTISTS = "artists.csv"


def run(settings: ReproduceGtzan) -> Outcome:
    """Run the protocol on GTZAN. Raises as offline.reproduce.protocol.run, and read_gtzan."""
    return run_protocol(settings, read_gtzan(Path(settings.audio), lists=Path(settings.lists or LISTS)))


def read_gtzan(audio: Path, *, lists: Path = LISTS) -> LabelledSet:
    """GTZAN's fault-filtered tracks: 443 to train, 197 to validate and 290 to test in the lists that ship.

    Args:
        audio: folder of the audio, `blues/blues.00029.wav` or `.au`, with or without the folders of genres.
        lists: folder of the lists of tracks.

    Raises:
        SettingsError: a list cannot be read, has no tracks or names one twice, or the audio of a track is missing.
    """
    parts = {part: _read_list(lists / f"{part}_filtered.txt") for part in PARTS}
    ids = [track for part in PARTS for track in parts[part]]
    names = [PurePosixPath(track).name for track in ids]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise SettingsError(
            f"{lists} names {twice[0]} twice; leave a track in one part, and give each a name of its own: audio is "
            "found by it"
        )
    artist_of = _read_artists(lists / _ARTISTS)
    runs = {track: run for part in PARTS for track, run in _runs(parts[part], part)}
    named = [artist_of.get(name) for name in names]
    groups = joined([artists or [runs[track]] for track, artists in zip(ids, named, strict=True)])
    tracks = {
        "track_id": ids,
        "uri": _places(audio, names),
        "artist_id": [f"artist {number}" for number in groups],
        "genre": [PurePosixPath(track).parts[0] for track in ids],
    }
    known, sizes = len(ids) - named.count(None), " / ".join(str(len(parts[part])) for part in PARTS)
    return LabelledSet(
        name="GTZAN, fault-filtered" if lists == LISTS else f"the tracks of {lists}",
        tracks=pl.DataFrame(tracks, schema=SCHEMA),
        splits=(
            Split(name="train to test", train=frozenset(parts["train"]), test=frozenset(parts["test"]), published=True),
        ),
        published=PUBLISHED,
        notes=(
            f"{len(ids)} tracks, {sizes} to train / validate / test; the split trains on the first and asks the last",
            f"the artist of {known} tracks is known; of the others, those that stand one after another in a part of "
            "the split count as of one artist, so that folds err on the strict side",
            *(() if lists == LISTS else (f"the published figures are of GTZAN, and not of these tracks of {lists}",)),
        ),
    )


def _read_list(path: Path) -> list[str]:
    """The ids of a part's tracks: `blues/blues.00029`."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"{path} cannot be read ({error}); give a file with a track in each line") from error
    if not lines or any(len(PurePosixPath(line).parts) != 2 for line in lines):
        raise SettingsError(f"{path} is no list of tracks; write lines such as blues/blues.00029.wav")
    return [line.removesuffix(suffix) if (suffix := Path(line).suffix).lower() in SUFFIXES else line for line in lines]


def _read_artists(path: Path) -> dict[str, list[str]]:
    """The artists of those tracks for which they are known, by the names of the tracks."""
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["track"], row["artist"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, UnicodeError, csv.Error) as error:
        raise SettingsError(f"{path} cannot be read ({error!r}); give a CSV with the columns track, artist") from error
    return {track: [f"named {name.strip()}" for name in artist.split(";")] for track, artist in rows if artist}


def _runs(ids: Sequence[str], part: str) -> Iterator[tuple[str, str]]:
    """Each track, and a name that it shares with those of its genre that stand one after another in this part.

    GTZAN is ordered by artist in the main, and no artist is in two parts.
    """
    before, run = ("", -2), ""
    for track in sorted(ids):
        genre, name = PurePosixPath(track).parts
        number = int(digits[0]) if (digits := re.findall(r"\d+$", name)) else -1
        if before != (genre, number - 1):
            run = f"{part} from {track}"
        before = genre, number
        yield track, run


def _places(audio: Path, names: Sequence[str]) -> list[str]:
    found = {
        path.stem: str(path.resolve())
        for path in sorted(audio.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    }
    if missing := [name for name in names if name not in found]:
        raise SettingsError(
            f"{audio} lacks {len(missing)} of the {len(names)} tracks, such as {missing[0]}; name the folder that has "
            "them, as blues/blues.00000.wav or .au"
        )
    return [found[name] for name in names]
