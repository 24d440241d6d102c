import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

from models.errors import ReleaseError
from models.features import taggram_features
from models.genre import NEIGHBOURS, GenreHead, outvoted
from models.label_rule import LabelRule
from models.musicnn import TAGS
from models.release import load_release
from models.tag_kinds import TagKinds


def head(**changes) -> GenreHead:
    """Three genres at the corners of a triangle, in two of 50 columns."""
    corners = np.repeat([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]], NEIGHBOURS, axis=0)
    projection = np.zeros((50, 2))
    projection[0, 0] = projection[1, 1] = 1.0
    values = {
        "classes": ("folk", "metal", "ska"),
        "inputs": ("msd.taggram.mean",),
        "exponents": np.ones(50),
        "projection": projection,
        "offset": np.zeros(2),
        "vectors": corners,
        "labels": np.repeat([0, 1, 2], NEIGHBOURS),
        "weights": np.repeat(np.eye(3), NEIGHBOURS, axis=0) / NEIGHBOURS,
        "biases": np.zeros(3),
        "gamma": 0.5,
        "temperature": 0.1,
        "min_confidence": 0.5,
        "max_distance": 3.0,
    }
    return GenreHead(**values | changes)


def at(*points: tuple[float, float]) -> np.ndarray:
    features = np.zeros((len(points), 50))
    features[:, :2] = points
    return features


def windows_at(*points: tuple[float, float]) -> list[dict[str, np.ndarray]]:
    return [{"msd.taggram.mean": row} for row in at(*points)]


def kinds() -> TagKinds:
    """`rock` and `metal` name metal, `ambient` names something that no genre goes with."""
    of_tag = np.full(50, -1)
    of_tag[[TAGS["msd"].index("rock"), TAGS["msd"].index("metal")]] = 0
    of_tag[TAGS["msd"].index("ambient")] = 1
    fits = np.array([[False, True, False], [False, False, False]])
    return TagKinds(network="msd", names=("loud", "electronic"), of_tag=of_tag, fits=fits)


def tagged(**tags: float) -> np.ndarray:
    mean = np.zeros(50)
    for tag, probability in tags.items():
        mean[TAGS["msd"].index(tag)] = probability
    return mean


def test_a_point_on_a_corner_is_of_its_genre_and_best_guesses_come_first():
    decision = head().decide(windows_at((4.0, 0.0)))
    assert decision.genre == "metal"
    assert decision.abstained_because is None
    assert decision.distance == 0.0
    assert decision.genres[0][0] == "metal"
    assert decision.confidence == decision.genres[0][1] == max(p for _, p in decision.genres)
    assert sum(p for _, p in decision.genres) == pytest.approx(1.0, abs=1e-12)


def test_decision_values_and_distances_are_the_formula():
    decisions, distances, _ = head().scores(at((1.0, 2.0)))
    squares = np.array([1 + 4, 9 + 4, 1 + 4])
    np.testing.assert_allclose(decisions[0], np.exp(-0.5 * squares), rtol=1e-12)
    np.testing.assert_allclose(distances, [np.sqrt(5.0)], rtol=1e-12)


def test_exponents_keep_the_sign():
    raised = head(exponents=np.full(50, 1 / 3), projection=np.eye(50)[:, :2])
    decisions = raised.scores(at((-8.0, 27.0))).decisions
    np.testing.assert_allclose(decisions, head().scores(at((-2.0, 3.0)))[0], rtol=1e-12)


def test_windows_are_averaged_before_the_calibration():
    places = (4.0, 0.0), (4.0, 0.5), (0.0, 4.0)
    decisions, distances, _ = head().scores(at(*places))
    decision = head().decide(windows_at(*places))
    assert decision.genre == "metal"
    assert dict(decision.genres)["ska"] == pytest.approx(head().probabilities(decisions.mean(axis=0))[2], abs=1e-12)
    mean_of_probabilities = head().probabilities(decisions).mean(axis=0)[2]
    assert abs(dict(decision.genres)["ska"] - mean_of_probabilities) > 0.1
    assert decision.distance == pytest.approx(distances.mean())


