"""`tastewave-offline evaluate`: user towers against the floors.

Every example of the test part is ranked over the whole catalogue by every tower and every floor (offline.ranking).
The result is written as metrics.json and report.html.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich import box
from rich.table import Table

from models.history import IS_TARGET
from offline.evaluation.floors import EASE_TRACKS, fit_floors, rank_floor
from offline.evaluation.intervals import Bootstrap, Leaf
from offline.evaluation.measures import Judged, Measured, against_best
from offline.evaluation.report import write_report
from offline.evaluation.scorers import TowerScorer, load_towers
from offline.evaluation.settings import Evaluate
from offline.evaluation.staleness import GAPS, stale
from offline.evaluation.verdict import HEADLINES, METRIC_NAMES, plain, verdict
from offline.files import locked, new_file, write_json, writing
from offline.interactions.log import InteractionLog, read_log
from offline.interactions.splits import Split, in_training, split_log
from offline.progress import progress_bar
from offline.ranking.examples import PROTOCOLS, Examples, draw_users
from offline.ranking.rank import rank
from offline.tables import table_lines
from offline.user_tower.settings import POOLINGS

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An evaluation.

    Attributes:
        out: folder of metrics.json and report.html.
        metrics: what metrics.json holds.
    """

    out: Path
    metrics: Json

    def lines(self) -> list[str]:
        """What the command prints."""
        return [*table_lines(summary(self.metrics)), *self.metrics["verdict"], "", str(self.out / "report.html")]


def run(settings: Evaluate) -> Outcome:
    """Evaluate, and write out/metrics.json and out/report.html.

    Raises:
        SettingsError: the log cannot be used, the split leaves a part empty, a tower is of another log or split, or
            the folder cannot be written.
        ReleaseError: a folder is not that of a trained tower.
    """
    out = Path(settings.out)
    with writing(out), locked(out):
        metrics = judge(settings, scratch=out)
        write(metrics, out)
    return Outcome(out=out, metrics=metrics)


def judge(settings: Evaluate, *, scratch: Path) -> Json:
    """What metrics.json holds.

    Args:
        settings: of the evaluation.
        scratch: folder of the log's arrays while they are in use.

    Raises:
        SettingsError, ReleaseError: as for run.
    """
    log = read_log(settings.log, rule=settings.counting, scratch=scratch, forgotten=settings.forgotten)
    split = split_log(log, settings.split, test_share=settings.test_share)
    folders = settings.towers or tuple(str(settings.towers_folder / pooling) for pooling in POOLINGS)
    towers = load_towers(folders, split=settings.split, test_share=settings.test_share, log=log)
    positions = draw_users(log, split.test, most=settings.max_examples, seed=settings.seed)
    examples = Examples.of(log, split, positions)
    bootstrap = Bootstrap(examples.users, replicates=settings.replicates, seed=settings.seed)
    judged = Judged(log=log, examples=examples, bootstrap=bootstrap)
    models, staleness, floors = rank_all(judged, towers, split, seed=settings.seed)
    metrics: Json = {
        "log": describe_log(log),
        "split": describe_split(log, split, examples),
        "models": {name: {p: part.leaves for p, part in measured.items()} for name, measured in models.items()},
        "floors": {name: {p: part.leaves for p, part in measured.items()} for name, measured in floors.items()},
        "against_best_floor": {
            name: {
                protocol: against_best(measured[protocol], {floor: parts[protocol] for floor, parts in floors.items()})
                for protocol in PROTOCOLS
            }
            for name, measured in models.items()
        },
        "staleness": staleness,
        "training": {tower.name: tower.training for tower in towers},
        "config": msgspec.to_builtins(settings),
        "command": command(settings),
        "versions": {name: version(name) for name in ("tastewave", "torch", "onnxruntime", "numpy")},
    }
    metrics["verdict"] = verdict(metrics, caveat=platform_caveat(settings.log))
    return metrics


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
        of_tower = len(PROTOCOLS) + len(GAPS) - 1
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


def command(settings: Evaluate) -> str:
    """What makes the same report again."""
    words = ["tastewave-offline", "evaluate", settings.log, settings.out, "--split", settings.split]
    for tower in settings.towers:
        words += ["--tower", tower]
    return shlex.join([*words, *_changed(settings)])


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


class _Platform(msgspec.Struct):
    """Of truth/config.json, which `tastewave-offline synth platform` writes, what an evaluation repeats."""

    caveat: str


def platform_caveat(where: str) -> str | None:
    """What the maker of a made-up platform says about figures measured on it; None for any other log.

    Args:
        where: the log: the platform's folder, its folder of listens, or files of that.
    """
    path = Path(where)
    for folder in (path, *list(path.parents)[:2]):
        try:
            return msgspec.json.decode((folder / "truth" / "config.json").read_bytes(), type=_Platform).caveat
        except (OSError, msgspec.DecodeError):  # there is none, or somebody else's
            continue
    return None


def write(metrics: Json, out: Path) -> None:
    """Write metrics.json and report.html into a folder; neither is ever there in part."""
    with new_file(out / "metrics.json") as data, new_file(out / "report.html") as page:
        write_json(data, metrics)
        write_report(metrics, page)


def summary(metrics: Json) -> Table:
    """Towers and floors, the 95 % interval below each figure."""
    table = Table("", *(f"{protocol}\n{METRIC_NAMES[metric]}" for protocol in PROTOCOLS for metric in HEADLINES),
                  box=box.SIMPLE_HEAD)  # fmt: skip
    for kind, style in (("models", "bold"), ("floors", "")):
        for name, by_protocol in metrics[kind].items():
            leaves = [by_protocol[protocol]["all"][metric] for protocol in PROTOCOLS for metric in HEADLINES]
            table.add_row(name, *map(_with_interval, leaves), style=style)
    return table


def _with_interval(figure: Leaf) -> str:
    if figure["value"] is None:
        return "no example"
    return f"{plain(figure['value'])}\n[not bold dim]{plain(figure['low'])} to {plain(figure['high'])}"
