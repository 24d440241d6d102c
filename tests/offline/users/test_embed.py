"""`embed-users` writes what Redis would have answered with at each moment."""

import datetime
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from models.errors import ReleaseError, SettingsError
from models.events import Listen
from models.history import KINDS, NewestEvents
from models.refresh import refresh
from models.release import load_release
from models.user_tower import load_user_tower
from offline.cli import cli
from offline.interactions import log as interaction_log
from offline.users import embed
from offline.users.embed import run
from offline.users.moments import load_tower
from offline.users.settings import EmbedUsers
from tests.conftest import TowerOf
from tests.offline.interactions.random_listens import NOON, write_forgotten, write_log
from tests.platform.taste import GLOBAL, write_release

MINUTE = 60_000
HISTORY, FEEDBACK = 8, 3


@pytest.fixture(scope="module")
def tower(tower_of: TowerOf) -> Path:
    return tower_of([f"t{number}" for number in range(8)], history=6)


def listens_of(users: int, count: int, *, seed: int = 0) -> list[Listen]:
    """Random listens of all kinds; two of their ten tracks are unknown to the tower."""
    rng = np.random.default_rng(seed)
    return [
        Listen(
            event_id=str(number),
            user_id=f"u{rng.integers(users)}",
            track_id=f"t{rng.integers(10)}",
            kind=KINDS[rng.choice(len(KINDS), p=[0.5, 0.1, 0.1, 0.05, 0.1, 0.03, 0.04, 0.04, 0.04])],
            at=NOON + MINUTE * int(rng.integers(60)),
            played_ms=int(rng.integers(200_000)),
            duration_ms=200_000,
            excluded=bool(rng.random() < 0.05),
        )
        for number in range(count)
    ]


def write_moments(path: Path, moments: list[tuple[str, int]]) -> str:
    pl.DataFrame(moments, orient="row", schema={"user_id": pl.String, "at": pl.Int64}).write_parquet(path)
    return str(path)


def expected(listens: list[Listen], moments: list[tuple[str, int]], tower: Path) -> list[tuple]:
    """user_id, at, source, listens and embedding, one moment at a time."""
    rows = []
    for user, at in sorted(moments):
        newest = NewestEvents(history=HISTORY, feedback=FEEDBACK)
        for listen in listens:
            if listen.user_id == user and listen.at <= at:
                newest.add(listen)
        one = refresh(load_user_tower(tower), [newest.stored()])
        rows.append((user, at, "history" if one.of_history[0] else "global", int(one.listens[0]), one.embeddings[0]))
    return rows


def assert_same(path: Path, rows: list[tuple]) -> None:
    found = pl.read_parquet(path)
    assert found.select("user_id", "at", "source", "listens").rows() == [row[:4] for row in rows]
    np.testing.assert_allclose(found["embedding"].to_numpy(), np.array([row[4] for row in rows]), atol=1e-6)


def test_each_moment_has_the_embedding_of_the_events_up_to_then(tmp_path: Path, tower: Path, monkeypatch):
    listens = listens_of(12, 900)
    rng = np.random.default_rng(1)
    moments = [(f"u{rng.integers(14)}", NOON + MINUTE * int(rng.integers(-2, 62))) for _ in range(150)]
    (tmp_path / "log").mkdir()
    for number, part in enumerate(np.array_split(np.array(listens, dtype=object), 3)):
        write_log(tmp_path / "log" / f"{number}.parquet", part)
    settings = EmbedUsers(
        log=str(tmp_path / "log"),
        moments=write_moments(tmp_path / "moments.parquet", moments),
        out=str(tmp_path / "out" / "users.parquet"),
        release=str(tower),
        history=HISTORY,
        feedback=FEEDBACK,
    )
    outcome = run(settings)
    rows = expected(listens, moments, tower)
    assert_same(outcome.out, rows)
    assert len({row[3] for row in rows}) > 3
    assert 0 < outcome.of_history < len(moments) == outcome.moments
    whole = outcome.out.read_bytes()
    monkeypatch.setattr(interaction_log, "_PART_ROWS", 70)
    monkeypatch.setattr(embed, "_AT_ONCE", 7)
    assert_same(run(settings).out, rows)
    assert (
        pl.read_parquet(whole)
        .select(pl.exclude("embedding"))
        .equals(pl.read_parquet(outcome.out).select(pl.exclude("embedding")))
    )
    assert [path.name for path in outcome.out.parent.iterdir()] == ["users.parquet"]


