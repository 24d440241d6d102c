import numpy as np

from offline.genre.train import track_features, train
from tests.offline.genre.taggrams import CONFIG, platform


def test_probabilities_are_calibrated_and_thresholds_come_from_tracks_of_unheard_artists():
    trained = train(CONFIG, **platform(artists_each=12))
    metrics = trained.metrics
    assert 0.6 < metrics["accuracy"] < 1.0
    assert metrics["log_loss"] < np.log(3.0) / 2
    assert metrics["answered"] > 0.5
    assert metrics["accuracy_answered"] >= CONFIG.target_accuracy - 0.02
    assert 0.005 < metrics["accuracy_standard_error"] < 0.1
    head = trained.head
    far = np.full((1, 50), 0.9)
    assert head.decide(far).abstained_because == "distance"
    near = track_features(CONFIG, platform(artists_each=12, seed=5)["taggrams"])
    too_far = np.mean([head.decide(row[None]).distance > head.max_distance for row in near])
    assert too_far < 0.05


def test_artists_that_sound_like_themselves_make_track_folds_read_too_high():
    tracks = platform(artists_each=6, tracks_each=6)
    own_sound = np.random.default_rng(1).uniform(0.0, 0.5, (300, 50))
    pairs = zip(tracks["taggrams"], tracks["artists"], strict=True)
    taggrams = tuple((0.3 * taggram + own_sound[artist]).astype(np.float32) for taggram, artist in pairs)
    by_artist = train(CONFIG, taggrams=taggrams, labels=tracks["labels"], artists=tracks["artists"])
    by_track = train(CONFIG, taggrams=taggrams, labels=tracks["labels"], artists=np.arange(len(taggrams)))
    assert by_track.metrics["accuracy"] > by_artist.metrics["accuracy"] + 0.2
