import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import SettingsError
from offline.cli import cli
from offline.features.held_out import HoldOut, Part, hold_out, read_held_out, run
from offline.features.store import StoredTrack
from tests.offline.audio_encoder import tones


def track(number: int, artist: str | None, content: str) -> StoredTrack:
    return StoredTrack(
        track_id=f"t{number}", artist_id=artist, genre=None, content=content, duration_s=30.0, starts_ms=(0,),
        shard="000000", row=number, frames=(0, 1), patches=(0, 0),
    )  # fmt: skip


@given(
    st.lists(st.tuples(st.sampled_from([None, *"abcdefghij"]), st.integers(0, 30)), min_size=1, max_size=60),
    st.floats(0.01, 0.49),
    st.integers(0, 9),
)
@settings(max_examples=100)
def test_no_artist_and_no_content_is_in_two_parts_and_no_part_is_larger_than_asked(rows, share, seed):
    tracks = [track(number, artist, str(content)) for number, (artist, content) in enumerate(rows)]
    parts = hold_out(tracks, share=share, seed=seed)
    for of_track in (lambda one: one.artist_id, lambda one: one.content):
        parts_of: dict[str, set[int]] = {}
        for one, part in zip(tracks, parts.tolist(), strict=True):
            if of_track(one) is not None:
                parts_of.setdefault(of_track(one), set()).add(part)
        assert all(len(found) == 1 for found in parts_of.values())
    for part in (Part.VALID, Part.TEST):
        assert (parts == part).sum() <= max(1, round(share * len(tracks)))


def test_tracks_are_held_out_as_asked_and_others_by_another_seed():
    tracks = [track(number, f"a{number // 2}", f"c{number}") for number in range(100)]
    first, same, other = (hold_out(tracks, share=0.2, seed=seed) for seed in (0, 0, 1))
    assert [int((first == part).sum()) for part in Part] == [60, 20, 20]
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_a_chain_of_artists_and_equal_files_stays_together():
    tracks = [track(0, "a", "x"), track(1, "b", "x"), track(2, "b", "y"), track(3, None, "y"), track(4, None, "z")]
    parts = hold_out(tracks, share=0.2, seed=3)
    assert len(set(parts[:4].tolist())) == 1
    assert parts[4] != parts[0]


def test_the_command_writes_whole_artists_of_a_store_and_a_training_reads_them(tones_store: Path, tmp_path):
    out = tmp_path / "list.csv"
    shown = CliRunner().invoke(cli, ["hold-out", str(tones_store), str(out), "--share", "0.2", "--seed", "3"])
    assert shown.output == f"{out}: 18 tracks for the report, 18 to choose steps; 54 are left to learn from\n"
    held = read_held_out(str(out))
    parts = held.parts(pl.Series(["elsewhere", *tones.IDS]))
    assert parts[0] == Part.TRAIN
    assert [int((parts[1:] == part).sum()) for part in Part] == [54, 18, 18]
    by_artist = parts[1:].reshape(-1, 3)  # an artist has three tracks
    assert (by_artist == by_artist[:, :1]).all()
    assert held.sha256 == hashlib.sha256(out.read_bytes()).hexdigest()[:12]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("track_id,part\nt1,test\nt1,valid\n", "has a track twice"),
        ("track_id,part\nt1,train\n", "is no list of held-out tracks .* test or valid"),
        ("track,part\nt1,test\n", "is no list of held-out tracks"),
        ("", "is no list of held-out tracks"),
    ],
)
def test_a_file_that_is_no_list_is_refused_in_a_sentence(tmp_path, content, says):
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(SettingsError, match=says) as refused:
        read_held_out(str(tmp_path / "list.csv"))
    assert "\n" not in str(refused.value)


def test_a_share_that_no_artist_fits_into_is_refused_and_leaves_nothing(tones_store: Path, tmp_path):
    wanted = HoldOut(store=str(tones_store), out=str(tmp_path / "list.csv"), share=0.01)
    with pytest.raises(SettingsError, match=r"the 90 tracks of .* have too few artists: none is left for valid"):
        run(wanted)
    assert list(tmp_path.iterdir()) == []
