import numpy as np
import pytest
from msgspec.structs import replace
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from models.errors import SettingsError
from offline.genre.machine import choose, fit, folds, standard_error, track_weights
from offline.genre.settings import Block
from tests.offline.genre.taggrams import CONFIG, data


def least_squares(points, labels, artists, others, *, gamma: float, ridge: float) -> np.ndarray:
    """Decision values of others by scikit-learn's Ridge, which does not penalise its intercept, in the kernel's space.

    The rows of `space` have the kernel of the points as their scalar products.
    """
    values, vectors = np.linalg.eigh(rbf_kernel(points, gamma=gamma))
    values = np.maximum(values, 1e-13)
    space, of_others = vectors * np.sqrt(values), rbf_kernel(others, points, gamma=gamma) @ vectors / np.sqrt(values)
    weights = track_weights(labels, artists, power=0.5)
    return Ridge(alpha=ridge).fit(space, np.eye(3)[labels], sample_weight=weights).predict(of_others)


def test_the_folded_head_gives_what_scikit_learn_gives():
    features, labels, artists = data(tracks_each=5)
    config = replace(CONFIG, inputs=(Block(name="msd.taggram.mean", exponent=1 / 3, weight=1.0),))
    head = fit(config, features, labels, artists, gamma=0.25, ridge=0.3)
    steps = make_pipeline(StandardScaler(), PCA(min(128, *features.shape)))
    points = steps.fit_transform(np.cbrt(features))
    gamma = 0.25 / points.var(axis=0, ddof=1).sum()
    projected = steps.transform(np.cbrt(data(seed=1)[0]))
    decisions, distances, votes = head.scores(data(seed=1)[0])
    expected = least_squares(points, labels, artists, projected, gamma=gamma, ridge=0.3)
    np.testing.assert_allclose(decisions, expected, rtol=0, atol=1e-6)
    to_all = np.linalg.norm(projected[:, None] - points, axis=2)
    np.testing.assert_allclose(distances, np.sort(to_all, axis=1)[:, :5].mean(axis=1), rtol=0, atol=1e-9)
    nearest = labels[np.argsort(to_all, axis=1)[:, :5]]
    assert votes.tolist() == [np.bincount(row, minlength=3).tolist() for row in nearest]


def test_the_least_squares_machine_has_the_bias_that_balances_its_errors():
    """Without a penalty on the bias, the weighted errors sum to 0 (Suykens & Vandewalle, 1999)."""
    features, labels, artists = data(tracks_each=5)
    head = fit(CONFIG, features, labels, artists, gamma=0.25, ridge=0.3)
    errors = np.eye(3)[labels] - head.scores(features).decisions
    weights = track_weights(labels, artists, power=0.5)
    np.testing.assert_allclose(weights @ errors, 0.0, rtol=0, atol=1e-9)
    assert np.abs(weights @ (errors + head.biases)).max() > 1.0


def test_the_hinge_is_that_of_scikit_learn():
    features, labels, artists = data(tracks_each=5)
    head = fit(replace(CONFIG, machine="hinge"), features, labels, artists, gamma=0.25, ridge=0.5)
    steps = make_pipeline(StandardScaler(), PCA(50))
    points, projected = steps.fit_transform(features), steps.transform(data(seed=1)[0])
    gamma = 0.25 / points.var(axis=0, ddof=1).sum()
    decisions = head.scores(data(seed=1)[0]).decisions
    for genre in range(3):
        machine = SVC(gamma=gamma, C=2.0, tol=1e-6)
        machine.fit(points, labels == genre, sample_weight=track_weights(labels, artists, power=0.5))
        np.testing.assert_allclose(decisions[:, genre], machine.decision_function(projected), rtol=0, atol=0.01)
    assert (head.weights == 0).mean() > 0.1


def test_the_folded_hinge_decides_as_the_machine_of_scikit_learn_on_the_same_kernel():
    features, labels, artists = data(tracks_each=5)
    head = fit(replace(CONFIG, machine="hinge"), features, labels, artists, gamma=0.25, ridge=0.5)
    steps = make_pipeline(StandardScaler(), PCA(50))
    points, projected = steps.fit_transform(features), steps.transform(data(seed=1)[0])
    gamma = 0.25 / points.var(axis=0, ddof=1).sum()
    kernel, of_others = rbf_kernel(points, gamma=gamma), rbf_kernel(projected, points, gamma=gamma)
    for genre in range(3):
        machine = SVC(kernel="precomputed", C=2.0)
        machine.fit(kernel, labels == genre, sample_weight=track_weights(labels, artists, power=0.5))
        decided = machine.decision_function(of_others)
        np.testing.assert_allclose(head.scores(data(seed=1)[0]).decisions[:, genre], decided, rtol=0, atol=1e-6)


def test_a_track_that_lacks_a_block_counts_as_the_mean_of_the_others():
    features, labels, artists = data(tracks_each=5)
    config = replace(CONFIG, inputs=(*CONFIG.inputs, Block(name="embedding", width=3, weight=0.5)))
    vectors = np.random.default_rng(0).normal(labels[:, None], 1.0, (len(labels), 3))
    lacking = np.arange(len(labels)) % 4 == 0
    some = np.hstack([features, np.where(lacking[:, None], np.nan, vectors)])
    head = fit(config, some, labels, artists, gamma=0.25, ridge=0.3)
    mean, spread = vectors[~lacking].mean(axis=0), vectors[~lacking].std(axis=0)
    filled = np.where(lacking[:, None], 0.0, (vectors - mean) / spread) * 0.5
    points = np.hstack([StandardScaler().fit_transform(features), filled])
    points = PCA(53).fit_transform(points)
    np.testing.assert_allclose(np.abs(head.vectors), np.abs(points), rtol=0, atol=1e-8)
    assert np.isfinite(head.scores(np.hstack([features, vectors])).decisions).all()


