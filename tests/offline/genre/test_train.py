import numpy as np
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
    with pytest.raises(SettingsError, match=r"15 artists with msd\.taggram\.mean are too few"):
        train(replace(CONFIG, folds=10), **tracks)


def test_an_input_that_the_tracks_do_not_have_is_refused():
    with pytest.raises(SettingsError, match="max_pool"):
        track_features(replace(CONFIG, inputs=(Block(name="msd.max_pool"),)), platform()["tracks"])


def with_embeddings(tracks: list[dict], labels: np.ndarray, rows: np.ndarray) -> list[dict]:
    """The tracks; those of the rows have an embedding, in which a genre is a direction."""
    noise = np.random.default_rng(3).normal(0.0, 0.2, (len(tracks), 4))
    embeddings = (np.eye(4)[labels] + noise).astype(np.float32)
    return [track | ({"embedding": embeddings[row]} if rows[row] else {}) for row, track in enumerate(tracks)]


BOTH = replace(CONFIG, inputs=(*CONFIG.inputs, Block(name="embedding", width=4, weight=3.0)))


def test_a_head_that_hears_an_embedding_brings_along_the_head_of_tracks_without_one():
    known = platform(artists_each=6)
    half = known["artists"] % 100 < 4  # an artist's tracks have listeners, or have not
    tracks = with_embeddings(known["tracks"], known["labels"], half)
    both = train(BOTH, tracks=tracks, labels=known["labels"], artists=known["artists"])
    plain = train(CONFIG, **known)
    assert both.head.plain is not None
    assert both.head.plain.to_bytes() == plain.head.to_bytes()
    assert both.head.vectors.shape == (len(tracks), 54)
    assert both.metrics["accuracy"] > both.metrics["plain_accuracy"] == plain.metrics["accuracy"]
    for track in known["tracks"][:10]:
        assert both.head.decide([track]) == plain.head.decide([track])


def test_taggram_statistics_max_pool_and_an_embedding_are_blocks_of_one_head():
    known = platform(artists_each=6)
    rng = np.random.default_rng(4)
    tracks = with_embeddings(known["tracks"], known["labels"], np.ones(len(known["labels"]), bool))
    for track in tracks:
        track["msd.max_pool"] = rng.normal(0.0, 30.0, 753).astype(np.float32)
    blocks = (Block(name="msd.taggram.mean"), Block(name="msd.taggram.spread"), Block(name="msd.max_pool", weight=0.1))
    trained = train(
        replace(BOTH, inputs=(*blocks, Block(name="embedding", width=4, weight=3.0)), max_components=40, repeats=1),
        **known | {"tracks": tracks},
    )
    assert (len(trained.head.exponents), trained.head.vectors.shape[1]) == (857, 40)
    assert trained.metrics["accuracy"] > 0.9
    assert trained.head.plain is not None
    assert len(trained.head.plain.exponents) == 853
