import dataclasses
from pathlib import Path

import numpy as np
import pytest

from models.errors import ReleaseError
from models.features import taggram_features
from models.genre import NEIGHBOURS, GenreHead


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
        "weights": np.repeat(np.eye(3), NEIGHBOURS, axis=0) / NEIGHBOURS,
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


def test_a_point_on_a_corner_is_of_its_genre_and_best_guesses_come_first():
    decision = head().decide(at((4.0, 0.0)))
    assert decision.genre == "metal"
    assert decision.abstained_because is None
    assert decision.distance == 0.0
    assert decision.genres[0][0] == "metal"
    assert decision.confidence == decision.genres[0][1] == max(p for _, p in decision.genres)
    assert sum(p for _, p in decision.genres) == pytest.approx(1.0, abs=1e-12)


def test_decision_values_and_distances_are_the_formula():
    decisions, distances = head().scores(at((1.0, 2.0)))
    squares = np.array([1 + 4, 9 + 4, 1 + 4])
    np.testing.assert_allclose(decisions[0], np.exp(-0.5 * squares), rtol=1e-12)
    np.testing.assert_allclose(distances, [np.sqrt(5.0)], rtol=1e-12)


def test_exponents_keep_the_sign():
    raised = head(exponents=np.full(50, 1 / 3), projection=np.eye(50)[:, :2])
    decisions, _ = raised.scores(at((-8.0, 27.0)))
    np.testing.assert_allclose(decisions, head().scores(at((-2.0, 3.0)))[0], rtol=1e-12)


def test_windows_are_averaged_before_the_calibration():
    windows = at((4.0, 0.0), (4.0, 0.5), (0.0, 4.0))
    decisions, distances = head().scores(windows)
    decision = head().decide(windows)
    assert decision.genre == "metal"
    assert dict(decision.genres)["ska"] == pytest.approx(head().probabilities(decisions.mean(axis=0))[2], abs=1e-12)
    mean_of_probabilities = head().probabilities(decisions).mean(axis=0)[2]
    assert abs(dict(decision.genres)["ska"] - mean_of_probabilities) > 0.1
    assert decision.distance == pytest.approx(distances.mean())


def test_a_point_between_the_genres_is_too_unlikely():
    decision = head().decide(at((2.0, 2.0)))
    assert decision.genre is None
    assert decision.abstained_because == "confidence"
    assert decision.confidence < 0.5
    assert len(decision.genres) == 3


def test_a_point_far_from_all_is_too_far_even_where_the_guess_is_sure():
    decision = head(gamma=0.01, temperature=0.001).decide(at((9.0, -4.0)))
    assert decision.confidence > 0.99
    assert decision.genre is None
    assert decision.abstained_because == "distance"
    assert decision.genres[0][0] == "metal"


def test_the_thresholds_themselves_are_answered():
    features = at((4.0, 1.0))
    plain = head().decide(features)
    kept = head(min_confidence=plain.confidence, max_distance=plain.distance).decide(features)
    assert kept.abstained_because is None


def test_a_head_survives_its_file_and_equal_heads_are_equal_bytes(tmp_path: Path):
    path = tmp_path / "genre.npz"
    path.write_bytes(head().to_bytes())
    loaded = GenreHead.load(path)
    assert loaded.to_bytes() == head().to_bytes()
    assert loaded.decide(at((1.0, 0.5))) == head().decide(at((1.0, 0.5)))
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
        ({"vectors": np.zeros((4, 2)), "weights": np.zeros((4, 3))}, "at least 5"),
        ({"inputs": ("msd.taggram.mean", "msd.taggram.spread")}, "50 columns"),
        ({"inputs": ()}, "0 inputs"),
        ({"inputs": ("msd.taggram.mean", "embedding")}, "50 columns"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict, said: str):
    with pytest.raises(ReleaseError, match=said):
        head(**changes)


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
    fields = {field.name: np.asarray(getattr(head(), field.name)) for field in dataclasses.fields(GenreHead)}
    np.savez(path, **fields | {"gamma": np.array([0.5, 0.5])})
    with pytest.raises(ReleaseError, match="gamma"):
        GenreHead.load(path)


def test_a_pickled_array_is_refused_and_not_run(tmp_path: Path):
    path = tmp_path / "genre.npz"
    fields = {field.name: np.asarray(getattr(head(), field.name)) for field in dataclasses.fields(GenreHead)}
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
        head().decide(features)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value: float):
    with pytest.raises(ReleaseError, match="finite"):
        head().decide(at((value, 0.0)))


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
