"""The report page, from made-up metrics of the kinds that evaluations give."""

from __future__ import annotations

import re
from copy import deepcopy
from html.parser import HTMLParser
from typing import Any

import pytest

from models.errors import SettingsError
from offline.evaluation.report import render, write_report

VOID = {"meta", "link", "br", "img", "hr", "input"}
METRICS = {"recall_at_10": 1.0, "recall_at_50": 2.6, "recall_at_100": 3.7, "ndcg_at_10": 0.52, "coverage_at_10": 3.1}
SLICES = {
    "discovery": {"all": (1090, 1.0), "new_users": (0, 0.0), "new_tracks": (37, 0.3), "no_history": (21, 0.2),
                  "untied": (989, 0.9)},
    "replay": {
        "all": (2755, 1.4), "new_users": (0, 0.0), "new_tracks": (41, 0.3), "no_history": (21, 0.2),
        "untied": (2516, 1.3),
        "repeats": (1665, 1.8),
    },
}  # fmt: skip


def leaf(value: float, n: int, *, spread: float = 0.15) -> dict[str, Any]:
    if n == 0:
        return {"value": None, "n": 0, "low": None, "high": None}
    return {"value": value, "n": n, "low": value * (1 - spread), "high": value * (1 + spread)}


def short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def system(recall: float) -> dict[str, Any]:
    return {
        protocol: {
            name: {metric: leaf(recall * factor * share, n) for metric, factor in METRICS.items()}
            for name, (n, share) in slices.items()
        }
        for protocol, slices in SLICES.items()
    }


def match(floor: str, difference: float, *, half: float) -> dict[str, Any]:
    return {"floor": floor, "difference": difference, "low": difference - half, "high": difference + half}


def whole(*, gain: float, verdict: str) -> dict[str, Any]:
    """Metrics in which `mean` is ahead of the best floor by `gain` everywhere."""
    best = 0.0831
    against = {metric: match("item_knn", gain, half=0.0043) for metric in ("recall_at_10", "ndcg_at_10")}
    weaker = {metric: match("item_knn", gain - 0.004, half=0.0043) for metric in ("recall_at_10", "ndcg_at_10")}
    ages = {"0": 0, "3600000": 1, "86400000": 2, "604800000": 3}
    course = [
        {"step": 200 * point, "loss": 7.2 * 0.93**point + 2.1, "examples": 40_000, "seconds": 3.2,
         "valid_ndcg_at_10": 0.031 + 0.021 * (1 - 0.7**point) - 0.0009 * max(0, point - 12)}
        for point in range(1, 17)
    ]  # fmt: skip
    models = {"mean": system(best + gain), "attention": system(best + gain - 0.004)}
    floors = {
        "popularity": system(0.0312),
        "transitions": system(0.0577),
        "item_knn": system(best),
        "ease": system(0.0795),
    }
    begins = 891_000_000_000
    return {
        "log": {"where": "logs/listens-2026", "fingerprint": "5f3a9c01d2e4", "users": 943, "tracks": 1682,
                "listens": 100_000, "targets": 82_520, "from_ms": 874_724_710_000, "to_ms": 893_286_638_000},
        "split": {"name": "temporal", "text": "The last tenth of the time is the test; the history of an example is "
                  "every event before it, those of the test part included.", "train_listens": 80_000,
                  "valid_examples": 7311, "test_examples": 2755, "test_users": 128, "test_from_ms": 891_000_000_000,
                  "sampled": False},
        "models": models,
        "floors": floors,
        "as_it_stood": {"models": {"mean": system(0.144), "attention": system(0.133)},
                        "floors": {name: system(0.122) for name in floors}},
        "floor_settings": {"ease": {"discovery": {"ridge": 300.0}, "replay": {"ridge": 100.0}}},
        "drift": {
            "parts": [{"from_ms": begins + part * 10**8, "to_ms": begins + (part + 1) * 10**8} for part in range(4)],
            "figures": {name: {metric: [leaf(0.09 - 0.0107 * part, 270) for part in range(4)]
                               for metric in ("recall_at_10", "ndcg_at_10")} for name in (*models, *floors)},
            "trained_until_ms": {"mean": begins - 864 * 10**5, "attention": None}},
        "against_best_floor": {"mean": {"discovery": dict(against), "replay": dict(against)},
                               "attention": {"discovery": dict(weaker), "replay": dict(weaker)}},
        "staleness": {"mean": {
            gap: {"all": leaf(0.0953 - 0.011 * age, 1090),
                  "with_listens": leaf(0.1012 - 0.019 * age, 212 * age),
                  "without_listens": leaf(0.0921 - 0.004 * age, 1090 - 212 * age)}
            for gap, age in ages.items()}},
        "training": {"mean": {"config": {"pooling": "mean", "width": 64, "dropouts": [0.1, 0.2],
                                         "counting": {"brief": 0.1}}, "dropout": 0.2, "best_step": 2400,
                              "valid_ndcg_at_10": course[11]["valid_ndcg_at_10"], "examples_per_s": 12345.6,
                              "course": course}},
        "verdict": [verdict, "attention is behind mean by .0040 in Recall@10 and takes twice the time to refresh."],
        "config": {"test_share": 0.1, "seed": 0},
        "command": "tastewave-offline evaluate logs/listens-2026 report --split temporal",
        "versions": {"tastewave": "0.1.0", "torch": "2.15.0", "numpy": "2.4.1"},
    }  # fmt: skip


