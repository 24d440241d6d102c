import subprocess
import sys

import pytest

from offline.user_tower.settings import TowerTraining


def settings_of(**settings) -> TowerTraining:
    return TowerTraining(log="log", out="tower", **settings)


@pytest.mark.parametrize(
    ("settings", "trials"),
    [
        ({}, [(800, 2), (3_000, 1)]),
        ({"dropouts": (0.1, 0.2, 0.3, 0.4, 0.5), "trial_steps": (10, 20, 30)}, [(10, 3), (20, 2), (30, 1)]),
        ({"steps": 500}, [(500, 1), (500, 1)]),
    ],
)
def test_each_trial_gives_up_the_worse_half_and_the_last_all_but_the_best(settings, trials):
    assert settings_of(**settings).trials == trials


def test_a_window_holds_the_history_of_its_first_position_that_trains():
    mean, attention = settings_of(history=50, stride=150), settings_of(history=50, pooling="attention")
    assert (mean.context, mean.trains) == (49, 150)
    assert (attention.context, attention.trains) == (25, 25)


def test_settings_are_read_without_torch():
    code = "import sys, offline.user_tower.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
