"""The map of a release: where tracks stand, what stays when it is drawn anew, and when that is."""

import asyncio
import gzip
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from models.events import TrackTagged, encode_event
from stream.serve import taste_map
from stream.serve.taste import Taste
from stream.serve.taste_map import Projection, TasteMap, TasteMaps, drawn

RELEASE = "0123456789ab"
DIM = 6


def vectors_of(count: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Vectors of unit norm that differ along some axes more than along others."""
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)) * [5, 3, 1, 0.5, 0.2, 0.1]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def tag(taste: Taste, tracks: dict[str, NDArray[np.float32] | None], *, genre: str | None = "jazz") -> None:
    records = [
        SimpleNamespace(
            key=f"{RELEASE}:{track_id}".encode(),
            value=encode_event(
                TrackTagged(
                    track_id=track_id, release=RELEASE, status="tagged", genre=genre, event_time=1, event_id="e",
                    tagged_at=1, embedding=None if vector is None else tuple(vector.tolist()),
                )
            ),
        )
        for track_id, vector in tracks.items()
    ]  # fmt: skip
    taste.take_tracks(cast(Any, records))


def take_back(taste: Taste, track_id: str) -> None:
    taste.take_tracks(cast(Any, [SimpleNamespace(key=f"{RELEASE}:{track_id}".encode(), value=None)]))


@pytest.fixture
def taste() -> Taste:
    return Taste(RELEASE, audience_days=30)


def read(body: bytes) -> tuple[dict[str, Any], NDArray[np.uint16]]:
    """The head and the points of a map, (3, points), as a client reads them."""
    size = int.from_bytes(body[:4], "little")
    assert size % 4 == 0
    return msgspec.json.decode(body[4 : 4 + size]), np.frombuffer(body[4 + size :], "<u2").reshape(3, -1)


def test_tracks_stand_where_their_principal_components_are() -> None:
    vectors = vectors_of(200)
    centred = vectors - vectors.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    projection = Projection.fitted(vectors)
    assert projection.variance == pytest.approx((sizes[:2] ** 2).sum() / (sizes**2).sum(), abs=1e-5)
    np.testing.assert_allclose(np.abs(projection.place(vectors)), np.abs(centred @ axes[:2].T), atol=1e-5)
    for axis in projection.axes:
        assert axis[np.abs(axis).argmax()] > 0


def test_a_map_is_no_mirror_of_the_one_before() -> None:
    before = Projection.fitted(vectors_of(200))
    turned = before._replace(axes=-before.axes)
    for seed in range(5):
        other = vectors_of(200, seed=seed)
        for one in (before, turned):
            assert ((Projection.fitted(other, before=one).axes * one.axes).sum(axis=1) > 0.5).all()


def test_a_map_tells_the_places_and_genres_of_its_points(taste: Taste) -> None:
    vectors = vectors_of(4)
    tag(taste, {"a": vectors[0], "b": vectors[1], "none": None})
    tag(taste, {"c": vectors[2]}, genre="blues")
    tag(taste, {"d": vectors[3]}, genre=None)
    made = drawn(taste)
    assert gzip.decompress(made.packed) == made.body
    head, (xs, ys, genres) = read(made.body)
    assert (head["release"], head["tracks"], head["points"], head["version"]) == (RELEASE, 4, 4, made.head.version)
    assert [head["genres"][code] if code < 0xFFFF else None for code in genres] == ["jazz", "jazz", "blues", None]
    left, bottom, right, top = head["box"]
    places = np.stack([left + xs / 65535 * (right - left), bottom + ys / 65535 * (top - bottom)], axis=1)
    np.testing.assert_allclose(places, Projection.fitted(vectors).place(vectors), atol=1e-4)
    assert made.track_ids == ["a", "b", "c", "d"]
    assert (made.point(made.rows[2]), made.point(99)) == (2, None)
    assert drawn(taste).head.version == made.head.version
    take_back(taste, "a")
    assert drawn(taste).track_ids == ["b", "c", "d"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_tracks_have_a_map_too(taste: Taste, count: int) -> None:
    tag(taste, {str(number): vector for number, vector in enumerate(vectors_of(count))})
    head, points = read(drawn(taste).body)
    assert (head["points"], points.shape) == (count, (3, count))
    assert np.isfinite(head["box"]).all()


def test_of_many_tracks_a_map_shows_a_sample_that_stays(taste: Taste, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taste_map, "MOST_POINTS", 100)
    tag(taste, {f"t{number}": vector for number, vector in enumerate(vectors_of(1000))})
    first = drawn(taste)
    tag(taste, {f"u{number}": vector for number, vector in enumerate(vectors_of(50, seed=1))})
    second = drawn(taste, before=first)
    assert (first.head.tracks, first.head.points, second.head.tracks) == (1000, 100, 1050)
    assert len({*first.track_ids} & {*second.track_ids}) > 85  # of 100 a twentieth is new, more or less


async def test_a_map_is_drawn_once_for_all_and_anew_when_tracks_have_come(taste: Taste, monkeypatch) -> None:
    now, drawings = [0.0], list[Any]()

    def counted(*args: Any, **kwargs: Any) -> TasteMap:
        drawings.append(args)
        return drawn(*args, **kwargs)

    monkeypatch.setattr(taste_map, "drawn", counted)
    maps = TasteMaps(monotonic=lambda: now[0])
    tag(taste, {f"t{number}": vector for number, vector in enumerate(vectors_of(40))})
    first, *others = await asyncio.gather(*(maps.newest(taste) for _ in range(9)))
    assert others == [first] * 8
    now[0] = 1000.0
    assert await maps.newest(taste) is first  # nothing has come
    tag(taste, {"one": vectors_of(1)[0]})
    now[0] = 1001.0
    second = await maps.newest(taste)
    assert second is not first
    assert await maps.kept(taste) is second
    tag(taste, {"another": vectors_of(1)[0]})
    now[0] += taste_map.REDRAW_SOON_S + 1
    assert await maps.newest(taste) is second  # little has
    tag(taste, {f"u{number}": vector for number, vector in enumerate(vectors_of(10))})
    assert await maps.kept(taste) is second
    assert (await maps.newest(taste)).head.points == 52
    assert len(drawings) == 3


async def test_who_asks_first_and_goes_away_stops_no_drawing(taste: Taste) -> None:
    tag(taste, {f"t{number}": vector for number, vector in enumerate(vectors_of(40))})
    maps = TasteMaps()
    first, second = (asyncio.ensure_future(maps.newest(taste)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).head.points == 40
