"""`tastewave tag --plot`: a taggram as a picture of which tags are heard when."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import IO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator
from numpy.typing import NDArray

from models.mel import MUSICNN, PATCH_FRAMES
from stream.commands.tables import length

_ROWS = 12
_TITLE_CHARACTERS = 80
_TICK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)
_MOST_TICKS = 12


def draw_taggram(
    out: IO[bytes],
    taggram: NDArray[np.float32],
    *,
    tags: Sequence[str],
    column_s: float,
    title: str,
    subtitle: str,
) -> None:
    """Draw the 12 tags with the highest means over time, the highest on top, as a PNG.

    Args:
        out: an open binary file.
        taggram: (patches, tags), 0 to 1.
        tags: names of its columns.
        column_s: seconds from the start of one patch to the start of the next.
        title: the picture's title; a long one loses its middle.
        subtitle: a line under the title.
    """
    best = np.argsort(-taggram.mean(axis=0), kind="stable")[:_ROWS]
    patch_s = PATCH_FRAMES * MUSICNN.hop_length / MUSICNN.sample_rate
    start_s = (patch_s - column_s) / 2  # a patch is drawn at its middle
    end_s = start_s + column_s * len(taggram)
    figure = Figure(figsize=(12, 5.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(
        taggram[:, best].T,
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        vmin=0.0,
        vmax=max(0.1, float(taggram.max())),
        extent=(start_s, end_s, len(best) - 0.5, -0.5),
    )
    axes.set_yticks(range(len(best)), [str(tags[tag]) for tag in best], fontsize=11)
    axes.hlines(np.arange(len(best) - 1) + 0.5, start_s, end_s, colors="white", linewidth=1.5)
    axes.xaxis.set_major_locator(MultipleLocator(_tick_step_s(end_s - start_s)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: length(seconds)))
    axes.set_xlabel("time (m:ss)")
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=30, label="probability")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    axes.set_title(_cut(title), loc="left", pad=26, fontsize=15, fontweight="bold", parse_math=False)
    axes.text(0, 1.025, subtitle, transform=axes.transAxes, fontsize=12, color="#555555", parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # titles are in every script
        FigureCanvasAgg(figure).print_png(out)


def _tick_step_s(duration_s: float) -> int:
    return next((step for step in _TICK_STEPS_S if duration_s / step <= _MOST_TICKS), _TICK_STEPS_S[-1])


def _cut(title: str) -> str:
    if len(title) <= _TITLE_CHARACTERS:
        return title
    return title[: _TITLE_CHARACTERS // 2] + "…" + title[-_TITLE_CHARACTERS // 2 + 1 :]
