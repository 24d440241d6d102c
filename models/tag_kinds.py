"""Kinds of music that musicnn's tags name: a second opinion on the genre that a head guesses.

A head tells the genres that it was trained on apart, and takes whatever else it hears for one of them. The tags know
more kinds of music: a track whose strongest tag is `ambient` is not classical, however sure the head is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import ReleaseError
from models.musicnn import OUTPUTS, TAGS

Ranked = tuple[tuple[str, float], ...]
"""Names with their probabilities, best first."""
_ADVICE = "build the release again with `tastewave-offline build-release`"


@dataclass(frozen=True, kw_only=True, eq=False)
class TagKinds:
    """Which kind of music each tag of a network names, and which genres of a head go with it.

        kinds = load_release().genre_head().kinds
        kinds.contradict(tags[None], np.array([classical]))  # [True] where the strongest tag is `ambient`

    Attributes:
        network: msd or mtt, whose tags these are.
        names: of the kinds.
        of_tag: (tags,) the number of the kind that a tag names, in the order of models.musicnn.TAGS; -1 where it
            names none, such as `female vocalists` or `80s`. Every kind has a tag.
        fits: (kinds, classes) True where music of the kind may be of the genre.

    Raises:
        ReleaseError: the arrays do not fit together.
    """

    network: str
    names: tuple[str, ...]
    of_tag: NDArray[np.int64]
    fits: NDArray[np.bool_]

    def __post_init__(self) -> None:
        tags, kinds = OUTPUTS["tags"], len(self.names)
        shaped = self.network in TAGS and self.of_tag.shape == (tags,) and self.fits.shape[:1] == (kinds,)
        typed = self.of_tag.dtype == np.int64 and self.fits.dtype == np.bool_ and self.fits.ndim == 2
        if not (shaped and typed and {*range(kinds)} == {*self.of_tag.tolist()} - {-1}):
            raise ReleaseError(
                f"the kinds of music of the genre head are of_tag {self.of_tag.dtype} {self.of_tag.shape} and fits "
                f"{self.fits.dtype} {self.fits.shape} for {kinds} names and the network {self.network}; {_ADVICE}"
            )

    @property
    def feature(self) -> str:
        """The feature of a window (models.features) that holds the tags."""
        return f"{self.network}.taggram.mean"

    def contradict(self, tags: NDArray[np.floating], guesses: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Whether the strongest tag of a track names a kind of music that does not go with the guess.

        Args:
            tags: (tracks, tags) probabilities.
            guesses: (tracks,) class numbers.

        Returns:
            (tracks,)
        """
        kinds = self.of_tag[tags.argmax(axis=1)]
        return (kinds >= 0) & ~self.fits[kinds, guesses]

    def ranked(self, tags: NDArray[np.floating]) -> list[Ranked]:
        """Every kind with the probability of its strongest tag, best first, for each track of tags (tracks, tags)."""
        strongest = [tags[:, self.of_tag == kind].max(axis=1) for kind in range(len(self.names))]
        return best_first(self.names, np.stack(strongest, axis=1))


def best_first(names: Sequence[str], values: NDArray[np.floating], *, most: int | None = None) -> list[Ranked]:
    """Names with their values, the greatest first, and equal ones in the order of the names.

    Args:
        names: of the columns.
        values: (rows, names).
        most: at most so many of each row; all where None.
    """
    order = np.argsort(-values, axis=1, kind="stable")[:, :most]
    rows: list[list[int]] = order.tolist()
    of_rows: list[list[float]] = np.take_along_axis(values, order, axis=1).tolist()
    return [
        tuple([(names[at], value) for at, value in zip(*pair, strict=True)]) for pair in zip(rows, of_rows, strict=True)
    ]
