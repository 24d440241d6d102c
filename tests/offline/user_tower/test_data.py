from itertools import islice

import numpy as np
import pytest

from models.errors import SettingsError
from offline.user_tower.data import prepare
from offline.user_tower.settings import TowerTraining
from tests.offline.user_tower.rule_log import ALONE, QUICK


def test_tracks_that_are_held_out_have_no_vector_train_nothing_and_are_not_asked_for(log_path, tmp_path):
    held = [f"t{number}" for number in range(0, 40, 4)]
    (tmp_path / "list.csv").write_text("track_id,part\n" + "".join(f"{name},test\n" for name in held))
    settings = TowerTraining(log=log_path, out="nowhere", held_out=str(tmp_path / "list.csv"), **QUICK)
    data = prepare(settings, scratch=tmp_path, team=ALONE)
    learned = data.log.tracks[data.learned].to_list()
    assert sorted(learned) == sorted({f"t{number}" for number in range(40)} - set(held))
    assert data.start.shape == (30, 40)
    assert float(data.first_listens.sum()) == pytest.approx(1)
    rows = np.concatenate([batch.rows.ravel() for batch in islice(data.steps(), 5)])
    assert (rows.min(), rows.max()) == (0, 29)
    everything = prepare(TowerTraining(log=log_path, out="nowhere", **QUICK), scratch=tmp_path, team=ALONE)
    asked = set(data.log.tracks[data.examples.targets].to_list())
    assert asked == set(data.log.tracks[everything.examples.targets].to_list()) - set(held)
    assert data.key != everything.key


def test_a_list_that_leaves_nothing_to_learn_from_is_one_sentence(log_path, tmp_path):
    names = "".join(f"t{number},valid\n" for number in range(40))
    (tmp_path / "list.csv").write_text(f"track_id,part\n{names}")
    settings = TowerTraining(log=log_path, out="nowhere", held_out=str(tmp_path / "list.csv"), **QUICK)
    with pytest.raises(SettingsError, match="no usable listen of a track that is not held out; take a longer"):
        prepare(settings, scratch=tmp_path, team=ALONE)
