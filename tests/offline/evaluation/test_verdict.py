import pytest

from offline.evaluation.verdict import headline, state, verdict

CAVEAT = "Figures measured on this platform are plumbing: they were programmed in."


def leaf(value, n=1090):
    return {"value": value, "n": n, "low": value and value - 0.01, "high": value and value + 0.01}


def parts(recall, ndcg=None, new=0, untied=1090):
    """What a scorer reached, with the same figures under both protocols."""
    of_all = {"recall_at_10": leaf(recall), "ndcg_at_10": leaf(ndcg or recall / 2)}
    slices = {
        "all": of_all,
        "new_tracks": {"recall_at_10": leaf(None, new)},
        "untied": {"recall_at_10": leaf(untied and recall * 0.5, untied)},
    }
    return dict.fromkeys(("discovery", "replay"), slices)


def stood(untied):
    """Figures with the history as it stood; None where no example shares its moment."""
    if untied == 1090:
        return None
    return {"models": {"mean": parts(0.235, untied=untied)}, "floors": {"item_knn": parts(0.189, untied=untied)}}


def metrics_of(
    discovery, replay=(0.008, 0.001, 0.015), *, ndcg=None, sampled=False, new=0, ease=True, users=1090, untied=1090
):
    """Metrics of one tower `mean`; discovery, replay and ndcg are a difference, low and high."""

    def match(figures):
        return {"floor": "item_knn", "difference": figures[0], "low": figures[1], "high": figures[2]}

    return {
        "models": {"mean": parts(0.091, untied=untied)},
        "floors": {"item_knn": parts(0.083, new=new, untied=untied)}
        | ({"ease": parts(0.07, untied=untied)} if ease else {}),
        "against_best_floor": {
            "mean": {
                "discovery": {"recall_at_10": match(discovery), "ndcg_at_10": match(ndcg or discovery)},
                "replay": {"recall_at_10": match(replay), "ndcg_at_10": match(replay)},
            }
        },
        "as_it_stood": stood(untied),
        "log": {"fingerprint": "0123456789ab"},
        "training": {"mean": {"log": {"fingerprint": "0123456789ab"}}},
        "split": {"sampled": sampled, "test_examples": 1090, "test_users": users},
    }


def test_a_tower_that_wins_is_said_to_win_with_its_figures():
    assert verdict(metrics_of((0.008, 0.001, 0.015)))[0] == (
        "mean beats every floor in discovery: Recall@10 .091 against .083 of item_knn "
        "(difference +.008, 95 % interval +.001 to +.015, n 1,090)."
    )


def test_a_floor_that_wins_is_named_first_with_advice_not_to_ship():
    found = verdict(metrics_of((-0.008, -0.015, -0.001)))
    assert found[0] == (
        "A floor wins in discovery: item_knn reaches Recall@10 .083 against .091 of mean (difference -.008, "
        "95 % interval -.015 to -.001, n 1,090). Do not ship this tower on these figures."
    )
    assert found[1].startswith("mean beats every floor in replay")


def test_an_interval_that_holds_0_is_no_win():
    found = verdict(metrics_of((0.008, -0.001, 0.015)))
    assert found[0].startswith("No winner in discovery: item_knn reaches Recall@10 .083 against .091 of mean")
    assert "the interval holds 0" in found[0]


def test_the_second_metric_is_told_of_where_it_says_something_else():
    assert len(verdict(metrics_of((0.008, 0.001, 0.015)))) == 2
    found = verdict(metrics_of((0.008, 0.001, 0.015), ndcg=(-0.008, -0.015, -0.001)))
    assert found[0].startswith("A floor wins in discovery: item_knn reaches NDCG@10")
    assert len(found) == 3


def test_what_limits_the_figures_is_said():
    metrics = metrics_of((0.008, 0.001, 0.015), sampled=True, new=17, ease=False)
    found = "\n".join(verdict(metrics, caveat=CAVEAT))
    assert found.startswith(f"{CAVEAT}\nmean beats")
    assert "17 of the 1,090 examples of discovery ask for tracks that nobody had in training." in found
    assert "The test is a sample: 1,090 examples, all of 1,090 users." in found
    assert "ease is no floor here" in found
    assert "too few" not in found
    assert "The test has 9 users: too few to tell who wins." in verdict(metrics_of((0.008, 0.001, 0.015), users=9))


