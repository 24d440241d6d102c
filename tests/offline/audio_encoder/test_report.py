import re
from typing import Any

import pytest

from offline.audio_encoder.report import render

TRAINING: dict[str, Any] = {
    "tracks": {"train": 1200, "valid": 150, "test": 150},
    "tower_left_them_out": True,
    "log": {"caveat": None},
    "best_step": 40,
    "course": [{"step": 20, "loss": 0.4, "valid_auc": 0.6}, {"step": 40, "loss": 0.3, "valid_auc": 0.7}],
    "config": {"margin": 0.2},
}


def figures(value: float, around: float = 0.02) -> dict[str, Any]:
    figure = {"value": value, "low": value - around, "high": value + around, "n": 150}
    return dict.fromkeys(("auc", "track_recall_at_10", "recall_at_10", "ndcg_at_10"), figure)


def page(encoder: dict[str, Any], **training: Any) -> str:
    metrics = {"encoder": encoder, "popularity": figures(0.7), "random": figures(0.5), "permuted": figures(0.49)}
    return render(metrics, name="<b>ours</b>", training=TRAINING | training)


@pytest.mark.parametrize(
    ("value", "tone", "said"),
    [
        (0.8, "wins", "better than popularity (.700): AUC .800"),
        (0.73, "unclear", "not surely better than popularity (.700): AUC .730"),
        (0.6, "loses", "worse than popularity (.700): AUC .600"),
    ],
)
def test_the_first_sentence_says_whether_the_intervals_part_the_encoder_from_the_best_of_the_others(value, tone, said):
    shown = page(figures(value))
    assert f'<header class="verdict {tone}">\n<h1>It finds listeners of unheard tracks {said}</h1>' in shown


def test_every_figure_of_all_that_rank_stands_in_a_chart_and_in_the_table_with_its_interval():
    shown = page(figures(0.8))
    assert shown.count("the encoder .800 (.780 to .820); popularity .700 (.680 to .720)") == 4
    assert shown.count("exchanged sounds .490 (.470 to .510)") == 4
    assert shown.count("<small>.680 to .720</small>") == 4
    assert shown.count("step 40 chosen") == 2


def test_what_a_reader_has_to_know_of_the_log_and_the_tower_stands_at_the_top():
    caveat, knew = "The listens are made up. All of it is.", "The user tower was trained with these tracks"
    assert caveat not in page(figures(0.8))
    assert knew not in page(figures(0.8))
    told = page(figures(0.8), tower_left_them_out=False, log={"caveat": "All of it is."}).partition("</header>")[0]
    assert caveat in told
    assert knew in told


def test_names_are_text_and_the_page_fetches_nothing():
    shown = page(figures(0.8))
    assert "&lt;b&gt;ours" in shown
    assert "<b>ours" not in shown
    assert not re.search(r"(src|href)=\"(?!data:)", shown)
