"""Evaluating user towers against the floors; reads top to bottom: what can be set, `run`, its steps.

Every example of the test part is ranked over the whole catalogue by every tower and every floor (offline.ranking),
and what came out is written as metrics.json and report.html.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from rich import box
from rich.table import Table

from models.errors import SettingsError
from models.history import IS_TARGET, CountingRule
from offline.files import new_file
from offline.floors import EASE_TRACKS, fit_floors
from offline.interaction_log import InteractionLog, read_log
from offline.progress import progress_bar
from offline.ranking import (
    PROTOCOLS,
    Bootstrap,
    Examples,
    Int64,
    Leaf,
    Measured,
    Ranked,
    Scorer,
    against_best,
    in_training,
    leaf,
    measure,
    rank,
)
from offline.report import write_report
from offline.splits import Split, SplitName, split_log
from offline.synth_platform import CAVEAT
from offline.synth_platform import CONFIG as TRUTH
from offline.tower_data import TowerScorer
from offline.tower_training import TowerTraining
from offline.tower_training import run as train

Json = dict[str, Any]

POOLINGS = ("mean", "attention")
_HEADLINES = ("recall_at_10", "ndcg_at_10")
GAPS_MS = (0, 3_600_000, 86_400_000, 604_800_000)
"""How old the embedding is, of which staleness is told."""


class Evaluate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be set."""

    log: str
    """The interaction log: a Parquet file, a folder of them, a glob, or an fsspec URL of one of these."""

    out: str
    """Folder of metrics.json and report.html; made where missing."""

    towers: tuple[str, ...] = ()
    """Folders of trained towers; when none is given, both poolings are trained with their defaults into out/towers."""

    split: SplitName = "temporal"
    """temporal or leave-last; towers have to be trained on the same."""

    test_share: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.1
    """Share of the log's time that is judged (temporal)."""

    counting: CountingRule = CountingRule()
    """Which listens count, and for what."""

    max_examples: Annotated[int, Meta(ge=1)] = 50_000
    """Where the test has more, users are drawn until their examples are about as many."""

    replicates: Annotated[int, Meta(ge=100)] = 1000
    """Of the bootstrap that gives the intervals."""

    seed: Annotated[int, Meta(ge=0)] = 0
    """Draws users and replicates."""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What the test part asks of every scorer.

    Attributes:
        log, examples: what is ranked.
        bootstrap: of the users of the examples.
    """

    log: InteractionLog
    examples: Examples
    bootstrap: Bootstrap

    def measure(self, ranked: dict[str, Ranked]) -> dict[str, Measured]:
        """Metrics of a scorer by protocol."""
        return {
            protocol: measure(
                ranked[protocol], self.examples, protocol, bootstrap=self.bootstrap, catalogue=len(self.log.tracks)
            )
            for protocol in PROTOCOLS
        }


def run(config: Evaluate) -> Json:
    """Evaluate, write out/metrics.json and out/report.html, and give what metrics.json holds.

    Raises:
        SettingsError: the log cannot be used, the split leaves a part empty, or a tower is of another log or split.
    """
    log = read_log(config.log, rule=config.counting)
    split = split_log(log, config.split, test_share=config.test_share)
    towers = load_towers(config.towers or train_towers(config), config, log)
    positions = draw_users(log, split.test, most=config.max_examples, seed=config.seed)
    examples = Examples.of(log, split, positions)
    bootstrap = Bootstrap(examples.users, replicates=config.replicates, seed=config.seed)
    judged = Judged(log=log, examples=examples, bootstrap=bootstrap)
    models, staleness, floors = rank_all(judged, towers, split, seed=config.seed)
    metrics: Json = {
        "log": describe_log(log),
        "split": describe_split(log, split, examples),
        "models": {name: {p: part.leaves for p, part in found.items()} for name, found in models.items()},
        "floors": {name: {p: part.leaves for p, part in found.items()} for name, found in floors.items()},
        "against_best_floor": {
            name: {
                protocol: against_best(found[protocol], {floor: parts[protocol] for floor, parts in floors.items()})
                for protocol in PROTOCOLS
            }
            for name, found in models.items()
        },
        "staleness": staleness,
        "training": {tower.name: tower.training for tower in towers},
        "config": msgspec.to_builtins(config),
        "versions": {name: version(name) for name in ("tastewave", "torch", "onnxruntime", "numpy")},
    }
    metrics["verdict"] = verdict(metrics, is_synthetic=is_synthetic(config.log))
    write(metrics, Path(config.out))
    return metrics


def train_towers(config: Evaluate) -> tuple[str, ...]:
    """Train both poolings with their defaults: the folders of the towers."""
    folders = tuple(str(Path(config.out, "towers", pooling)) for pooling in POOLINGS)
    for pooling, folder in zip(POOLINGS, folders, strict=True):
        train(
            TowerTraining(
                log=config.log, out=folder, pooling=pooling, split=config.split, test_share=config.test_share,
                counting=config.counting,
            )
        )  # fmt: skip
    return folders


def load_towers(folders: Sequence[str], config: Evaluate, log: InteractionLog) -> list[TowerScorer]:
    """The towers, each of which has never seen the test.

    Raises:
        SettingsError: a tower is of another log or split, or two have one name.
    """
    towers: dict[str, TowerScorer] = {}
    for folder in folders:
        tower = TowerScorer(Path(folder))
        made = tower.training
        for what, own, ours in (
            ("split", made["split"], config.split),
            ("test_share", made["test_share"], config.test_share if config.split == "temporal" else made["test_share"]),
            ("log", made["log"]["fingerprint"], log.fingerprint),
        ):
            if own != ours:
                raise SettingsError(
                    f"the tower in {folder} was trained on the {what} {own}, not {ours}, and may have seen the test; "
                    f"train it anew on this {what}, or evaluate on its own"
                )
        if tower.name in towers:
            raise SettingsError(f"{folder} is a second tower that is called {tower.name}; evaluate one at a time")
        towers[tower.name] = tower
    return list(towers.values())


def draw_users(log: InteractionLog, positions: Int64, *, most: int, seed: int) -> Int64:
    """All test examples, or those of users drawn at random: at least one user, as many as `most` examples allow."""
    if len(positions) <= most:
        return positions
    users, counts = np.unique(log.user_of(positions), return_counts=True)
    order = np.random.default_rng(seed).permutation(len(users))
    kept = max(1, int(np.searchsorted(np.cumsum(counts[order]), most, side="right")))
    return positions[np.isin(log.user_of(positions), users[order[:kept]])]


def rank_all(
    judged: Judged, towers: Sequence[TowerScorer], split: Split, *, seed: int
) -> tuple[dict[str, dict[str, Measured]], Json, dict[str, dict[str, Measured]]]:
    """Measure the towers, their staleness, and the floors."""
    floor_count = 4 if len(judged.log.tracks) <= EASE_TRACKS else 3
    models: dict[str, dict[str, Measured]] = {}
    staleness: Json = {}
    floors: dict[str, dict[str, Measured]] = {}
    with progress_bar() as progress:
        total = len(judged.examples.positions) * (len(towers) * len(GAPS_MS) + floor_count)
        task = progress.add_task("", total=total)
        advance = partial(progress.advance, task)

        def ranked(scorer: Scorer) -> dict[str, Ranked]:
            progress.update(task, description=f"Ranking by {scorer.name}")
            return rank(scorer, judged.log, judged.examples, advance=advance)

        for tower in towers:
            fresh = ranked(tower)
            models[tower.name] = judged.measure(fresh)
            progress.update(task, description=f"Staleness of {tower.name}")
            staleness[tower.name] = stale(tower, judged, fresh["discovery"], advance=advance)
        progress.update(task, description="Fitting the floors")
        for floor in fit_floors(judged.log, split, seed=seed):
            floors[floor.name] = judged.measure(ranked(floor))
            progress.update(task, description="Fitting the floors")
    return models, staleness, floors


def stale(tower: TowerScorer, judged: Judged, fresh: Ranked, *, advance: Callable[[int], None]) -> Json:
    """recall_at_10 in discovery with embeddings that have not followed the user for a while.

    Args:
        tower: whose.
        judged: the test.
        fresh: what it ranks with embeddings that have followed the user up to the target.
        advance: told how many examples have been ranked since it was told last.
    """
    examples, found = judged.examples, {}
    counted = examples.slices("discovery")["all"]
    for gap_ms in GAPS_MS:
        ends = history_ends(judged.log, examples, gap_ms=gap_ms)
        ranked = {"discovery": fresh}
        if gap_ms:
            ranked = rank(tower, judged.log, examples, ends=ends, protocols=("discovery",), advance=advance)
        hits, moved = ranked["discovery"].values()[:, :1], ends < examples.positions
        slices = {"all": counted, "with_listens": counted & moved, "without_listens": counted & ~moved}
        replicates = judged.bootstrap.means(hits, slices)
        found[str(gap_ms)] = {
            name: leaf(
                float(hits[mask].mean()) if mask.any() else np.nan, n=int(mask.sum()), replicates=replicates[name][:, 0]
            )
            for name, mask in slices.items()
        }
    return found


def history_ends(log: InteractionLog, examples: Examples, *, gap_ms: int) -> Int64:
    """(n,) where histories end that lack what happened in the gap before the target; all of it stays for a gap of 0."""
    if not gap_ms:
        return examples.positions
    starts = log.offsets[examples.users]
    until = log.at[examples.positions] - gap_ms
    spans = zip(starts, examples.positions, until, strict=True)
    return starts + np.array([np.searchsorted(log.at[a:b], t, side="right") for a, b, t in spans], np.int64)


def describe_log(log: InteractionLog) -> Json:
    """The log in figures."""
    return {
        "where": log.where,
        "fingerprint": log.fingerprint,
        "users": len(log.users),
        "tracks": len(log.tracks),
        "listens": len(log.track),
        "targets": int(IS_TARGET[log.signal].sum()),
        "from_ms": int(log.at.min()),
        "to_ms": int(log.at.max()),
    }


def describe_split(log: InteractionLog, split: Split, examples: Examples) -> Json:
    """The split in words and figures; test figures are those of the examples that were ranked."""
    return {
        "name": split.name,
        "text": split.text,
        "train_listens": int(in_training(log, split).sum()),
        "valid_examples": len(split.valid),
        "test_examples": len(examples.positions),
        "test_users": len(np.unique(examples.users)),
        "test_from_ms": split.test_from_ms,
        "sampled": len(examples.positions) < len(split.test),
    }


def is_synthetic(where: str) -> bool:
    """Whether a log is one that `tastewave-offline synth platform` wrote."""
    path = Path(where)
    return any((folder / TRUTH).is_file() for folder in (path, *list(path.parents)[:2]))


def verdict(metrics: Json, *, is_synthetic: bool) -> list[str]:
    """What came out in plain sentences: what speaks against a tower first."""
    lost, unclear, won = [], [], []
    for name, of_protocol in metrics["against_best_floor"].items():
        for protocol, of_metric in of_protocol.items():
            state = None
            for metric in _HEADLINES:
                if of_metric[metric]["difference"] is None:
                    continue
                before, state = state, _state(of_metric[metric])
                if state != before:  # the second metric is told of where it says something else
                    sentence = _comparison(metrics, name, protocol, metric, state)
                    {"lost": lost, "unclear": unclear, "won": won}[state].append(sentence)
    made_up = [CAVEAT] if is_synthetic else []
    return [*lost, *unclear, *made_up, *won, *_remarks(metrics)]


def _state(found: Json) -> str:
    return "won" if found["low"] > 0 else "lost" if found["high"] < 0 else "unclear"


def _comparison(metrics: Json, name: str, protocol: str, metric: str, state: str) -> str:
    found = metrics["against_best_floor"][name][protocol][metric]
    floor, shown = found["floor"], _shown(metric)
    own: Leaf = metrics["models"][name][protocol]["all"][metric]
    other: Leaf = metrics["floors"][floor][protocol]["all"][metric]
    figures = (
        f"difference {signed(found['difference'])}, 95 % interval {signed(found['low'])} to {signed(found['high'])}, "
        f"n {own['n']:,}"
    )
    if state == "won":
        beaten = f"{name} beats every floor in {protocol}"
        return f"{beaten}: {shown} {plain(own['value'])} against {plain(other['value'])} of {floor} ({figures})."
    reached = f"{shown} {plain(other['value'])} against {plain(own['value'])} of {name} ({figures})"
    if state == "lost":
        advice = " Do not ship this tower on these figures." if protocol == "discovery" else ""
        return f"A floor wins in {protocol}: {floor} reaches {reached}.{advice}"
    return (
        f"No winner in {protocol}: {floor} reaches {reached}, and the interval holds 0: these figures do not say that "
        f"{name} is better than a floor."
    )


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
    if "ease" not in floors:
        remarks.append(f"ease is no floor here: it is fitted for catalogues of up to {EASE_TRACKS:,} tracks.")
    return remarks


def plain(value: float | None) -> str:
    """A share with three decimals: .083."""
    return "none" if value is None else f"{value:.3f}".removeprefix("0")


def signed(value: float) -> str:
    """A difference with its sign: +.008."""
    return f"{value:+.3f}".replace("0.", ".", 1)


def write(metrics: Json, out: Path) -> None:
    """Write metrics.json and report.html into a folder; neither is ever there in part."""
    out.mkdir(parents=True, exist_ok=True)
    with new_file(out / "metrics.json") as data, new_file(out / "report.html") as page:
        data.write_bytes(msgspec.json.format(msgspec.json.encode(metrics), indent=2) + b"\n")
        write_report(metrics, page)


def summary(metrics: Json) -> Table:
    """Towers and floors, the 95 % interval below each figure."""
    table = Table("", *(f"{protocol}\n{_shown(metric)}" for protocol in PROTOCOLS for metric in _HEADLINES),
                  box=box.SIMPLE_HEAD)  # fmt: skip
    for kind, style in (("models", "bold"), ("floors", "")):
        for name, found in metrics[kind].items():
            leaves = [found[protocol]["all"][metric] for protocol in PROTOCOLS for metric in _HEADLINES]
            table.add_row(name, *map(_with_interval, leaves), style=style)
    return table


def _shown(metric: str) -> str:
    return metric.replace("_at_", "@").replace("recall", "Recall").replace("ndcg", "NDCG")


def _with_interval(found: Leaf) -> str:
    if found["value"] is None:
        return "no example"
    return f"{plain(found['value'])}\n[not bold dim]{plain(found['low'])} to {plain(found['high'])}"
