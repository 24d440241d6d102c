import msgspec
import pytest

from models.demonstration import made_up
from models.user_tower import load_user_tower
from tests.conftest import TowerOf

CAVEAT = "All of it is made up."


@pytest.mark.parametrize(
    ("training", "caveat"),
    [
        ({"log": {"caveat": CAVEAT, "fingerprint": "01c55770e0aa"}}, CAVEAT),
        ({"log": {"caveat": None}}, None),
        ({"log": {"fingerprint": "01c55770e0aa"}}, None),
        ({"log": "ours"}, None),
        ({}, None),
    ],
)
def test_a_training_tells_whether_its_log_was_made_up(training: dict, caveat: str | None):
    assert made_up(training) == caveat


def test_a_tower_of_a_made_up_platform_is_a_demonstration_and_another_is_none(tower_of: TowerOf):
    manifest = load_user_tower(tower_of(["a", "b"])).manifest
    assert manifest.demonstration is None
    made = msgspec.structs.replace(manifest, training={"log": {"caveat": CAVEAT}})
    assert made.demonstration == CAVEAT
