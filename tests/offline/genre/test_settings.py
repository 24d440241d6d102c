from pathlib import Path

import msgspec
import pytest

from models.errors import SettingsError
from offline.config import load_config
from offline.genre.settings import Block, GenreTraining


@pytest.mark.parametrize(
    ("name", "width"), [("msd.taggram.mean", 50), ("mtt.taggram.spread", 50), ("msd.max_pool", 753)]
)
def test_a_block_is_as_wide_as_its_feature(name: str, width: int):
    assert Block(name=name).width == width
    assert Block(name=name, width=width) == Block(name=name)
    with pytest.raises(SettingsError, match=f"has {width} columns, not 40"):
        Block(name=name, width=40)


def test_blocks_without_a_weight_vary_by_the_same_however_wide_they_are():
    assert Block(name="msd.max_pool").weight == pytest.approx(1 / 753**0.5)
    assert Block(name="embedding", width=40).weight == pytest.approx(1 / 40**0.5)
    assert Block(name="embedding", width=40, weight=2.0).weight == 2.0
    assert GenreTraining().inputs == (Block(name="msd.taggram.mean", weight=1.0),)


def test_a_block_of_another_feature_needs_a_width():
    assert Block(name="embedding", width=40).width == 40
    with pytest.raises(SettingsError, match="how wide the input embedding is"):
        Block(name="embedding")


@pytest.mark.parametrize("changes", [{"exponent": 0.0}, {"weight": -1.0}, {"width": -1}, {"name": ""}])
def test_numbers_that_make_no_block_are_refused(changes: dict):
    values = {"name": "embedding", "exponent": 1.0, "weight": 1.0, "width": 40} | changes
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(list(values.values()), Block)


def test_blocks_are_set_in_words_and_in_toml(tmp_path: Path):
    blocks = (Block(name="msd.max_pool", exponent=0.5), Block(name="embedding", weight=2.0, width=40))
    words = 'inputs=[["msd.max_pool", 0.5], ["embedding", 1.0, 2.0, 40]]'
    assert load_config(GenreTraining, overrides=[words]).inputs == blocks
    (tmp_path / "settings.toml").write_text(words)
    assert load_config(GenreTraining, toml=tmp_path / "settings.toml").inputs == blocks


def test_settings_survive_their_json():
    settings = GenreTraining(inputs=(Block(name="msd.max_pool"), Block(name="embedding", width=40)), gammas=(0.5,))
    assert msgspec.json.decode(msgspec.json.encode(settings), type=GenreTraining) == settings
