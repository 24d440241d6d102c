import pytest
from msgspec.structs import replace

from models.errors import SettingsError
from offline.genre.settings import Block
from offline.genre.train import track_features, train
from tests.offline.genre.taggrams import CONFIG, platform


def test_the_same_data_give_the_same_bytes():
    first, second = train(CONFIG, **platform()), train(CONFIG, **platform())
    assert first.head.to_bytes() == second.head.to_bytes()
    assert first.metrics == second.metrics
    assert train(replace(CONFIG, seed=1), **platform()).head.to_bytes() != first.head.to_bytes()


def test_training_refuses_a_genre_without_tracks_and_too_few_artists():
    tracks = platform()
    with pytest.raises(SettingsError, match="genre punk"):
        train(replace(CONFIG, classes=(*CONFIG.classes, "punk")), **tracks)
    with pytest.raises(SettingsError, match="15 artists are too few"):
        train(replace(CONFIG, folds=10), **tracks)


def test_an_input_that_taggrams_do_not_give_is_refused():
    with pytest.raises(SettingsError, match="max_pool"):
        track_features(replace(CONFIG, inputs=(Block(name="msd.max_pool"),)), platform()["taggrams"])
