import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.audio_encoder.held_out import Part, hold_out
from offline.features.store import StoredTrack


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
@settings(max_examples=100, deadline=None)
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
