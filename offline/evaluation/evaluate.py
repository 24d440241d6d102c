"""Evaluating user towers against the floors; reads top to bottom: what can be set, `run`, its steps.

Every example of the test part is ranked over the whole catalogue by every tower and every floor
(offline.evaluation.ranking),
and what came out is written as metrics.json and report.html.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
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
from models.user_tower import TOWER_MANIFEST, load_user_tower
from offline.evaluation.floors import EASE_TRACKS, fit_floors, rank_floor
from offline.evaluation.ranking import (
    FEWEST_USERS,
    MAX_EXAMPLES,
    PROTOCOLS,
    Bootstrap,
    Examples,
    Int64,
    Leaf,
    Measured,
    Ranked,
    against_best,
    draw_users,
    in_training,
    leaf,
    measure,
    rank,
)
from offline.evaluation.report import write_report
from offline.files import new_file, writing
from offline.interactions.log import InteractionLog, read_log
from offline.interactions.splits import Split, SplitName, split_log
from offline.progress import progress_bar
from offline.synth.platform import CAVEAT
from offline.synth.platform import CONFIG as TRUTH
from offline.user_tower.train import TowerTraining
from offline.user_tower.train import run as train
from offline.user_tower.windows import TowerScorer

Json = dict[str, Any]

POOLINGS = ("mean", "attention")
_HEADLINES = ("recall_at_10", "ndcg_at_10")
_MANY_TIES = 0.05  # of the examples
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

    max_examples: Annotated[int, Meta(ge=1)] = MAX_EXAMPLES
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
        SettingsError: the log cannot be used, the split leaves a part empty, a tower is of another log or split, or
            the folder cannot be written.
    """
    with writing(Path(config.out)):
        return _run(config)


def _run(config: Evaluate) -> Json:
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    log = read_log(config.log, rule=config.counting, scratch=out)
    split = split_log(log, config.split, test_share=config.test_share)
    towers = load_towers(config.towers or train_towers(config, log), config, log)
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
        "command": command(config),
        "versions": {name: version(name) for name in ("tastewave", "torch", "onnxruntime", "numpy")},
    }
    metrics["verdict"] = verdict(metrics, is_synthetic=is_synthetic(config.log))
    write(metrics, out)
    return metrics


def train_towers(config: Evaluate, log: InteractionLog) -> tuple[str, ...]:
    """Train both poolings with their defaults, where that is not done yet: the folders of the towers."""
    folders = []
    for pooling in POOLINGS:
        out = Path(config.out, "towers", pooling)
        training = TowerTraining(
            log=config.log, out=str(out), pooling=pooling, split=config.split, test_share=config.test_share,
            counting=config.counting,
        )  # fmt: skip
        if not _is_trained(out, training, log):
            train(training)
        folders.append(str(out))
    return tuple(folders)


def _is_trained(out: Path, training: TowerTraining, log: InteractionLog) -> bool:
    if not (out / TOWER_MANIFEST).exists():
        return False
    made = load_user_tower(out).manifest.training
    same_log = made["log"]["fingerprint"] == log.fingerprint
    return same_log and made["config"] == msgspec.json.decode(msgspec.json.encode(training))


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


def rank_all(
    judged: Judged, towers: Sequence[TowerScorer], split: Split, *, seed: int
) -> tuple[dict[str, dict[str, Measured]], Json, dict[str, dict[str, Measured]]]:
    """Measure the towers, their staleness, and the floors."""
    examples = judged.examples
    floor_count = 4 if len(judged.log.tracks) <= EASE_TRACKS else 3
    models: dict[str, dict[str, Measured]] = {}
    staleness: Json = {}
    floors: dict[str, dict[str, Measured]] = {}
    with progress_bar() as progress:
        of_tower = len(PROTOCOLS) + len(GAPS_MS) - 1
        total = len(examples.positions) * (len(towers) * of_tower + floor_count * len(PROTOCOLS))
        task = progress.add_task("", total=total)
        advance = partial(progress.advance, task)
        for tower in towers:
            progress.update(task, description=f"Ranking by {tower.name}")
            fresh = rank(tower, judged.log, examples, advance=advance)
            models[tower.name] = judged.measure(fresh)
            progress.update(task, description=f"Staleness of {tower.name}")
            staleness[tower.name] = stale(tower, judged, fresh["discovery"], advance=advance)
        progress.update(task, description="Fitting the floors")
        for floor in fit_floors(judged.log, split, seed=seed):
            name = floor["discovery"].name
            progress.update(task, description=f"Ranking by {name}")
            floors[name] = judged.measure(rank_floor(floor, judged.log, examples, advance=advance))
            progress.update(task, description="Fitting the floors")
    return models, staleness, floors


def stale(tower: TowerScorer, judged: Judged, fresh: Ranked, *, advance: Callable[[int], None]) -> Json:
    """recall_at_10 in discovery with embeddings that have not followed the user for a while.

    Args:
        tower: whose.
        judged: the test.
        fresh: what it ranks with embeddings that have followed the user up to the target.
        advance: told how much has been ranked since it was told last.
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


def command(config: Evaluate) -> str:
    """What makes the same report again."""
    words = ["tastewave-offline", "evaluate", config.log, config.out, "--split", config.split]
    for tower in config.towers:
        words += ["--tower", tower]
    return shlex.join([*words, *_changed(config)])


def _changed(settings: msgspec.Struct, outer: str = "") -> Iterator[str]:
    """KEY=VALUE of what is not as it is by default, and has no option of its own."""
    for field in msgspec.structs.fields(settings):
        name, value = field.encode_name, getattr(settings, field.name)
        if isinstance(value, msgspec.Struct):
            yield from _changed(value, f"{outer}{name}.")
        elif not field.required and value != field.default and name not in ("towers", "split"):
            yield f"{outer}{name}={value}"


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
    return [*lost, *unclear, *made_up, *_ties(metrics), *won, *_remarks(metrics)]


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


def _ties(metrics: Json) -> list[str]:
    """What the order of ids within a moment may have told, where many examples are of one."""
    said = []
    for protocol in PROTOCOLS:
        floors = {name: found[protocol] for name, found in metrics["floors"].items()}
        slices = next(iter(floors.values()))
        count, untied = (slices[name]["recall_at_10"]["n"] for name in ("all", "untied"))
        if not count or count - untied <= _MANY_TIES * count:
            continue
        sentence = (
            f"{(count - untied) / count:.0%} of the examples of {protocol} stand at the same moment as the listen "
            "before them, in the order of their ids, which a model can learn"
        )
        if untied:
            of = {name: found[protocol] for name, found in metrics["models"].items()} | floors
            recalls = {name: found["untied"]["recall_at_10"]["value"] for name, found in of.items()}
            best = max(floors, key=lambda name: recalls[name])
            reached = " and ".join(f"{plain(recalls[name])} of {name}" for name in metrics["models"])
            sentence += f": without them, Recall@10 is {reached} against {plain(recalls[best])} of {best}"
        said.append(sentence + ".")
    return said


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


def plain(value: float | None) -> str:
    """A share with three decimals: .083."""
    return "none" if value is None else f"{value:.3f}".removeprefix("0")


def signed(value: float) -> str:
    """A difference with its sign: +.008."""
    return f"{value:+.3f}".replace("0.", ".", 1)


def write(metrics: Json, out: Path) -> None:
    """Write metrics.json and report.html into a folder; neither is ever there in part."""
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
