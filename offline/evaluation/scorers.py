"""What evaluation scores with, besides the floors: trained towers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import SettingsError
from models.user_tower import load_user_tower
from offline.features.held_out import HeldOut
from offline.interactions.log import InteractionLog
from offline.interactions.splits import Split
from offline.pages.figures import moment
from offline.ranking.embeddings import catalogue_scores, histories


class TowerScorer:
    """A trained tower as an offline.ranking.rank.Scorer.

    Example:
        ranked = rank(TowerScorer(Path("towers/mean")), log, examples)

    Attributes:
        name: its pooling.
        training: how it was made (TowerManifest.training).
        trained_until_ms: no listen at this moment or later was learned from or chosen by; None where a manifest of
            an earlier version does not tell.

    Raises:
        ReleaseError: the folder is not that of a trained tower.
    """

    def __init__(self, folder: Path) -> None:
        self.tower = load_user_tower(folder)
        self.name = self.tower.manifest.pooling
        self.training = self.tower.manifest.training
        self.trained_until_ms: int | None = self.training.get("trained_until_ms")
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
    folders: Sequence[str],
    *,
    split: Split,
    test_share: float,
    log: InteractionLog,
    held_out: HeldOut | None = None,
) -> list[TowerScorer]:
    """The towers of folders, each of which has never seen the test.

    A tower may be judged on the log and split that it was trained on, and on any other log whose test begins after
    everything that it was trained on.

    Args:
        folders: of trained towers.
        split: that the towers are judged on.
        test_share: of that split.
        log: likewise.
        held_out: tracks that the test does not ask for.

    Raises:
        SettingsError: a tower may have seen the test, was trained without other tracks than these, or knows no track of
            the log, or two have one name.
        ReleaseError: a folder is not that of a trained tower.
    """
    towers: dict[str, TowerScorer] = {}
    for folder in folders:
        tower = TowerScorer(Path(folder))
        _check_unseen(tower, folder, split=split, test_share=test_share, log=log)
        if (made := tower.training.get("held_out")) and made != (held_out and held_out.facts()):
            raise SettingsError(
                f"the tower in {folder} was trained without {made['tracks']:,} tracks, which it cannot name; give "
                "their list with --held-out, so that nobody is asked for them"
            )
        if not (tower.tower.items.rows(log.tracks) >= 0).any():
            raise SettingsError(f"the tower in {folder} knows no track of {log.where}; evaluate it on a log of its own")
        if tower.name in towers:
            raise SettingsError(f"{folder} is a second tower that is called {tower.name}; evaluate one at a time")
        towers[tower.name] = tower
    return list(towers.values())


def _check_unseen(tower: TowerScorer, folder: str, *, split: Split, test_share: float, log: InteractionLog) -> None:
    """Raise SettingsError where a tower may have seen the test."""
    made, until_ms = tower.training, tower.trained_until_ms
    if until_ms is not None and split.test_from_ms is not None and until_ms <= split.test_from_ms:
        return
    for what, own, ours in (
        ("split", made["split"], split.name),
        ("test_share", made["test_share"], test_share if split.name == "temporal" else made["test_share"]),
        ("log", made["log"]["fingerprint"], log.fingerprint),
    ):
        if own != ours:
            raise SettingsError(
                f"the tower in {folder} was trained on the {what} {own}, not {ours}, "
                + ("" if until_ms is None else f"until {moment(until_ms)}, ")
                + ("" if split.test_from_ms is None else f"and this test begins {moment(split.test_from_ms)}: ")
                + f"it may have seen the test; train it anew on this {what}, or evaluate on its own or on a later log"
            )
