from itertools import islice

import pytest
import torch
from safetensors.torch import load_file

from offline.user_tower.candidate import Candidate
from offline.user_tower.data import prepare
from offline.user_tower.settings import TowerTraining
from tests.offline.user_tower.rule_log import ALONE, QUICK


@pytest.mark.parametrize("settings", [{}, {"full_softmax_tracks": 10, "negatives": 32}, {"loss": "gbce"}])
def test_a_checkpoint_that_is_taken_up_goes_on_as_if_nothing_had_been(log_path, tmp_path, settings):
    data = prepare(
        TowerTraining(log=log_path, out=str(tmp_path / "tower"), **QUICK | settings), scratch=tmp_path, team=ALONE
    )
    done = []
    for name in ("whole", "halved"):
        candidate = Candidate(data, 0.1, tmp_path / name)
        candidate.train(islice(data.steps(), 10), advance=lambda: done.append(1))
        if name == "halved":
            candidate = Candidate(data, 0.1, tmp_path / name)
        assert candidate.steps == 10
        candidate.train(islice(data.steps(done=10), 10), advance=lambda: done.append(1))
    assert len(done) == 40
    whole, halved = (load_file(tmp_path / name) for name in ("whole", "halved"))
    assert whole.keys() == halved.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, halved[name]), name


def test_a_checkpoint_of_other_settings_is_not_taken_up(log_path, tmp_path):
    settings = TowerTraining(log=log_path, out=str(tmp_path / "tower"), **QUICK)
    data = prepare(settings, scratch=tmp_path, team=ALONE)
    candidate = Candidate(data, 0.1, tmp_path / "checkpoint")
    candidate.train(islice(data.steps(), 10), advance=lambda: None)
    assert Candidate(data, 0.1, tmp_path / "checkpoint").course == candidate.course
    other = prepare(
        TowerTraining(log=log_path, out=str(tmp_path / "tower"), seed=1, **QUICK), scratch=tmp_path, team=ALONE
    )
    anew = Candidate(other, 0.1, tmp_path / "checkpoint")
    assert (anew.steps, anew.course, anew.best_score) == (0, [], -1.0)
