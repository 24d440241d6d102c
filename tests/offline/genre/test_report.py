import re
from typing import Any

import numpy as np
import pytest

from offline.genre.report import TrackMap, map_tracks, render

FIGURES: dict[str, Any] = {
    "metrics": {"accuracy": 0.75, "answered": 0.5, "accuracy_answered": 0.9, "log_loss": 0.6, "ece": 0.031},
    "classes": {
        "rock": {"tracks": 12, "artists": 4, "answered": 0.25, "precision": 0.9, "recall": 0.5},
        "<b>pop</b>": {"tracks": 8, "artists": 3, "answered": 0.0, "precision": 0.0, "recall": 0.0},
    },
    "confusion": [[9, 3], [2, 6]],
    "reliability": [[0.55, 0.5, 0.3, 0.7, 0.4], [0.93, 0.95, 0.8, 0.99, 0.6]],
    "risk_coverage": [[0.05, 0.0], [0.5, 0.1], [0.9, 0.22]],
}
TRAINING = {
    "tracks": 20,
    "artists": 7,
    "gamma": 0.1,
    "config": {"classes": list(FIGURES["classes"]), "folds": 5, "repeats": 2},
}
MAP = TrackMap("taste space", 0.6, np.array([[0.0, 0.0], [1.0, 0.5]]), np.array([0, 1]), 3)


def test_the_page_says_first_what_can_be_expected_and_of_whom():
    page = render(FIGURES, MAP, training=TRAINING)
    assert "<h1>.750 of the best guesses are right; the head answers .500 of the tracks, and .900 of" in page
    assert "5 folds that divide no artist who is known, drawn 2 times" in page
    assert "3 tracks are not shown" in page


def test_the_chosen_threshold_is_marked_and_the_calibration_error_told():
    page = render(FIGURES, MAP, training=TRAINING)
    assert "chosen: .500 answered, .100 wrong" in page
    assert "expected calibration error .031" in page
    assert "as often as they say: .000, 1.000. right, with 95 % interval: .500, .950." in page


def test_the_confusion_matrix_gives_shares_of_the_true_genre():
    page = render(FIGURES, MAP, training=TRAINING)
    cells = re.findall(r'<td class="(hit|miss)" style="--share:([\d.]+)%" title="(\d+) guesses">(\d+)</td>', page)
    assert cells == [("hit", "75.00", "9", "75"), ("miss", "25.00", "3", "25"), ("miss", "25.00", "2", "25"),
                     ("hit", "75.00", "6", "75")]  # fmt: skip
    assert "never answered" in page


def test_names_of_genres_are_text_and_the_page_fetches_nothing():
    page = render(FIGURES, MAP, training=TRAINING)
    assert "<b>pop" not in page
    assert "&lt;b&gt;pop&lt;/b&gt;" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_a_head_of_several_labels_has_thresholds_and_no_confusion():
    figures = {name: value for name, value in FIGURES.items() if name != "confusion"} | {"risk_coverage": []}
    figures["metrics"] = {"answered": 0.7, "precision": 0.8, "recall": 0.4, "ece": 0.02}
    figures["classes"] = {"rock": FIGURES["classes"]["rock"] | {"threshold": 0.61}}
    page = render(figures | {"plain": FIGURES}, MAP, training=TRAINING)
    assert "The head answers .700 of the tracks with a label; .800 of the labels are right, and .400" in page
    assert ">.610</td>" in page
    assert "It decides on tracks that lack an input" in page


def test_the_map_keeps_the_two_directions_of_greatest_variance():
    rng = np.random.default_rng(0)
    places = rng.normal(0.0, [5.0, 0.1, 2.0, 0.1], (50, 4)).astype(np.float32)
    tracks = [{"embedding": place} for place in places]
    shown = map_tracks(tracks, np.arange(50) % 2, np.zeros((50, 1)), seed=0)
    assert shown.space == "taste space, by the audio encoder"
    assert shown.explained > 0.99
    for column, original in zip(shown.points.T, (places[:, 0], places[:, 2]), strict=True):
        assert abs(np.corrcoef(column, original)[0, 1]) > 0.99
        assert (column.min(), column.max()) == pytest.approx((0.0, 1.0))


def test_tracks_without_a_place_in_taste_space_are_mapped_by_what_the_head_hears():
    heard = np.random.default_rng(0).normal(size=(4_010, 3))
    heard[0, 2] = np.nan  # an input that one track lacks
    several = np.zeros((4_010, 2), bool)
    several[:, 1] = True
    shown = map_tracks([{}] * 4_010, several, heard, seed=0)
    assert shown.space == "what the head hears, standardised"
    assert (shown.points.shape, shown.left_out, set(shown.genres.tolist())) == ((4_000, 2), 10, {1})
    assert shown.explained == pytest.approx(1.0)
