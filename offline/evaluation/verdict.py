"""Who wins, the tower or the floors: as a state of each comparison, as a headline, and in sentences."""

from __future__ import annotations

from typing import Any, Literal

from offline.evaluation.floors import EASE_TRACKS
from offline.evaluation.intervals import Leaf
from offline.evaluation.measures import FEWEST_USERS
from offline.pages.figures import day, plain, signed
from offline.ranking.examples import PROTOCOLS

Json = dict[str, Any]
State = Literal["wins", "unclear", "loses", "none"]

HEADLINES = ("recall_at_10", "ndcg_at_10")
"""The metrics that tell who wins."""

METRIC_NAMES = {
    "recall_at_10": "Recall@10",
    "ndcg_at_10": "NDCG@10",
    "recall_at_50": "Recall@50",
    "recall_at_100": "Recall@100",
    "coverage_at_10": "Coverage@10",
}

_MANY_TIES = 0.05  # of the examples
_DAY_MS = 86_400_000


def state(comparison: Json) -> State:
    """What a model does against the best floor.

    Args:
        comparison: difference, low and high, as offline.evaluation.measures.against_best gives them.

    Returns:
        wins or loses where the interval of the difference leaves 0 out, unclear where it holds 0, none where there
        was no example.
    """
    if comparison["difference"] is None:
        return "none"
    return "wins" if comparison["low"] > 0 else "loses" if comparison["high"] < 0 else "unclear"


def headline(against_best_floor: Json) -> Json:
    """The result in a few words: that of the model that does best against the floors.

    Args:
        against_best_floor: by model, protocol and metric, as metrics.json has it.

    Returns:
        `text`, and as `tone` the state that it tells of.
    """
    states: dict[str, list[str]] = {}
    for model, by_protocol in against_best_floor.items():
        of_model = [state(by_protocol[protocol][metric]) for protocol in PROTOCOLS for metric in HEADLINES]
        states[model] = [told for told in of_model if told != "none"]
    states = {model: compared for model, compared in states.items() if compared}
    if not states:
        return {"tone": "unclear", "text": "There is nothing to compare"}
    best = min(states.values(), key=lambda compared: (compared.count("loses"), compared.count("unclear")))
    if lost := best.count("loses"):
        text = "The floors win" if lost == len(best) else f"A floor wins in {lost} of {len(best)} comparisons"
        return {"tone": "loses", "text": text}
    if unclear := best.count("unclear"):
        text = "No winner" if unclear == len(best) else f"No winner in {unclear} of {len(best)} comparisons"
        return {"tone": "unclear", "text": text}
    winners = [model for model, compared in states.items() if set(compared) == {"wins"}]
    others = [model for model in states if model not in winners]
    but = f", but not by {' and '.join(others)}" if others else ""
    return {"tone": "wins", "text": f"Every floor is beaten by {' and '.join(winners)}{but}"}


def verdict(metrics: Json, *, caveat: str | None = None) -> list[str]:
    """The result in plain sentences, those against a tower first.

    Args:
        metrics: as metrics.json holds them.
        caveat: a sentence about where the log is from, which stands before what a tower wins.
    """
    sentences: dict[str, list[str]] = {"loses": [], "unclear": [], "wins": []}
    for model, by_protocol in metrics["against_best_floor"].items():
        for protocol, by_metric in by_protocol.items():
            told = None
            for metric in HEADLINES:
                result = state(by_metric[metric])
                if result not in ("none", told):  # the second metric is worth a sentence where it differs
                    told = result
                    sentences[told].append(_comparison(metrics, model, protocol, metric, told))
    return [
        *sentences["loses"],
        *sentences["unclear"],
        *([caveat] if caveat else []),
        *_ties(metrics),
        *_later_logs(metrics),
        *sentences["wins"],
        *_remarks(metrics),
    ]


