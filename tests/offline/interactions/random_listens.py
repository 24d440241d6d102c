"""Random listens of all kinds, and the log that they make."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from hypothesis import strategies as st

from models.events import Listen
from models.history import KINDS

NOON = 1_767_225_600_000
_SCHEMA = {
    **{"user_id": pl.String, "track_id": pl.String, "at": pl.Int64, "kind": pl.String},
    **{"played_ms": pl.Int64, "duration_ms": pl.Int64, "excluded": pl.Boolean},
}


def _listen(user: str, track: str, kind: str, minute: int, lengths: tuple[int, int], excluded: bool) -> Listen:
    told = dict(zip(("played_ms", "duration_ms"), lengths, strict=True)) if kind in ("play", "skip", "like") else {}
    at = NOON + 60_000 * minute
    return Listen(event_id="e", user_id=user, track_id=track, kind=kind, at=at, excluded=excluded, **told)  # type: ignore[arg-type]


random_listens = st.lists(
    st.builds(
        _listen,
        st.sampled_from(["ann", "bob", "c"]),
        st.sampled_from(["t", "T", "tä", "t0", "\U0001f3b5", "\uffee"]),
        st.sampled_from(KINDS),
        st.integers(0, 8),
        st.sampled_from([(0, 100_000), (9_000, 100_000), (60_000, 100_000), (2**26, 2**27), (2**25 - 1, 2**27)]),
        st.sampled_from([False, False, False, False, True]),
    ),
    min_size=1,
    max_size=60,
    unique_by=lambda listen: (listen.user_id, listen.track_id, listen.kind, listen.at, listen.played_ms),
)


def write_log(path: Path, listens: Sequence[Listen]) -> str:
    """Write listens as a log."""
    rows = [{name: getattr(listen, name) for name in _SCHEMA} for listen in listens]
    pl.DataFrame(rows, schema=_SCHEMA).write_parquet(path)
    return str(path)


def write_forgotten(path: Path, *forgotten: tuple[str, str, int]) -> str:
    """Write kinds, ids and times as a dump of tastewave.forgotten."""
    pl.DataFrame(forgotten, orient="row", schema=["kind", "id", "forgotten_at"]).write_parquet(path)
    return str(path)
