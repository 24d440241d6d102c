import numpy as np
from msgspec.structs import replace

from models.musicnn import TAGS
from offline.genre.calibration import OutOfFold, calibrate
from offline.genre.kinds import TagKind
from offline.genre.train import train
from tests.offline.genre.taggrams import CONFIG, heard, made_up, platform


def test_probabilities_are_calibrated_and_thresholds_come_from_tracks_of_unheard_artists():
    trained = train(CONFIG, **platform(artists_each=12))
    metrics = trained.metrics
    assert 0.6 < metrics["accuracy"] < 1.0
    assert metrics["log_loss"] < np.log(3.0) / 2
    assert metrics["answered"] > 0.5
    assert metrics["accuracy_answered"] >= CONFIG.target_accuracy - 0.02
    assert 0.005 < metrics["accuracy_standard_error"] < 0.1
    head = trained.head
    assert head.decide([{"msd.taggram.mean": np.full(50, 0.9)}]).abstained_because == "distance"
    near = platform(artists_each=12, seed=5)["tracks"]
    too_far = np.mean([head.decide([track]).distance > head.max_distance for track in near])
    assert too_far < 0.1


def test_the_temperature_is_that_of_which_the_labels_were_drawn():
    head = train(CONFIG, **platform()).head
    rng = np.random.default_rng(0)
    decisions = rng.normal(0.0, 0.5, (1, 20_000, 3))
    true = np.exp(decisions[0] / 0.3)
    true /= true.sum(axis=1, keepdims=True)
    labels = (rng.random((20_000, 1)) > np.cumsum(true, axis=1)[:, :2]).sum(axis=1)
    unheard = OutOfFold(decisions=decisions, distances=np.ones((1, 20_000)), contradicted=np.zeros((1, 20_000), bool))
    calibrated = calibrate(CONFIG, head, unheard, labels)
    assert abs(calibrated.temperature / 0.3 - 1) < 0.03
    confidence = true.max(axis=1)
    answered = confidence >= calibrated.min_confidence
    right = decisions[0].argmax(axis=1) == labels
    assert abs(right[answered].mean() - CONFIG.target_accuracy) < 0.01


def test_what_tags_contradict_is_not_answered_and_does_not_count_for_the_thresholds():
    """The tags of the artists of metal name a kind of music that only ska goes with."""
    tracks = platform(artists_each=12)
    plain = train(CONFIG, **tracks)
    of_metal = TagKind(name="loud", tags=TAGS["msd"][35:40], genres=("ska",))
    asked = train(
        replace(CONFIG, kinds=(of_metal, TagKind(name="rest", tags=("sad",), genres=CONFIG.classes))), **tracks
    )
    assert asked.metrics["accuracy"] == plain.metrics["accuracy"]
    assert asked.metrics["answered"] < plain.metrics["answered"] - 0.2
    metal = [track for track, label in zip(tracks["tracks"], tracks["labels"], strict=True) if label == 1]
    loud = [track for track in metal if 35 <= track["msd.taggram.mean"].argmax() < 40]
    assert len(loud) > 20
    assert {asked.head.decide([track]).abstained_because for track in loud} == {"tags"}
    assert "tags" not in {plain.head.decide([track]).abstained_because for track in loud}


def test_artists_that_sound_like_themselves_make_track_folds_read_too_high():
    taggrams, labels, artists = made_up(artists_each=6, tracks_each=6)
    own_sound = np.random.default_rng(1).uniform(0.0, 0.5, (300, 50))
    pairs = zip(taggrams, artists, strict=True)
    tracks = heard([(0.3 * taggram + own_sound[artist]).astype(np.float32) for taggram, artist in pairs])
    by_artist = train(CONFIG, tracks=tracks, labels=labels, artists=artists)
    by_track = train(CONFIG, tracks=tracks, labels=labels, artists=np.arange(len(tracks)))
    assert by_track.metrics["accuracy"] > by_artist.metrics["accuracy"] + 0.2