@pytest.mark.parametrize(
    "blocks",
    [
        (Block(name="msd.max_pool", exponent=0.5), Block(name="embedding", weight=3.0, width=40)),
        (Block(name="words", weight=0.25, width=100), Block(name="msd.taggram.mean", exponent=1 / 3)),
        (Block(name="embedding", exponent=2.0, width=3), Block(name="mtt.taggram.spread", weight=2.0)),
    ],
    ids=["753 and 40", "100 and 50", "3 and 50"],
)
def test_each_block_has_its_own_exponent_and_weight_however_wide_the_others_are(blocks: tuple[Block, Block]):
    first, second = blocks
    rng = np.random.default_rng(2)
    labels, artists = np.repeat([0, 1, 2], 10), np.arange(30) // 2
    features, others = (rng.normal(labels[:, None], 2.0, (30, first.width + second.width)) for _ in range(2))
    head = fit(replace(CONFIG, inputs=blocks, max_components=20), features, labels, artists, gamma=0.25, ridge=0.3)
    assert head.inputs == (first.name, second.name)
    assert head.exponents.tolist() == [first.exponent] * first.width + [second.exponent] * second.width

    def raised(rows: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [
                np.sign(rows[:, : first.width]) * np.abs(rows[:, : first.width]) ** first.exponent,
                np.sign(rows[:, first.width :]) * np.abs(rows[:, first.width :]) ** second.exponent,
            ],
            axis=1,
        )

    def weighted(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([first.weight * rows[:, : first.width], second.weight * rows[:, first.width :]], axis=1)

    steps = make_pipeline(StandardScaler(), FunctionTransformer(weighted), PCA(20))
    points = steps.fit_transform(raised(features))
    gamma = 0.25 / points.var(axis=0, ddof=1).sum()
    expected = least_squares(points, labels, artists, steps.transform(raised(others)), gamma=gamma, ridge=0.3)
    np.testing.assert_allclose(head.scores(others).decisions, expected, rtol=0, atol=1e-6)


def test_features_of_other_columns_than_the_blocks_are_refused():
    features, labels, artists = data()
    both = replace(CONFIG, inputs=(*CONFIG.inputs, Block(name="embedding", width=40)))
    with pytest.raises(SettingsError, match=r"have 50 columns, .* msd\.taggram\.mean \(50\), embedding \(40\) 90"):
        fit(both, features, labels, artists, gamma=0.25, ridge=0.3)


@pytest.mark.parametrize(
    ("most", "tracks_each", "components"),
    [(128, 5, 50), (128, 2, 30), (20, 5, 20)],  # the columns, the tracks, the setting
)
def test_the_pca_keeps_the_least_of_setting_columns_and_tracks(most: int, tracks_each: int, components: int):
    features, labels, artists = data(tracks_each=tracks_each)
    config = replace(CONFIG, max_components=most)
    assert fit(config, features, labels, artists, gamma=0.1, ridge=0.1).vectors.shape[1] == components


def test_no_artist_is_on_both_sides_of_a_fold_and_every_track_is_tested_once():
    _, labels, artists = data(artists_each=7)
    tested = []
    for train, test in folds(3, labels, artists, seed=4):
        assert not set(artists[train]) & set(artists[test])
        tested.extend(test.tolist())
    assert sorted(tested) == list(range(len(labels)))


def test_genre_and_artist_weights_are_known():
    labels, artists = np.array([0, 0, 0, 0, 0, 1]), np.array([7, 7, 7, 7, 8, 9])
    weights = track_weights(labels, artists, power=0.5)
    assert weights.mean() == pytest.approx(1.0)
    assert weights[:5].sum() == pytest.approx(weights[5])
    assert weights[4] / weights[0] == pytest.approx(2.0)


def test_choose_takes_the_setting_that_is_right_most_often():
    features, labels, artists = data()
    absurd = replace(CONFIG, gammas=(1e6, 0.25), ridges=(0.3,))
    assert choose(absurd, features, labels, artists, seed=0) == (0.25, 0.3)


def test_of_settings_that_are_equally_right_choose_takes_the_smoothest():
    """The genres are so far apart that every setting is always right."""
    labels = np.repeat([0, 1, 2], 20)
    rng = np.random.default_rng(0)
    features = rng.uniform(0.0, 1.0, (3, 50))[labels] + rng.normal(0.0, 0.01, (60, 50))
    config = replace(CONFIG, gammas=(0.5, 0.1, 0.2), ridges=(0.1, 1.0, 0.3))
    assert choose(config, features, labels, np.arange(60) // 2, seed=0) == (0.1, 1.0)


def test_the_standard_error_counts_an_artist_and_not_its_tracks():
    """The same tracks five times over say no more; of one track an artist it is that of the mean."""
    values, artists = np.array([0.0, 1.0, 1.0, 0.0, 1.0]), np.arange(5)
    assert standard_error(values, artists) == pytest.approx(values.std() / np.sqrt(5))
    assert standard_error(np.repeat(values, 5), np.repeat(artists, 5)) == pytest.approx(values.std() / np.sqrt(5))
