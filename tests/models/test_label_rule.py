import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ReleaseError
from models.label_rule import LabelRule, parent_of


def rule(parents, *, thresholds=0.5, slopes=1.0, intercepts=0.0) -> LabelRule:
    def of_labels(value) -> np.ndarray:
        return np.full(len(parents), value) if np.isscalar(value) else np.array(value, float)

    return LabelRule(
        parents=np.array(parents, np.int64), slopes=of_labels(slopes), intercepts=of_labels(intercepts),
        thresholds=of_labels(thresholds),
    )  # fmt: skip


@st.composite
def forests(draw) -> list[int]:
    return [draw(st.integers(-1, label - 1)) for label in range(draw(st.integers(1, 12)))]


@given(forests(), st.data())
def test_no_label_is_more_probable_than_its_parent_and_what_is_answered_has_its_parents_answered(parents, data):
    numbers = st.lists(st.floats(-50.0, 50.0), min_size=len(parents), max_size=len(parents))
    thresholds = st.lists(
        st.one_of(st.floats(1e-3, 1.0), st.just(np.inf)), min_size=len(parents), max_size=len(parents)
    )
    made = rule(parents, thresholds=data.draw(thresholds), intercepts=data.draw(numbers))
    probabilities = made.probabilities(np.array(data.draw(numbers)))
    answered = made.answered(probabilities)
    finest = made.finest(answered)
    assert (probabilities >= 0.0).all()
    assert (probabilities <= 1.0).all()
    for label, parent in enumerate(parents):
        if parent >= 0:
            assert probabilities[label] <= probabilities[parent]
            assert answered[parent] or not answered[label]
            assert not (finest[parent] and answered[label])
    assert (finest <= answered).all()
    assert finest.any() == answered.any()


def test_a_probability_is_that_of_the_machine_or_of_the_parent_where_that_is_less():
    made = rule([-1, 0, 1], slopes=[1.0, 2.0, 1.0], intercepts=[0.0, 0.0, 1.0])
    root, grandchild = 1 / (1 + np.exp(-0.3)), 1 / (1 + np.exp(0.5 - 1.0))  # the child is surer than the root
    assert grandchild > root
    np.testing.assert_allclose(made.probabilities(np.array([0.3, 0.4, -0.5])), [root] * 3, rtol=1e-12)
    both = made.probabilities(np.array([[0.0, -0.4, -3.0], [0.0, 0.0, -1.0]]))
    child, grandchild = 1 / (1 + np.exp(0.8)), 1 / (1 + np.exp(2.0))
    np.testing.assert_allclose(both, [[0.5, child, grandchild], [0.5, 0.5, 0.5]], rtol=1e-12)


def test_a_label_without_a_threshold_is_answered_only_with_one_within_it():
    made = rule([-1, 0, -1], thresholds=[np.inf, 0.4, 0.9])
    assert made.answered(np.array([0.99, 0.3, 0.2])).tolist() == [False, False, False]
    assert made.answered(np.array([0.99, 0.5, 0.95])).tolist() == [True, True, True]
    assert made.finest(np.array([True, True, True])).tolist() == [False, True, True]


def test_names_say_what_they_are_within():
    assert parent_of("Electronic---House---Deep House") == "Electronic---House"
    assert parent_of("Electronic---House") == "Electronic"
    assert parent_of("Electronic") is None
    assert parent_of("R&B - Soul") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"parents": np.array([0, -1])},  # a parent behind its child, or a label within itself
        {"parents": np.array([-1, 1])},
        {"parents": np.array([-2, 0])},
        {"parents": np.array([-1.0, 0.0])},
        {"slopes": np.array([1.0, 0.0])},
        {"slopes": np.array([1.0, np.nan])},
        {"intercepts": np.array([0.0, np.inf])},
        {"thresholds": np.array([0.5, 0.0])},
        {"thresholds": np.array([0.5, np.nan])},
        {"thresholds": np.array([0.5])},
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(changes: dict):
    good = {"parents": np.array([-1, 0]), "slopes": np.ones(2), "intercepts": np.zeros(2), "thresholds": np.ones(2)}
    LabelRule(**good)
    with pytest.raises(ReleaseError, match="parents stand before their children"):
        LabelRule(**good | changes)
