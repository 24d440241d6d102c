import subprocess
import sys

from offline.user_tower.settings import TowerTraining


def settings_of(**settings) -> TowerTraining:
    return TowerTraining(log="log", out="tower", **settings)


def test_a_window_holds_the_history_of_its_first_position_that_trains():
    mean, attention = settings_of(history=50, stride=150), settings_of(history=50, pooling="attention")
    assert (mean.context, mean.trains) == (49, 150)
    assert (attention.context, attention.trains) == (25, 25)


def test_settings_are_read_without_torch():
    code = "import sys, offline.user_tower.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