def _comparison(metrics: Json, model: str, protocol: str, metric: str, result: State) -> str:
    comparison = metrics["against_best_floor"][model][protocol][metric]
    floor, name = comparison["floor"], METRIC_NAMES[metric]
    own: Leaf = metrics["models"][model][protocol]["all"][metric]
    other: Leaf = metrics["floors"][floor][protocol]["all"][metric]
    figures = (
        f"difference {signed(comparison['difference'])}, 95 % interval {signed(comparison['low'])} to "
        f"{signed(comparison['high'])}, n {own['n']:,}"
    )
    if result == "wins":
        beaten = f"{model} beats every floor in {protocol}"
        return f"{beaten}: {name} {plain(own['value'])} against {plain(other['value'])} of {floor} ({figures})."
    reached = f"{name} {plain(other['value'])} against {plain(own['value'])} of {model} ({figures})"
    if result == "loses":
        advice = " Do not ship this tower on these figures." if protocol == "discovery" else ""
        return f"A floor wins in {protocol}: {floor} reaches {reached}.{advice}"
    return (
        f"No winner in {protocol}: {floor} reaches {reached}, and the interval holds 0: these figures do not say that "
        f"{model} is better than a floor."
    )


def _ties(metrics: Json) -> list[str]:
    """That many examples share their moment with the listen before them, and what the order of ids would tell."""
    stood = metrics["as_it_stood"]
    shares, reached = [], []
    for protocol in PROTOCOLS if stood else ():
        floors = {name: of_protocol[protocol] for name, of_protocol in stood["floors"].items()}
        slices = next(iter(floors.values()))
        count, untied = (slices[name]["recall_at_10"]["n"] for name in ("all", "untied"))
        if not count or count - untied <= _MANY_TIES * count:
            continue
        models = {name: of_protocol[protocol] for name, of_protocol in stood["models"].items()}
        recalls = {name: of["all"]["recall_at_10"]["value"] for name, of in (models | floors).items()}
        best = max(floors, key=lambda name: recalls[name])
        of_models = " and ".join(f"{plain(recalls[name])} of {name}" for name in models)
        shares.append(f"{(count - untied) / count:.0%} of the examples of {protocol}")
        reached.append(f"{of_models} against {plain(recalls[best])} of {best} in {protocol}")
    if not shares:
        return []
    return [
        f"{' and '.join(shares)} stand at the same moment as the listen before them, in the order of their ids, which "
        "a model can learn: all figures leave that moment out of the history. With the history as it stood, Recall@10 "
        f"would be {', and '.join(reached)}."
    ]


def _later_logs(metrics: Json) -> list[str]:
    """That a tower is judged on a log that came after its own, and what its own validation said."""
    sentences = []
    for model, training in metrics["training"].items():
        if training["log"]["fingerprint"] == metrics["log"]["fingerprint"]:
            continue
        until_ms, begins_ms = training["trained_until_ms"], metrics["split"]["test_from_ms"]
        reached = metrics["models"][model]["discovery"]["all"]["ndcg_at_10"]["value"]
        sentences.append(
            f"{model} was trained on another log, until {day(until_ms)}, and this test begins "
            f"{(begins_ms - until_ms) / _DAY_MS:.1f} days after that: NDCG@10 in discovery is {plain(reached)}, where "
            f"its own validation had {plain(training['valid_ndcg_at_10'])}."
        )
    return sentences


def _remarks(metrics: Json) -> list[str]:
    split, floors = metrics["split"], metrics["floors"]
    slices = next(iter(floors.values()))["discovery"]
    count, new = slices["all"]["recall_at_10"]["n"], slices["new_tracks"]["recall_at_10"]["n"]
    remarks = []
    if not count:
        remarks.append("Discovery has no example: in this test everybody listens to what they listened to before.")
    if new:
        remarks.append(f"{new:,} of the {count:,} examples of discovery ask for tracks that nobody had in training.")
    if split["sampled"]:
        remarks.append(
            f"The test is a sample: {split['test_examples']:,} examples, all of {split['test_users']:,} users."
        )
    if split["test_users"] < FEWEST_USERS:
        remarks.append(f"The test has {split['test_users']} users: too few to tell who wins.")
    if "ease" not in floors:
        remarks.append(f"ease is no floor here: it is fitted for catalogues of up to {EASE_TRACKS:,} tracks.")
    return remarks
