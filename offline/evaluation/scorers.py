"""What evaluation scores with, besides the floors: trained towers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import SettingsError
from models.user_tower import load_user_tower
from offline.interactions.log import InteractionLog
from offline.interactions.splits import SplitName
from offline.user_tower.scorer import catalogue_scores, histories


class TowerScorer:
    """A trained tower as an offline.ranking.rank.Scorer.

    Example:
        ranked = rank(TowerScorer(Path("towers/mean")), log, examples)

    Attributes:
        name: its pooling.
        training: how it was made (TowerManifest.training).

    Raises:
        ReleaseError: the folder is not that of a trained tower.
    """

    def __init__(self, folder: Path) -> None:
        self.tower = load_user_tower(folder)
        self.name = self.tower.manifest.pooling
        self.training = self.tower.manifest.training
        self._log: InteractionLog | None = None
        self._row_of = np.empty(0, np.int64)

    def scores(self, log: InteractionLog, users: NDArray[np.integer], ends: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, tracks) as offline.ranking.rank.Scorer says."""
        if log is not self._log:
            self._log, self._row_of = log, self.tower.items.rows(log.tracks)
        history = self.tower.manifest.history
        embeddings = self.tower.embed(*histories(log, self._row_of, users, ends, history=history))
        return catalogue_scores(embeddings, self.tower.items.vectors, self._row_of)


def load_towers(
    folders: Sequence[str], *, split: SplitName, test_share: float, log: InteractionLog
) -> list[TowerScorer]:
    """The towers of folders, each of which has never seen the test.

    Args:
        folders: of trained towers.
        split: that the towers are judged on.
        test_share: of that split.
        log: likewise.

    Raises:
        SettingsError: a tower is of another log or split, or two have one name.
        ReleaseError: a folder is not that of a trained tower.
    """
    towers: dict[str, TowerScorer] = {}
    for folder in folders:
        tower = TowerScorer(Path(folder))
        made = tower.training
        for what, own, ours in (
            ("split", made["split"], split),
            ("test_share", made["test_share"], test_share if split == "temporal" else made["test_share"]),
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
