import numpy as np
import pytest

from models.features import feature_width, pack_window, taggram_features, window_features
from models.musicnn import MusicnnFeatures


def test_window_features_are_mean_and_spread_over_the_patches():
    taggram = np.array([[0.2] * 50, [0.6] * 50], np.float32)
    max_pool = np.stack([np.full(753, -10.0), np.full(753, 30.0)]).astype(np.float32)
    heard = MusicnnFeatures(
        taggram=taggram, max_pool=max_pool, mean_pool=max_pool, penultimate=np.zeros((2, 200), np.float32)
    )
    features = window_features("mtt", heard)
    assert set(features) == {"mtt.taggram.mean", "mtt.taggram.spread", "mtt.max_pool"}
    np.testing.assert_allclose(features["mtt.taggram.mean"], 0.4, rtol=1e-6)
    np.testing.assert_allclose(features["mtt.taggram.spread"], 0.2, rtol=1e-6)
    np.testing.assert_allclose(features["mtt.max_pool"], 10.0)


@pytest.mark.parametrize("network", ["msd", "mtt"])
def test_every_feature_is_as_wide_as_its_width_says(network: str):
    heard = MusicnnFeatures(
        taggram=np.zeros((2, 50), np.float32),
        max_pool=np.zeros((2, 753), np.float32),
        mean_pool=np.zeros((2, 753), np.float32),
        penultimate=np.zeros((2, 200), np.float32),
    )
    features = window_features(network, heard)
    assert len(features) == 3
    assert {name: feature_width(name) for name in features} == {name: len(row) for name, row in features.items()}


def test_a_name_that_is_no_feature_has_no_width():
    assert feature_width("embedding") is None
    assert feature_width("msd.mean_pool") is None


def test_a_taggram_alone_gives_the_features_of_its_tags():
    features = taggram_features("msd", np.array([[0.0] * 50, [1.0] * 50], np.float32))
    assert {name: row.tolist() for name, row in features.items()} == {
        "msd.taggram.mean": [0.5] * 50,
        "msd.taggram.spread": [0.5] * 50,
    }


def test_a_window_is_packed_as_float16_little_endian():
    features = {
        "msd.max_pool": np.array([1.0, -2.0, 65504.0], np.float32),
        "msd.taggram.mean": np.array([0.5], np.float32),
        "msd.taggram.spread": np.array([2.0**-14], np.float32),
        "mtt.max_pool": np.array([7.0], np.float32),
    }
    packed = pack_window("msd", features, start_ms=15_000, patches=9)
    assert packed.start_ms == 15_000
    assert packed.max_pool == bytes.fromhex("003c 00c0 ff7b")
    assert packed.taggram_mean == bytes.fromhex("0038")
    assert packed.taggram_spread == bytes.fromhex("0004")