def test_what_the_order_of_ids_tells_is_said_before_who_wins():
    found = verdict(metrics_of((0.008, 0.001, 0.015), untied=545))
    assert found[0] == (
        "50% of the examples of discovery and 50% of the examples of replay stand at the same moment as the listen "
        "before them, in the order of their ids, which a model can learn: all figures leave that moment out of the "
        "history. With the history as it stood, Recall@10 would be .235 of mean against .189 of item_knn in discovery, "
        "and .235 of mean against .189 of item_knn in replay."
    )
    assert found[1].startswith("mean beats every floor in discovery: Recall@10 .091 against .083 of item_knn")
    assert verdict(metrics_of((0.008, 0.001, 0.015), untied=0))[0].startswith("100% of the examples")
    assert "same moment" not in "".join(verdict(metrics_of((0.008, 0.001, 0.015), untied=1050)))


def test_a_tower_that_is_judged_on_a_later_log_is_held_against_its_own_validation():
    metrics = metrics_of((0.008, 0.001, 0.015))
    metrics["training"]["mean"] = {
        "log": {"fingerprint": "ba9876543210"},
        "trained_until_ms": 951_782_400_000,
        "valid_ndcg_at_10": 0.0512,
    }
    metrics["split"]["test_from_ms"] = 951_782_400_000 + 36 * 3_600_000
    assert verdict(metrics)[0] == (
        "mean was trained on another log, until 2000-02-29, and this test begins 1.5 days after that: NDCG@10 in "
        "discovery is .045, where its own validation had .051."
    )


@pytest.mark.parametrize(
    ("difference", "low", "high", "expected"),
    [(0.1, 0.01, 0.2, "wins"), (-0.1, -0.2, -0.01, "loses"), (0.1, 0.0, 0.2, "unclear"), (None, None, None, "none")],
)
def test_who_wins_is_told_by_whether_the_interval_holds_0(difference, low, high, expected):
    assert state({"difference": difference, "low": low, "high": high}) == expected


def against(*states):
    """By model, four comparisons of these states."""
    of = {"wins": (0.1, 0.01, 0.2), "loses": (-0.1, -0.2, -0.01), "unclear": (0.1, -0.1, 0.2), "none": (None,) * 3}
    rows = [iter([dict(zip(("difference", "low", "high"), of[word], strict=True)) for word in row]) for row in states]
    return {
        model: {protocol: {metric: next(row) for metric in ("recall_at_10", "ndcg_at_10")}
                for protocol in ("discovery", "replay")}
        for model, row in zip(("mean", "attention"), rows, strict=False)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("states", "tone", "text"),
    [
        ([["wins"] * 4], "wins", "Every floor is beaten by mean"),
        ([["wins"] * 4, ["wins"] * 4], "wins", "Every floor is beaten by mean and attention"),
        ([["unclear"] * 4, ["wins"] * 4], "wins", "Every floor is beaten by attention, but not by mean"),
        ([["none", "none", "wins", "wins"]], "wins", "Every floor is beaten by mean"),
        ([["wins", "unclear", "wins", "wins"]], "unclear", "No winner in 1 of 4 comparisons"),
        ([["unclear"] * 4], "unclear", "No winner"),
        ([["wins", "wins", "loses", "unclear"], ["loses"] * 4], "loses", "A floor wins in 1 of 4 comparisons"),
        ([["loses"] * 4], "loses", "The floors win"),
        ([["none"] * 4], "unclear", "There is nothing to compare"),
    ],
)
def test_the_headline_is_that_of_the_model_that_does_best(states, tone, text):
    assert headline(against(*states)) == {"tone": tone, "text": text}


def test_the_sentences_and_the_headline_agree_on_who_loses():
    metrics = metrics_of((-0.008, -0.015, -0.001), replay=(-0.008, -0.015, -0.001))
    assert headline(metrics["against_best_floor"])["text"] == "The floors win"
    assert all(sentence.startswith("A floor wins in") for sentence in verdict(metrics))