def test_a_point_between_the_genres_is_too_unlikely():
    decision = head().decide(windows_at((2.0, 1.0)))
    assert decision.genre is None
    assert decision.abstained_because == "confidence"
    assert decision.confidence < 0.5
    assert len(decision.genres) == 3


def test_a_point_far_from_all_is_too_far_even_where_the_guess_is_sure():
    decision = head(gamma=0.01, temperature=0.001).decide(windows_at((9.0, -4.0)))
    assert decision.confidence > 0.99
    assert decision.genre is None
    assert decision.abstained_because == "distance"
    assert decision.genres[0][0] == "metal"


def test_biases_are_added_to_the_decision_values():
    decisions, _, _ = head(biases=np.array([0.5, -1.0, 0.0])).scores(at((1.0, 2.0)))
    np.testing.assert_allclose(decisions[0], np.exp([-2.5, -6.5, -2.5]) + np.array([0.5, -1, 0]), rtol=1e-12)


def test_a_tag_of_another_kind_of_music_contradicts_the_guess_and_the_kinds_stand_in_its_place():
    sure = head(kinds=kinds(), max_distance=1e9, projection=np.zeros((50, 2)), offset=np.array([4.0, 0.0]))
    plain = sure.decide([{"msd.taggram.mean": tagged(rock=0.4, ambient=0.3)}])
    assert (plain.genre, plain.guess, plain.abstained_because) == ("metal", "metal", None)
    ambient = sure.decide([{"msd.taggram.mean": tagged(rock=0.3, metal=0.2, ambient=0.4)}])
    assert (ambient.genre, ambient.guess, ambient.abstained_because) == (None, "metal", "tags")
    assert ambient.genres == (("electronic", 0.4), ("loud", 0.3))
    assert ambient.confidence == 0.4
    says_ska = dataclasses.replace(sure, offset=np.array([0.0, 4.0]))
    assert says_ska.decide([{"msd.taggram.mean": tagged(rock=0.4)}]).abstained_because == "tags"
    assert says_ska.decide([{"msd.taggram.mean": tagged(rock=0.4, sad=0.5)}]).genre == "ska"  # `sad` names no kind


def test_the_tags_of_a_track_are_their_means_over_its_windows():
    sure = head(kinds=kinds(), max_distance=1e9, projection=np.zeros((50, 2)), offset=np.array([4.0, 0.0]))
    windows = [{"msd.taggram.mean": tagged(ambient=0.5, rock=0.1)}, {"msd.taggram.mean": tagged(ambient=0.1, rock=0.6)}]
    assert sure.decide(windows).genre == "metal"
    assert sure.decide(windows[:1]).abstained_because == "tags"


def test_a_guess_that_the_nearest_training_tracks_outvote_is_not_told():
    """Metal is the guess at its corner, where four training tracks of ska and one of metal lie."""
    labels = np.repeat([0, 1, 2], NEIGHBOURS)
    labels[NEIGHBOURS : 2 * NEIGHBOURS] = [2, 2, 1, 2, 2]
    outvoted_there = head(labels=labels)
    assert outvoted_there.scores(at((4.0, 0.0))).votes.tolist() == [[0, 1, 4]]
    decision = outvoted_there.decide(windows_at((4.0, 0.0)))
    assert (decision.genre, decision.guess, decision.abstained_because) == (None, "metal", "neighbours")
    assert decision.genres[0][0] == "metal"
    with_more_windows = outvoted_there.decide(windows_at((4.0, 0.0), (3.9, 0.0), (0.0, 4.0)))
    assert with_more_windows.abstained_because == "neighbours"  # 2 of 15 votes


def test_as_many_votes_as_another_genre_has_are_enough():
    votes = np.array([[2, 2, 1], [1, 2, 2], [0, 5, 0], [5, 0, 0]])
    assert outvoted(votes, np.array([0, 0, 1, 1])).tolist() == [False, True, False, True]


