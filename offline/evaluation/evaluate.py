"""`tastewave-offline evaluate`: user towers against the floors.

Every example of the test part is ranked over the whole catalogue by every tower and every floor (offline.ranking).
The result is written as metrics.json and report.html.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich import box
from rich.table import Table

from models.errors import SettingsError
from models.history import IS_TARGET
from offline.evaluation.drift import drift
from offline.evaluation.measures import Judged
from offline.evaluation.report import write_report
from offline.evaluation.results import measure_all
from offline.evaluation.scorers import load_towers
from offline.evaluation.settings import Evaluate
from offline.evaluation.verdict import HEADLINES, METRIC_NAMES, verdict
from offline.features.held_out import HeldOut, Part, read_held_out
from offline.files import locked, new_file, write_json, writing
from offline.interactions.log import InteractionLog, read_log
from offline.interactions.made_up import platform_caveat
from offline.interactions.splits import Split, in_training, split_log
from offline.pages.figures import plain
from offline.ranking.examples import PROTOCOLS, Examples, draw_users
from offline.ranking.intervals import Bootstrap, Leaf
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
    held_out = read_held_out(settings.held_out) if settings.held_out else None
    if held_out:
        split = _without(held_out, log, split)
    folders = settings.towers or tuple(str(settings.towers_folder / pooling) for pooling in POOLINGS)
    towers = load_towers(folders, split=split, test_share=settings.test_share, log=log, held_out=held_out)
    positions = draw_users(log, split.test, most=settings.max_examples, seed=settings.seed)
    bootstrap = Bootstrap(log.user_of(positions), replicates=settings.replicates, seed=settings.seed)
    judged = Judged.of(log, split, positions, bootstrap=bootstrap)
    results = measure_all(judged, towers, seed=settings.seed)
    metrics: Json = {
        "log": describe_log(log),
        "split": describe_split(log, split, judged.examples),
        **results.compared("before_moment"),
        "as_it_stood": results.compared("as_it_stood") if judged.stood else None,
        "floor_settings": results.floor_settings,
        "staleness": results.staleness,
        "drift": drift(judged, towers, results.fresh),
        "training": {tower.name: tower.training for tower in towers},
        "config": msgspec.to_builtins(settings),
        "command": command(settings),
        "versions": {name: version(name) for name in ("tastewave", "torch", "onnxruntime", "numpy")},
    }
    metrics["verdict"] = verdict(metrics, caveat=platform_caveat(settings.log))
    return metrics


def _without(held_out: HeldOut, log: InteractionLog, split: Split) -> Split:
    """A split whose test does not ask for tracks that are held out."""
    test = split.test[held_out.parts(log.tracks)[log.track[split.test]] == Part.TRAIN]
    if not len(test):
        raise SettingsError(
            f"the test part of {log.where} asks for tracks of {held_out.where} alone; hold out fewer, or take a "
            "longer log"
        )
    return replace(split, test=test)


def command(settings: Evaluate) -> str:
    """What makes the same report again."""
    words = ["tastewave-offline", "evaluate", settings.log, settings.out, "--split", settings.split]
    for tower in settings.towers:
        words += ["--tower", tower]
    return shlex.join([*words, *_changed(settings)])


def _changed(settings: msgspec.Struct, outer: str = "") -> Iterator[str]:
    """KEY=VALUE of what is not as it is by default, and has no option of its own."""
    for part in msgspec.structs.fields(settings):
        name, value = part.encode_name, getattr(settings, part.name)
        if isinstance(value, msgspec.Struct):
            yield from _changed(value, f"{outer}{name}.")
        elif not part.required and value != part.default and name not in ("towers", "split"):
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
