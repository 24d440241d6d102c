"""A tower of each pooling with default settings: what the command `evaluate` judges where it is given none."""

from __future__ import annotations

from pathlib import Path

import msgspec

from models.history import CountingRule
from models.user_tower import TOWER_MANIFEST, load_user_tower
from offline.files import writing
from offline.interactions.log import read_log
from offline.interactions.splits import SplitName, split_log
from offline.user_tower import train
from offline.user_tower.settings import POOLINGS, TowerTraining


def train_poolings(
    folder: Path, *, log: str, split: SplitName, test_share: float, counting: CountingRule, forgotten: str | None = None
) -> None:
    """Train a tower of each pooling into folder/<pooling>, where there is none of this log and these settings yet.

    Args:
        folder: of the towers; the arrays of the log lie beside it while they are in use.
        log: as in TowerTraining.
        split: as in TowerTraining.
        test_share: as in TowerTraining.
        counting: as in TowerTraining.
        forgotten: as in TowerTraining.

    Raises:
        SettingsError: as for offline.user_tower.train.run; where the log or its split cannot be used, nothing is left.
    """
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        interactions = read_log(log, rule=counting, scratch=folder.parent, forgotten=forgotten)
    split_log(interactions, split, test_share=test_share)
    fingerprint = interactions.fingerprint
    del interactions  # each training reads the log for itself; its arrays need not lie on the disk twice
    for pooling in POOLINGS:
        settings = TowerTraining(
            log=log,
            out=str(folder / pooling),
            forgotten=forgotten,
            pooling=pooling,
            split=split,
            test_share=test_share,
            counting=counting,
        )
        if not _is_trained(settings, fingerprint=fingerprint):
            train.run(settings)


def _is_trained(settings: TowerTraining, *, fingerprint: str) -> bool:
    folder = Path(settings.out)
    if not (folder / TOWER_MANIFEST).exists():
        return False
    made = load_user_tower(folder).manifest.training
    same_log = made["log"]["fingerprint"] == fingerprint
    return same_log and made["config"] == msgspec.json.decode(msgspec.json.encode(settings))