def test_a_track_without_an_embedding_is_decided_by_the_plain_head_alone():
    plain = head(kinds=kinds())
    full = head(inputs=("msd.taggram.mean", "embedding"), exponents=np.ones(52), plain=plain,
                projection=np.eye(52)[:, 50:], max_distance=100.0)  # fmt: skip
    for point in ((4.0, 0.0), (0.0, 4.0), (2.0, 1.0)):
        windows = windows_at(point)
        assert full.decide(windows) == plain.decide(windows)
        whole = [window | {"embedding": np.array([0.0, 4.0])} for window in windows]
        assert full.decide(whole).genre == "ska"
        assert full.decide([*whole, *windows]) == plain.decide([*windows, *windows])


def test_a_head_with_kinds_and_a_plain_head_survives_its_file(tmp_path: Path):
    full = head(inputs=("msd.taggram.mean", "embedding"), exponents=np.ones(52), projection=np.zeros((52, 2)),
                kinds=kinds(), plain=head(kinds=kinds()))  # fmt: skip
    path = tmp_path / "genre.npz"
    path.write_bytes(full.to_bytes())
    loaded = GenreHead.load(path)
    assert loaded.to_bytes() == full.to_bytes()
    assert loaded.plain is not None
    windows = [{"msd.taggram.mean": tagged(ambient=0.5), "embedding": np.ones(2)}]
    assert loaded.decide(windows) == full.decide(windows)
    assert loaded.decide(windows).abstained_because == "tags"


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "other"},
        {"of_tag": np.full(49, -1)},
        {"of_tag": np.full(50, 2)},
        {"of_tag": np.zeros(50, int)},  # the second kind has no tag
        {"of_tag": np.zeros(50)},
        {"fits": np.ones((3, 3), bool)},
        {"fits": np.ones((2, 3))},
        {"fits": np.ones(2, bool)},
    ],
)
def test_kinds_that_do_not_fit_together_are_refused(changes: dict):
    with pytest.raises(ReleaseError, match="kinds of music"):
        dataclasses.replace(kinds(), **changes)


def test_the_thresholds_themselves_are_answered():
    windows = windows_at((4.0, 1.0))
    plain = head().decide(windows)
    kept = head(min_confidence=plain.confidence, max_distance=plain.distance).decide(windows)
    assert kept.abstained_because is None


def test_a_head_survives_its_file_and_equal_heads_are_equal_bytes(tmp_path: Path):
    path = tmp_path / "genre.npz"
    path.write_bytes(head().to_bytes())
    loaded = GenreHead.load(path)
    assert loaded.to_bytes() == head().to_bytes()
    assert loaded.decide(windows_at((1.0, 0.5))) == head().decide(windows_at((1.0, 0.5)))
    assert (loaded.classes, loaded.inputs) == (head().classes, head().inputs)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vectors": np.zeros((15, 3))}, "vectors"),
        ({"weights": np.zeros((15, 4))}, "weights"),
        ({"offset": np.array([0.0, np.nan])}, "offset"),
        ({"projection": np.zeros((50, 2), np.float32)}, "projection"),
        ({"gamma": 0.0}, "gamma"),
        ({"temperature": np.nan}, "temperature"),
        ({"max_distance": -1.0}, "max_distance"),
        ({"min_confidence": 1.5}, "min_confidence"),
        ({"vectors": np.zeros((4, 2)), "weights": np.zeros((4, 3)), "labels": np.arange(4) % 3}, "at least 5"),
        ({"biases": np.zeros(2)}, "biases"),
        ({"labels": np.full(15, 3)}, "labels"),
        ({"labels": np.zeros(15)}, "labels"),
        ({"labels": np.zeros(14, int)}, "labels"),
        ({"kinds": dataclasses.replace(kinds(), fits=np.ones((2, 4), bool))}, "same 3 classes"),
        ({"plain": head(classes=("a", "b", "c"))}, "same 3 classes"),
        ({"inputs": ("msd.taggram.mean", "msd.taggram.spread")}, "50 columns"),
        ({"inputs": ()}, "0 inputs"),
        ({"inputs": ("msd.taggram.mean", "embedding")}, "50 columns"),
        ({"widths": (49,)}, "50 columns"),
        ({"widths": (50, 0)}, "50 columns"),
        ({"inputs": ("a.embedding", "b.embedding"), "widths": (50, 0)}, "50 columns"),
        ({"inputs": ("a.embedding", "b.embedding")}, "does not say how wide each"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict, said: str):
    with pytest.raises(ReleaseError, match=said):
        head(**changes)


