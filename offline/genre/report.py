"""The report of a genre head: its figures as one page that fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.artists import ARTIST_EMBEDDING
from models.features import EMBEDDING
from offline.genre.machine import Float64, Labels
from offline.genre.train import Features
from offline.pages.charts import Json, lines
from offline.pages.figures import plain
from offline.pages.page import finite, render_page

_SPACES = {
    EMBEDDING: "taste space, by the audio encoder",
    ARTIST_EMBEDDING: "taste space, by the listeners of artists",
}
_MOST_POINTS = 4_000
_SHARES = [(0.0, "0"), (0.25, ".25"), (0.5, ".5"), (0.75, ".75"), (1.0, "1")]
_NAMES = {"ece": "expected calibration error", "log_loss": "log loss, nats", "accuracy_answered": "accuracy of answers"}


class TrackMap(NamedTuple):
    """Tracks on a plane: the two directions in which they differ most.

    Attributes:
        space: what it is a map of.
        explained: share of all variance that the two directions have.
        points: (tracks, 2), each column from 0 to 1.
        genres: (tracks,) class numbers; of several labels, the first.
        left_out: tracks that are not shown.
    """

    space: str
    explained: float
    points: Float64
    genres: NDArray[np.int64]
    left_out: int


def map_tracks(tracks: Sequence[Features], labels: Labels, heard: Float64, *, seed: int) -> TrackMap:
    """A map of taste space, or, where no track has a place in one, of what the head hears.

    Args:
        tracks: what is known of each.
        labels: as offline.genre.train.train takes them.
        heard: (tracks, columns) what the head hears of each; columns that are not known are NaN.
        seed: draws the tracks that are shown, of more than some thousand.
    """
    genres = labels.argmax(axis=1) if labels.ndim == 2 else labels
    space, placed, places = _places(tracks, heard)
    shown = np.sort(np.random.default_rng(seed).permutation(len(placed))[:_MOST_POINTS])
    centred = places - places.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    plane = centred[shown] @ directions[:2].T
    low, high = plane.min(axis=0), plane.max(axis=0)
    variances = np.square(sizes)
    return TrackMap(
        space=space,
        explained=float(variances[:2].sum() / max(variances.sum(), 1e-12)),
        points=(plane - low) / np.maximum(high - low, 1e-12),
        genres=genres[placed[shown]],
        left_out=len(tracks) - len(shown),
    )


def _places(tracks: Sequence[Features], heard: Float64) -> tuple[str, NDArray[np.int64], Float64]:
    """The name of a space, the tracks that have a place in it, and their places."""
    for feature, space in _SPACES.items():
        placed = [number for number, track in enumerate(tracks) if feature in track]
        if len(placed) > 2:
            places = np.stack([tracks[number][feature] for number in placed])
            return space, np.array(placed), places.astype(np.float64)
    known = heard[:, np.isfinite(heard).all(axis=0)]
    standardised = (known - known.mean(axis=0)) / np.maximum(known.std(axis=0), 1e-12)
    return "what the head hears, standardised", np.arange(len(tracks)), standardised


def write_report(figures: Json, tracks: TrackMap, path: Path, *, training: Json) -> None:
    """Write the page.

    Args:
        figures: as metrics.json of a trained head holds them.
        tracks: the map of the tracks that it was trained on.
        path: of the page.
        training: what the head's manifest says of its training.
    """
    path.write_text(render(finite(figures), tracks, training=training), encoding="utf-8")


def render(figures: Json, tracks: TrackMap, *, training: Json) -> str:
    """The page as HTML; arguments as those of write_report."""
    return render_page(
        "offline.genre",
        headline=_headline(figures["metrics"]),
        heads=[("The head", figures), *([("The plain head", figures["plain"])] if "plain" in figures else [])],
        reliability=_reliability,
        risk_coverage=_risk_coverage,
        confusion=_confusion,
        map=_map(tracks, list(training["config"]["classes"])),
        training=training,
        names=_NAMES,
    )


def _headline(metrics: Json) -> str:
    if "accuracy" in metrics:
        return (
            f"{plain(metrics['accuracy'])} of the best guesses are right; the head answers "
            f"{plain(metrics['answered'])} of the tracks, and {plain(metrics['accuracy_answered'])} of these answers "
            "are right"
        )
    return (
        f"The head answers {plain(metrics['answered'])} of the tracks with a label; {plain(metrics['precision'])} of "
        f"the labels are right, and {plain(metrics['recall'])} of those that tracks have are found"
    )


def _reliability(figures: Json) -> Json:
    """How often guesses of about one probability are right: on the line, as often as they say."""
    points = [
        {"x": said, "value": right, "low": low, "high": high} for said, right, low, high, _ in figures["reliability"]
    ]
    ideal = [{"x": 0.0, "value": 0.0}, {"x": 1.0, "value": 1.0}]
    series = [
        {"name": "as often as they say", "style": "ideal", "points": ideal},
        {"name": "right, with 95 % interval", "style": "model", "points": points},
    ]
    title = f"Reliability: expected calibration error {plain(figures['metrics']['ece'])}"
    return lines(title, series, x_ticks=_SHARES, mark=None, y=[0.0, 1.0])


def _risk_coverage(figures: Json) -> Json:
    """The share of wrong answers, as the least confidence falls and more is answered."""
    points = [{"x": coverage, "value": risk} for coverage, risk in figures["risk_coverage"]]
    metrics = figures["metrics"]
    risk = 1.0 - metrics["accuracy_answered"]
    mark = {"x": metrics["answered"], "text": f"chosen: {plain(metrics['answered'])} answered, {plain(risk)} wrong"}
    title = "Risk and coverage: what is wrong of the answers"
    series = [{"name": "wrong", "style": "curve", "points": points}]
    return lines(title, series, x_ticks=_SHARES, mark=mark, y=[0.0])


def _confusion(figures: Json) -> list[tuple[str, list[tuple[float, int]]]]:
    """Of each genre, the shares of its tracks that the best guesses are, and how many guesses that is."""
    rows = list[tuple[str, list[tuple[float, int]]]]()
    for name, counts in zip(figures["classes"], figures["confusion"], strict=True):
        total = max(1, sum(counts))
        rows.append((name, [(count / total, count) for count in counts]))
    return rows


def _map(tracks: TrackMap, classes: list[str]) -> Json:
    """The points by genre, as percentages of the width and pixels of the height, each genre with its colour."""
    of_genre: list[Json] = []
    for number, name in enumerate(classes):
        mine = tracks.points[tracks.genres == number]
        if len(mine):
            places = [(2 + 96 * x, 12 + 396 * (1 - y)) for x, y in mine.tolist()]
            of_genre.append({"name": name, "hue": round(360 * number / len(classes)), "places": places})
    return {"genres": of_genre, "space": tracks.space, "explained": tracks.explained, "left_out": tracks.left_out}
