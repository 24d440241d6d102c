import pytest

from offline.user_tower.budget import Budget, ended
from offline.user_tower.settings import TowerTraining


def budget(epoch_steps, **settings):
    return Budget.of(TowerTraining(log="log", out="tower", **settings), epoch_steps=epoch_steps)


def course(*scores, every=200):
    return [{"step": every * (number + 1), "valid_ndcg_at_10": score} for number, score in enumerate(scores)]


def test_steps_follow_the_log_and_a_small_log_gets_enough():
    assert (budget(17).steps, budget(17).validate_every) == (7_000, 200)
    assert (budget(20_833).steps, budget(20_833).validate_every) == (208_350, 4_167)
    assert budget(20_833, epochs=2).steps == 41_670


@pytest.mark.parametrize(
    ("settings", "trials", "total"),
    [
        ({}, ((800, 2), (2_800, 1)), 4 * 800 + 2 * 2_000 + 4_200),
        ({"dropouts": (0.1, 0.2, 0.3, 0.4, 0.5), "trial_shares": (0.1, 0.2, 0.3), "steps": 100,
          "validate_every": 10},
         ((10, 3), (20, 2), (30, 1)), 5 * 10 + 3 * 10 + 2 * 10 + 70),
        ({"dropouts": (0.2,)}, ((800, 1), (2_800, 1)), 7_000),
    ],
)  # fmt: skip
def test_each_trial_gives_up_the_worse_half_and_the_last_all_but_the_best(settings, trials, total):
    found = budget(1, **settings)
    assert found.trials == trials
    assert found.total == total


def test_what_is_to_come_is_stated_in_steps_epochs_and_time():
    told = budget(20_000, dropouts=(0.1,)).ahead(step_s=0.125)
    assert told == (
        "at most 200,000 steps, 10.0 epochs of 20,000, and 200,000 with those of the dropouts that are given up: "
        "6.9 hours at 8.0 steps/s without validations; it ends earlier when these bring nothing better"
    )
    assert "12 minutes at 10.0 steps/s" in budget(17, dropouts=(0.1,)).ahead(step_s=0.1)


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ((0.1, 0.2, 0.3, 0.31, 0.32), "was still rising when the training stopped, after 1,000 steps, 10.0 epochs: the "
         "last 2 of its 5 validations brought +6.7%; try more epochs"),
        ((0.1, 0.2, 0.3, 0.302, 0.301), "had levelled off after 1,000 steps, 10.0 epochs: the last 2 of its 5 "
         "validations brought +0.7%, so more steps are not what this tower lacks"),
        ((0.2, 0.4, 0.3), "had levelled off after 600 steps, 6.0 epochs: the last 1 of its 3 validations brought "
         "-25.0%, so more steps are not what this tower lacks"),
        ((0.1, 0.3), "was still rising when the training stopped, after 400 steps, 4.0 epochs: the last 1 of its 2 "
         "validations brought +200.0%; try more epochs"),
    ],
)  # fmt: skip
def test_a_training_tells_whether_it_had_time_enough(scores, told):
    assert ended(course(*scores), epoch_steps=100, patience=2) == f"the validation {told}"


def test_a_single_validation_tells_nothing():
    found = ended(course(0.1), epoch_steps=100, patience=2)
    assert found == "the training ended with its first validation, after 200 steps, 2.0 epochs; try more epochs"
