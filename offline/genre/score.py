"""Scoring a release's genre head on labelled taggrams; needs none of the training libraries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from models.genre import GenreHead
from models.release import load_release
from offline.genre.labels import LabelledTaggrams, read_taggrams

_WILSON_Z = 1.959964  # 95 % of a normal distribution


class ScoreGenre(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `tastewave-offline score-genre`."""

    file: Annotated[
        str,
        Meta(description="Labelled musicnn MSD taggrams: an npz with X (patches, 50), Y (genres) and IDS (tracks)."),
    ]

    release: Annotated[
        str | None,
        Meta(description="Folder or URL of the release; the one that ships with the project when absent."),
    ] = None


@dataclass(frozen=True, kw_only=True, eq=False)
class GenreScore:
    """How a head does on tracks.

    Attributes:
        classes: the genres.
        confusion: (classes, classes) tracks of the row's genre whose best guess was the column's.
        accuracy: share of the tracks whose best guess is right, abstained or not.
        wilson: 95 % interval of the accuracy (Wilson, 1927).
        macro_f1: mean over the genres of the F1 score of the best guesses; 0 for a genre that is never right.
        answered: share of the tracks that the head does not abstain on.
        accuracy_answered: accuracy on these; None where there are none.
    """

    classes: tuple[str, ...]
    confusion: NDArray[np.int64]
    accuracy: float
    wilson: tuple[float, float]
    macro_f1: float
    answered: float
    accuracy_answered: float | None

    @property
    def tracks(self) -> int:
        """How many."""
        return int(self.confusion.sum())

    def lines(self) -> list[str]:
        """A line a figure, `name value`, then the confusion matrix."""
        low, high = self.wilson
        answered = "none" if self.accuracy_answered is None else f"{self.accuracy_answered:.3f}"
        width = max(map(len, self.classes))
        header = "".join(f"{name:>{width + 1}}" for name in self.classes)
        return [
            f"accuracy {self.accuracy:.3f}",
            f"n {self.tracks}",
            f"wilson95 {low:.3f} {high:.3f}",
            f"macro_f1 {self.macro_f1:.3f}",
            f"answered {self.answered:.3f}",
            f"accuracy_answered {answered}",
            "",
            "confusion (rows: true genre, columns: best guess)",
            f"{'':{width}}{header}",
            *(
                f"{name:{width}}" + "".join(f"{count:>{width + 1}}" for count in row)
                for name, row in zip(self.classes, self.confusion.tolist(), strict=True)
            ),
        ]


def run(settings: ScoreGenre) -> GenreScore:
    """Score the genre head of a release on a file of labelled taggrams.

    Raises:
        ReleaseError: the release cannot be read, or its head hears something else than MSD taggrams.
        SettingsError: the file cannot be used.
    """
    head = load_release(settings.release).genre_head()
    return score_genre(head, read_taggrams(Path(settings.file), classes=len(head.classes)))


def score_genre(head: GenreHead, tracks: LabelledTaggrams) -> GenreScore:
    """Score the best guess for each track, all its patches taken as one window.

    Args:
        head: of a release; hears what musicnn MSD taggrams give.
        tracks: their labels number the head's classes.

    Raises:
        ReleaseError: the head hears something else.
    """
    decisions = [head.decide([window]) for window in tracks.features()]
    guesses = np.array([head.classes.index(decision.guess) for decision in decisions])
    right = guesses == tracks.labels
    answered = np.array([decision.genre is not None for decision in decisions])
    confusion = np.zeros((len(head.classes), len(head.classes)), np.int64)
    np.add.at(confusion, (tracks.labels, guesses), 1)
    labelled_or_guessed = confusion.sum(axis=0) + confusion.sum(axis=1)
    f1 = 2.0 * confusion.diagonal() / np.maximum(labelled_or_guessed, 1)
    return GenreScore(
        classes=head.classes,
        confusion=confusion,
        accuracy=float(right.mean()),
        wilson=wilson(int(right.sum()), len(right)),
        macro_f1=float(f1[labelled_or_guessed > 0].mean()),
        answered=float(answered.mean()),
        accuracy_answered=float(right[answered].mean()) if answered.any() else None,
    )


def wilson(right: float, tries: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927)."""
    share, z2 = right / tries, _WILSON_Z**2
    centre = (share + z2 / (2 * tries)) / (1 + z2 / tries)
    half = _WILSON_Z / (1 + z2 / tries) * (share * (1 - share) / tries + z2 / (4 * tries**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