def arrays_of(one: GenreHead) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(one.to_bytes())) as file:
        return dict(file)


def test_a_head_says_how_wide_each_of_its_inputs_is_and_one_that_hears_tags_alone_need_not(tmp_path: Path):
    path = tmp_path / "genre.npz"
    assert "widths" not in arrays_of(head())
    assert head().columns == {"msd.taggram.mean": 50}
    two = head(inputs=("a.embedding", "b.embedding"), widths=(20, 30))
    path.write_bytes(two.to_bytes())
    assert GenreHead.load(path).columns == {"a.embedding": 20, "b.embedding": 30}
    two.check_widths({"a.embedding": 20, "b.embedding": 30})
    with pytest.raises(ReleaseError, match=r"takes 20 columns of a\.embedding, the release gives 30"):
        two.check_widths({"a.embedding": 30, "b.embedding": 20})


def test_many_tracks_are_decided_as_each_of_them_alone():
    """Tracks of one to three windows, on and far from the corners of the genres, with tags that contradict some."""
    rng, reasons = np.random.default_rng(5), set()
    for made in (head(kinds=kinds()), head(several=two_levels()), head(several=two_levels(intercepts=np.full(3, 2.0)))):
        counts = rng.integers(1, 4, size=60)
        tracks = [windows_at(*rng.normal(2.0, 1.5, size=(count, 2)).tolist()) for count in counts]
        every = [window for windows in tracks for window in windows]
        tags = np.stack([window["msd.taggram.mean"] for window in every])
        together = made.decide_all(made.stack(every), tags, windows=counts)
        alone = [made.decide(windows) for windows in tracks]
        assert [(one.genre, one.abstained_because) for one in together] == [
            (one.genre, one.abstained_because) for one in alone
        ]
        for one, other in zip(together, alone, strict=True):
            assert [name for name, _ in one.genres] == [name for name, _ in other.genres]
            np.testing.assert_allclose([p for _, p in one.genres], [p for _, p in other.genres], atol=1e-12)
        reasons |= {one.abstained_because for one in together}
    assert reasons == {None, "tags", "distance", "neighbours", "confidence"}


def test_files_that_are_no_head_are_refused(tmp_path: Path):
    path = tmp_path / "genre.npz"
    with pytest.raises(ReleaseError, match="not a genre head"):
        GenreHead.load(path)
    path.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(ReleaseError, match="not a genre head"):
        GenreHead.load(path)
    path.write_bytes(head().to_bytes()[:-200])
    with pytest.raises(ReleaseError, match="not a genre head"):
        GenreHead.load(path)
    np.savez(path, classes=np.array(["folk"]))
    with pytest.raises(ReleaseError, match="not a genre head"):
        GenreHead.load(path)
    fields = arrays_of(head())
    np.savez(path, **fields | {"gamma": np.array([0.5, 0.5])})
    with pytest.raises(ReleaseError, match="gamma"):
        GenreHead.load(path)


def test_a_pickled_array_is_refused_and_not_run(tmp_path: Path):
    path = tmp_path / "genre.npz"
    fields = arrays_of(head())
    np.savez(path, **fields | {"classes": np.array([Trap()], dtype=object)})
    with pytest.raises(ReleaseError, match="not a genre head"):
        GenreHead.load(path)
    assert not Trap.sprung


class Trap:
    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


@pytest.mark.parametrize("features", [np.zeros((1, 49)), np.zeros((0, 50)), np.zeros(50)])
def test_features_of_another_shape_are_refused(features: np.ndarray):
    with pytest.raises(ReleaseError, match="takes"):
        head().scores(features)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value: float):
    with pytest.raises(ReleaseError, match="finite"):
        head().decide(windows_at((value, 0.0)))


def test_stack_takes_the_inputs_in_the_order_of_the_head():
    both = head(
        inputs=("msd.taggram.spread", "msd.taggram.mean"), exponents=np.ones(100), projection=np.zeros((100, 2))
    )
    window = taggram_features("msd", np.array([[0.0] * 50, [1.0] * 50, [1.0] * 50, [1.0] * 50], np.float32))
    stacked = both.stack([window, window])
    assert stacked.shape == (2, 100)
    np.testing.assert_allclose(stacked[0], [np.sqrt(0.1875)] * 50 + [0.75] * 50, rtol=1e-6)