MODEL_WINS = whole(gain=0.0122, verdict="mean finds .0122 more of what people go on to hear than item_knn does.")
FLOOR_WINS = whole(gain=-0.0122, verdict="Use item_knn: no trained model reaches its Recall@10 on this log.")
UNDECIDED = whole(gain=0.0021, verdict="mean is ahead of item_knn by no more than chance explains.")


def minimal() -> dict[str, Any]:
    """What is left where one model was judged on its own with the floors that always fit."""
    metrics = deepcopy(MODEL_WINS)
    for key in ("staleness", "drift", "training", "config", "versions", "floor_settings"):
        del metrics[key]
    for table in (metrics["models"], metrics["against_best_floor"]):
        del table["attention"]
    del metrics["floors"]["ease"], metrics["verdict"][1]
    metrics["as_it_stood"] = None
    metrics["split"] |= {"name": "leave-last", "test_from_ms": None}
    return metrics


class Page(HTMLParser):
    """Parses, and fails where elements are not closed in the order that they were opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == tag]


@pytest.mark.parametrize("metrics", [MODEL_WINS, FLOOR_WINS, UNDECIDED, minimal()])
def test_the_page_is_well_formed_and_fetches_nothing(metrics: dict[str, Any]) -> None:
    html = render(metrics)
    page = Page(html)
    assert not re.search(r"(https?:)?//\w|url\(|@import", html)
    assert not {"script", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert not re.search(r"\b(nan|inf|None|undefined)\b", page.text, re.IGNORECASE)


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (MODEL_WINS, "Every floor is beaten by mean and attention"),
        (FLOOR_WINS, "The floors win"),
        (UNDECIDED, "No winner"),
    ],
)
def test_who_wins_is_the_title_and_stands_with_the_verdict_before_the_first_chart(
    metrics: dict[str, Any], words: str
) -> None:
    html = render(metrics)
    assert f"<title>{words}" in html
    assert html.index(f"{words}</h1>") < html.index(metrics["verdict"][0]) < html.index("<svg")
    assert html.index(metrics["verdict"][1]) < html.index("<svg")


def test_a_floor_that_wins_one_comparison_of_four_is_the_headline_and_is_named() -> None:
    metrics = deepcopy(MODEL_WINS)
    for model in ("mean", "attention"):
        metrics["against_best_floor"][model]["replay"]["ndcg_at_10"] = match("transitions", -0.0207, half=0.0011)
    page = Page(render(metrics))
    assert "A floor wins in 1 of 4 comparisons" in page.text
    assert re.search(r"▼ mean: a floor wins\s*-\.021 against transitions95 %: -\.022 to -\.020", page.text)


def test_a_floor_ahead_by_chance_is_no_victory_of_the_model() -> None:
    text = Page(render(whole(gain=-0.0021, verdict="item_knn does as well."))).text
    assert "No winner" in text
    assert "mean: no winner" in text


def test_the_headline_says_which_models_do_not_beat_every_floor() -> None:
    text = Page(render(whole(gain=0.0062, verdict="mean finds more than item_knn."))).text
    assert "Every floor is beaten by mean, but not by attention" in text


def test_every_figure_of_every_system_is_in_the_tables_with_its_interval() -> None:
    html = render(MODEL_WINS)
    for kind in ("models", "floors"):
        stood = MODEL_WINS["as_it_stood"][kind]
        for name, found in MODEL_WINS[kind].items():
            rows = re.findall(rf'<th scope="row">{name} <small>.*?</tr>', html, re.DOTALL)
            assert (
                len(rows) == 9 + 2
            )  # two of the eleven slices have no example; and two groups with the history as it stood
            filled = [
                part
                for protocol, slices in found.items()
                for part in (slices["all"], stood[name][protocol]["all"], *list(slices.values())[1:])
                if part["recall_at_10"]["n"]
            ]
            for row, part in zip(rows, filled, strict=True):
                for value in part.values():
                    assert f"{short(value['value'])}<small>" in row.replace("</strong>", "")
                    assert f"<small>{short(value['low'])} to {short(value['high'])}</small>" in row


def test_the_best_of_each_column_is_bold() -> None:
    bold = re.findall(r"<td><strong>([\d.]+)", render(MODEL_WINS))
    stood = MODEL_WINS["as_it_stood"]["models"]["mean"]
    mean = [part for slices in MODEL_WINS["models"]["mean"].values() for part in slices.values()]
    mean += [stood[protocol]["all"] for protocol in SLICES]
    wanted = [short(value["value"]) for part in mean for value in part.values() if value["n"]]
    assert sorted(bold) == sorted(wanted)


def test_charts_tell_their_figures_in_words_and_show_the_best_first() -> None:
    html = render(FLOOR_WINS)
    described = re.findall(r"<desc>(.*?)</desc>", html, re.DOTALL)
    assert described[0].startswith("item_knn .083 (.071 to .096); ease .080")
    assert described[0].endswith("popularity .031 (.027 to .036)")
    assert "Recall@10, n = 1,090</figcaption>" in html
    assert (
        len(described) == html.count('role="img"') == 4 + 4 + 1 + 4 + 2
    )  # figures, differences, staleness, ageing, training


def test_of_a_model_and_a_floor_that_reach_the_same_the_floor_stands_first() -> None:
    described = re.findall(r"<desc>(.*?)</desc>", render(whole(gain=0.0, verdict="No winner.")), re.DOTALL)
    assert described[0].startswith("item_knn .083 (.071 to .096); mean .083 (.071 to .096)")


def test_a_slice_without_examples_says_so_instead_of_showing_noughts() -> None:
    text = Page(render(MODEL_WINS)).text
    assert len(re.findall(r"New users n = 0 · no example", text)) == 2
    assert ".000" not in text


def test_figures_that_are_null_or_not_numbers_show_no_example() -> None:
    metrics = minimal()
    metrics["models"]["mean"]["discovery"]["all"]["ndcg_at_10"] = leaf(0, 0)
    metrics["floors"]["transitions"]["replay"]["all"]["recall_at_10"] |= {"value": float("nan"), "low": float("nan")}
    metrics["against_best_floor"]["mean"]["discovery"]["ndcg_at_10"] = {
        "floor": "item_knn", "difference": None, "low": None, "high": None}  # fmt: skip
    page = Page(render(metrics))
    assert page.text.count("no example") > 4
    assert not re.search(r"\bnan\b|None", page.text)


def test_staleness_gives_value_interval_and_number_for_each_age_and_group() -> None:
    html = render(MODEL_WINS)
    for groups in MODEL_WINS["staleness"]["mean"].values():
        for found in groups.values():
            value = re.escape(short(found["value"])) if found["n"] else "no example"
            assert re.search(rf"<td>{value}.*?<small>n = {found['n']:,}</small>", html)
    assert [label for label in ("fresh", "1 hour", "1 day", "7 days") if f">{label}</text>" in html] == [
        "fresh", "1 hour", "1 day", "7 days"]  # fmt: skip


def test_the_page_tells_how_figures_move_over_the_time_of_the_test() -> None:
    page = Page(render(MODEL_WINS))
    assert "mean was trained on listens before 1998-03-26." in page.text
    assert "attention was trained on" not in page.text
    assert "mean: .090, .079, .069, .058. item_knn: .090, .079, .069, .058." in page.text
    assert "mean: NDCG@10, discovery" in page.text


def test_figures_with_the_history_as_it_stood_are_named_and_stand_below_the_others() -> None:
    text = Page(render(MODEL_WINS)).text
    assert text.count("All, with the history as it stood") == 2
    assert text.index("All n = 1,090") < text.index("All, with the history as it stood") < text.index("New users n")
    assert "All, with the history as it stood" not in Page(render(minimal())).text


def test_training_marks_the_chosen_step_and_tells_the_dropout() -> None:
    html = render(MODEL_WINS)
    assert "The best validation came at step 2,400 of 3,200, with dropout 0.2; 12,346 examples a second." in html
    assert html.count("step 2,400 chosen</text>") == 2


def test_the_page_tells_how_to_make_it_again() -> None:
    metrics = deepcopy(MODEL_WINS)
    metrics["command"] = "tastewave-offline evaluate 'my logs/*.parquet' report"
    text = Page(render(metrics)).text
    assert metrics["command"] in text
    assert "test_share = 0.1 · seed = 0" in text
    assert 'pooling = "mean" · width = 64 · dropouts = [0.1, 0.2] · counting = {"brief": 0.1}' in text
    assert "tastewave 0.1.0, torch 2.15.0, numpy 2.4.1" in text
    assert metrics["log"]["fingerprint"] in text


def test_what_an_evaluation_did_not_make_leaves_no_empty_section() -> None:
    text = Page(render(minimal())).text
    for title in (
        "What a stale embedding costs",
        "How it ages",
        "Training",
        "Settings of the floors",
        "Versions",
        "test begins",
    ):
        assert title in Page(render(MODEL_WINS)).text
        assert not re.search(rf"^{title}$", text, re.MULTILINE)


def test_names_from_outside_are_text_and_never_markup() -> None:
    metrics = deepcopy(MODEL_WINS)
    hostile = "</title><script>alert('x')</script><img src=\"//evil.example/x\" onerror=1>"
    metrics["log"]["where"] = metrics["log"]["fingerprint"] = hostile
    metrics["split"]["text"] = metrics["versions"]["torch"] = metrics["training"]["mean"]["config"]["log"] = hostile
    metrics["verdict"].append(hostile)
    for part in (metrics, metrics["as_it_stood"]):
        part["models"][hostile] = part["models"].pop("mean")
    for table in (metrics["drift"]["figures"], metrics["drift"]["trained_until_ms"]):
        table[hostile] = table.pop("mean")
    for key in ("against_best_floor", "staleness", "training"):
        metrics[key][hostile] = metrics[key].pop("mean")
    page = Page(render(metrics))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert hostile in page.text


def test_metrics_that_lack_a_part_are_refused_in_one_sentence() -> None:
    for key in ("floors", "log", "against_best_floor", "as_it_stood", "verdict"):
        metrics = minimal()
        del metrics[key]
        with pytest.raises(SettingsError, match=f"{key}.*evaluate"):
            render(metrics)


def test_the_page_is_written_as_utf_8(tmp_path: Any) -> None:
    path = tmp_path / "report.html"
    write_report(MODEL_WINS, path)
    assert path.read_bytes().decode("utf-8") == render(MODEL_WINS)