def stop(settings: EmbedUsers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is stopped when all of its shards are done."""
    with monkeypatch.context() as stopped:
        stopped.setattr(embed, "_write", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(settings)


def test_a_run_that_was_stopped_goes_on_with_what_it_had_done_unless_its_moments_are_others(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
):
    listens = listens_of(6, 200)
    moments = [(f"u{number % 6}", NOON + MINUTE * 10 * (number // 6)) for number in range(18)]
    settings = EmbedUsers(
        log=write_log(tmp_path / "log.parquet", listens),
        moments=write_moments(tmp_path / "moments.parquet", moments),
        out=str(tmp_path / "users.parquet"),
        release=str(tower),
        history=HISTORY,
        feedback=FEEDBACK,
        processes=1,
    )
    monkeypatch.setattr(embed, "_AT_ONCE", 6)
    stop(settings, monkeypatch)
    first, second, third = sorted((tmp_path / "users.parquet.partial").glob("done-*/*/embedded.arrow"))
    first.write_bytes(third.read_bytes())
    shutil.rmtree(second.parent)
    rows = expected(listens, moments, tower)
    assert_same(run(settings).out, [*rows[12:], *rows[6:]])  # the first was taken as it was, the second done anew
    assert_same(run(settings).out, rows)
    assert {path.name for path in tmp_path.iterdir()} == {"log.parquet", "moments.parquet", "users.parquet"}
    stop(settings, monkeypatch)
    later = [(user, at + MINUTE) for user, at in moments]
    write_moments(tmp_path / "moments.parquet", later)
    assert_same(run(settings).out, expected(listens, later, tower))


def test_the_future_is_not_seen_and_what_is_forgotten_is_gone(tmp_path: Path, tower: Path):
    def listen(track: str, minute: int, kind: str = "like") -> Listen:
        return Listen(event_id="e", user_id="ann", track_id=track, kind=kind, at=NOON + minute * MINUTE)  # type: ignore[arg-type]

    log = write_log(tmp_path / "log.parquet", [listen("t1", 1), listen("t2", 2), listen("t1", 3, "unlike")])
    moments = write_moments(tmp_path / "moments.parquet", [("ann", NOON + minute * MINUTE) for minute in range(5)])
    settings = {"log": log, "moments": moments, "out": str(tmp_path / "users.parquet"), "release": str(tower)}
    run(EmbedUsers(**settings))
    found = pl.read_parquet(tmp_path / "users.parquet")
    assert found["listens"].to_list() == [0, 1, 2, 1, 1]
    assert found["source"].to_list() == ["global", "history", "history", "history", "history"]
    embeddings = found["embedding"].to_numpy()
    np.testing.assert_allclose(embeddings[0], GLOBAL, atol=1e-6)
    assert (embeddings[2] @ embeddings[3]) < 0.999
    forgotten = write_forgotten(tmp_path / "forgotten.parquet", ("user", "ann", NOON + MINUTE))
    run(EmbedUsers(forgotten=forgotten, **settings))
    assert pl.read_parquet(tmp_path / "users.parquet")["listens"].to_list() == [0, 0, 1, 1, 1]


def test_a_play_of_unknown_length_counts_as_heard(tmp_path: Path, tower: Path):
    log = tmp_path / "log.parquet"
    pl.DataFrame({"user_id": ["ann"], "track_id": ["t1"], "at": [NOON]}).write_parquet(log)
    moments = pl.DataFrame({"user_id": ["ann"], "at": [datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)]})
    moments.write_parquet(tmp_path / "moments.parquet")
    arguments = [str(log), str(tmp_path / "moments.parquet"), str(tmp_path / "users.parquet"), "--release", str(tower)]
    shown = CliRunner().invoke(cli, ["embed-users", *arguments])
    assert (
        shown.output == f"{tmp_path}/users.parquet: 1 embeddings, 0 of them the global one: no listen counted by then\n"
    )
    found = pl.read_parquet(tmp_path / "users.parquet")
    assert found.schema["embedding"] == pl.Array(pl.Float32, 40)
    assert found.select("at", "source", "listens").rows() == [(1_798_761_600_000, "history", 1)]


def test_a_release_gives_its_tower(tmp_path: Path, tower: Path):
    release = write_release(tmp_path / "release", tower)
    assert load_tower(str(release)).manifest == load_tower(str(tower)).manifest
    with pytest.raises(ReleaseError, match="has no user tower"):
        load_tower(str(write_release(tmp_path / "plain", None)))
    assert load_tower(None).manifest == load_release().user_tower().manifest
    with pytest.raises(ReleaseError):
        load_tower(str(tmp_path / "nowhere"))
    with pytest.raises(ReleaseError, match="nowhere://tower cannot be opened"):
        load_tower("nowhere://tower")


@pytest.mark.parametrize(
    ("moments", "fields", "says"),
    [
        ([("a", NOON)], {"history": 3}, "history is 3, and the tower reads the newest 6 listens; set it to what"),
        ([], {}, "moments.parquet has no rows; name users and moments"),
        ([("", NOON)], {}, "column user_id has ids that are missing, empty or over 256 bytes"),
        ([("a", NOON // 1000)], {}, "look like seconds; at is in milliseconds"),
        ([("a", None)], {}, "column at is empty in 1 rows"),
        ([("a", NOON)], {"log": "moments.parquet"}, "has no column track_id, only user_id, at; it needs"),
        ([("a", NOON)], {"moments": "nowhere.parquet"}, "nowhere.parquet has no Parquet file"),
        ([("a", NOON)], {"out": "log.parquet/users.parquet"}, "cannot be written"),
    ],
)
def test_what_cannot_be_used_is_refused_and_what_was_there_stays(tmp_path: Path, tower: Path, moments, fields, says):
    write_log(tmp_path / "log.parquet", listens_of(2, 10))
    write_moments(tmp_path / "moments.parquet", moments)
    (tmp_path / "users.parquet").write_bytes(b"of another run")
    files = {"log": "log.parquet", "moments": "moments.parquet", "out": "users.parquet", "release": str(tower)} | fields
    files = {name: str(tmp_path / value) if isinstance(value, str) else value for name, value in files.items()}
    with pytest.raises(SettingsError, match=says) as refused:
        run(EmbedUsers(**files))
    assert "\n" not in str(refused.value)
    assert (tmp_path / "users.parquet").read_bytes() == b"of another run"
    assert {path.name for path in tmp_path.iterdir()} == {"log.parquet", "moments.parquet", "users.parquet"}