def test_an_input_that_the_windows_do_not_give_is_named():
    window = taggram_features("mtt", np.zeros((2, 50), np.float32))
    with pytest.raises(ReleaseError, match=r"msd\.taggram\.mean"):
        head().stack([window])


def test_an_embedding_is_an_input_like_any_other():
    hears_both = head(inputs=("msd.taggram.mean", "embedding"), exponents=np.ones(90), projection=np.zeros((90, 2)))
    window = taggram_features("msd", np.zeros((2, 50), np.float32)) | {"embedding": np.ones(40, np.float32)}
    assert hears_both.stack([window]).sum() == 40.0


def two_levels(**changes) -> LabelRule:
    """metal is within folk here; both are answered from 0.5 on, ska from 0.9."""
    values = {
        "parents": np.array([-1, 0, -1]),
        "slopes": np.full(3, 10.0),
        "intercepts": np.full(3, -3.0),
        "thresholds": np.array([0.5, 0.5, 0.9]),
    }
    return LabelRule(**values | changes)


def test_a_head_of_several_labels_answers_those_that_reach_their_threshold_the_finest_first():
    """At (2, 0), half way between the corners of folk and metal, both have a decision value of exp(-2)."""
    wide = head(several=two_levels(intercepts=np.array([3.0, 1.0, -3.0])))
    decision = wide.decide(windows_at((2.0, 0.0)))
    folk, metal = (1 / (1 + np.exp(-(10.0 * np.exp(-2.0) + shift))) for shift in (3.0, 1.0))
    assert decision.genre == decision.guess == "metal"
    assert dict(decision.genres) == pytest.approx({"metal": metal, "folk": folk})
    assert folk > metal
    assert [name for name, _ in decision.genres] == ["metal", "folk"]
    assert decision.confidence == pytest.approx(metal)


def test_a_head_of_several_labels_abstains_where_none_reaches_its_threshold_and_where_all_is_far():
    unsure = head(several=two_levels()).decide(windows_at((2.0, 1.0)))
    assert (unsure.genre, unsure.abstained_because, unsure.guess) == (None, "confidence", "folk")
    assert unsure.genres[0][0] == "folk"
    assert len(unsure.genres) == 3
    sure = two_levels(intercepts=np.full(3, 9.0))
    assert head(several=sure).decide(windows_at((9.0, 9.0))).abstained_because == "distance"


def test_labels_of_another_number_than_the_classes_are_refused(tmp_path: Path):
    rule = LabelRule(parents=np.array([-1, 0]), slopes=np.ones(2), intercepts=np.zeros(2), thresholds=np.ones(2))
    with pytest.raises(ReleaseError, match="do not know the same 3 classes"):
        head(several=rule)
    whole = head(several=two_levels())
    (tmp_path / "genre.npz").write_bytes(whole.to_bytes())
    again = GenreHead.load(tmp_path / "genre.npz")
    assert again.decide(windows_at((2.0, 0.0))) == whole.decide(windows_at((2.0, 0.0)))


def test_in_float32_the_shipped_head_says_the_same_to_a_ten_thousandth():
    shipped = load_release().genre_head()
    features = np.random.default_rng(3).random((200, 50)) ** 3
    exact, quick = shipped.scores(features), shipped.scores(features.astype(np.float32))
    assert quick.decisions.dtype == quick.distances.dtype == np.float32
    np.testing.assert_allclose(quick.decisions, exact.decisions, atol=1e-4)
    np.testing.assert_allclose(quick.distances, exact.distances, atol=1e-3)
    assert (quick.votes == exact.votes).all(axis=1).mean() > 0.99


def test_a_head_tells_the_shares_of_its_training_tracks_unless_they_had_several_labels():
    assert head(labels=np.repeat([0, 1], [9, 6])).shares() == {"folk": 0.6, "metal": 0.4, "ska": 0.0}
    assert head(several=two_levels()).shares() == {}
