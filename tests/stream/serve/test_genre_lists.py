from hypothesis import given
from hypothesis import strategies as st

from stream.serve.genre_lists import GenreLists

names = st.text(min_size=1, max_size=3)


@given(st.lists(st.tuples(st.sampled_from(["jazz", "rock"]), names, st.booleans()), max_size=80), names)
def test_pages_hold_the_tracks_of_a_genre_in_the_order_of_their_bytes(steps, after: str) -> None:
    lists, held = GenreLists(), {"jazz": set(), "rock": set()}
    for genre, track_id, look in steps:
        if track_id in held[genre]:
            lists.remove(genre, track_id)
            held[genre].remove(track_id)
        else:
            lists.add(genre, track_id)
            held[genre].add(track_id)
        if look:
            assert lists.counts() == {genre: len(ids) for genre, ids in sorted(held.items()) if ids}
    for genre, ids in held.items():
        wanted = sorted(ids, key=lambda track_id: track_id.encode("utf-8", "surrogatepass"))
        assert lists.page(genre, after=None, limit=200) == wanted
        later = [track_id for track_id in wanted if track_id > after]
        assert lists.page(genre, after=after, limit=2) == later[:2]
    assert lists.page("polka", after=None, limit=9) == []
