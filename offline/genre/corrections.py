"""What editors say of tracks, from a dump of the topic tastewave.tracks.corrected."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from models.errors import SettingsError

_COLUMNS = {"track_id": pl.String, "genre": pl.String, "at": pl.Int64}


def read_corrections(folder: Path) -> dict[str, str]:
    """The genre that stands, for each track that an editor has corrected.

        read_corrections(Path("corrected"))  # {"t1": "dub"}

    The latest correction of a track counts; of two of one time, that of the genre whose UTF-8 is greater.

    Args:
        folder: of the Parquet files that `tastewave-offline dump corrected --topic tastewave.tracks.corrected` writes.

    Raises:
        SettingsError: it holds none, or one of other columns.
    """
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise SettingsError(f"{folder} has no Parquet file; name a dump of tastewave.tracks.corrected")
    try:
        said = pl.concat(pl.read_parquet(path, columns=[*_COLUMNS]).cast(_COLUMNS) for path in paths)  # type: ignore[arg-type]
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SettingsError(
            f"{folder} is no dump of tastewave.tracks.corrected ({' '.join(str(error).split())}); dump it again"
        ) from error
    return dict(said.sort("at", "genre").select("track_id", "genre").rows())
