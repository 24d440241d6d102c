"""The report of an audio encoder: whom it finds for tracks that it never heard, as one page that fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from offline.audio_encoder.retrieval import Retrieval
from offline.pages.charts import Json, curve, dots
from offline.pages.figures import plain
from offline.pages.page import render_page

_NAMES = {
    "encoder": "the encoder",
    "popularity": "popularity",
    "random": "an untrained network",
    "permuted": "exchanged sounds",
}
_FIGURES = {
    "auc": "AUC",
    "track_recall_at_10": "listeners, recall@10",
    "recall_at_10": "tracks, recall@10",
    "ndcg_at_10": "tracks, NDCG@10",
}
_CHANCE = 0.5


def write_report(metrics: Mapping[str, Retrieval], path: Path, *, name: str, training: Json) -> None:
    """Write the page.

    Args:
        metrics: as metrics.json beside the encoder holds them.
        path: of the page.
        name: of the encoder.
        training: what the encoder's manifest says of its training.
    """
    path.write_text(render(msgspec.to_builtins(metrics), name=name, training=training), encoding="utf-8")


def render(metrics: Json, *, name: str, training: Json) -> str:
    """The page as HTML; arguments as those of write_report."""
    tone, of_listeners = _compared(metrics, "auc")
    _, of_tracks = _compared(metrics, "recall_at_10")
    auc, course = metrics["encoder"]["auc"]["value"], training["course"]
    return render_page(
        "offline.audio_encoder",
        tone=tone,
        headline=f"It finds listeners of unheard tracks {of_listeners}: AUC {plain(auc)}",
        of_tracks=of_tracks,
        name=name,
        names=_NAMES,
        figures=_FIGURES,
        metrics=metrics,
        charts=[_chart(metrics, figure, bar=_CHANCE if figure == "auc" else None) for figure in _FIGURES],
        courses=[
            curve(title, [(point["step"], point[key]) for point in course], chosen=training["best_step"])
            for title, key in (("AUC on the tracks that choose the step", "valid_auc"), ("Loss", "loss"))
        ],
        training=training,
    )


def _compared(metrics: Json, figure: str) -> tuple[str, str]:
    """The tone of a page on which the encoder stands so beside the best of the others, and how it stands in words."""
    mine, others = metrics["encoder"][figure], {name: row[figure] for name, row in metrics.items() if name != "encoder"}
    best = max(others, key=lambda name: others[name]["value"])
    other = f"{_NAMES[best]} ({plain(others[best]['value'])})"
    if mine["low"] > max(floor["high"] for floor in others.values()):
        return "wins", f"better than {other}"
    if mine["high"] < others[best]["low"]:
        return "loses", f"worse than {other}"
    return "unclear", f"not surely better than {other}"


def _chart(metrics: Json, figure: str, *, bar: float | None) -> Json:
    """A figure of all that rank, with its intervals."""
    rows: list[dict[str, Any]] = [
        {"name": _NAMES[name], "kind": "model" if name == "encoder" else "floor", **row[figure]}
        for name, row in metrics.items()
    ]
    return dots(_FIGURES[figure], rows, bar=bar, write=plain)
