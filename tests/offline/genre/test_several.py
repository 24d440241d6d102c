import numpy as np
import pytest
from msgspec.structs import replace

from models.errors import SettingsError
from models.genre import GenreHead
from models.musicnn import TAGS
from offline.genre.kinds import TagKind
from offline.genre.machine import rightness, strata, track_weights
from offline.genre.settings import Block
from offline.genre.several import fit_sigmoid, keep_labels, least_probability
from offline.genre.train import train
from tests.offline.genre.taggrams import CONFIG, heard, made_up


def test_a_sigmoid_is_found_again_from_what_it_has_drawn():
    rng = np.random.default_rng(0)
    decisions = rng.normal(0.3, 0.2, 40_000)
    truth = rng.random(40_000) < 1 / (1 + np.exp(-(7.0 * decisions - 3.0)))
    slope, intercept = fit_sigmoid(decisions, truth)
    assert slope == pytest.approx(7.0, rel=0.05)
    assert intercept == pytest.approx(-3.0, rel=0.05)
    said = 1 / (1 + np.exp(-(slope * decisions + intercept)))
    for low in np.arange(0.0, 1.0, 0.1):
        these = (said >= low) & (said < low + 0.1)
        if these.sum() > 500:
            assert truth[these].mean() == pytest.approx(said[these].mean(), abs=0.03)


def test_a_sigmoid_of_decisions_that_say_nothing_or_the_opposite_is_flat():
    rng = np.random.default_rng(0)
    decisions = rng.normal(0.0, 1.0, 5000)
    truth = rng.random(5000) < 1 / (1 + np.exp(3.0 * decisions))
    slope, intercept = fit_sigmoid(decisions, truth)
    assert 0.0 < slope < 0.01
    assert 1 / (1 + np.exp(-intercept)) == pytest.approx(truth.mean(), abs=0.02)
    for all_alike in (np.ones(20, bool), np.zeros(20, bool)):
        slope, intercept = fit_sigmoid(np.zeros(20), all_alike)
        assert np.isfinite([slope, intercept]).all()


def test_the_threshold_is_the_least_probability_from_which_on_the_target_is_reached():
    probabilities = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    truth = np.array([True, True, False, True, False, False])
    assert least_probability(probabilities, truth, target=0.75, least=1) == 0.6
    assert least_probability(probabilities, truth, target=0.5, least=1) == 0.4
    assert least_probability(probabilities, truth, target=0.9, least=1) == 0.8
    assert least_probability(probabilities, truth, target=0.9, least=3) == np.inf
    assert least_probability(probabilities, ~truth, target=0.75, least=1) == np.inf


def test_the_rightness_of_several_labels_is_their_average_precision():
    from sklearn.metrics import label_ranking_average_precision_score

    rng = np.random.default_rng(0)
    labels, decisions = rng.random((50, 6)) < 0.4, rng.normal(0.0, 1.0, (50, 6))
    labels[:, 0] |= ~labels.any(axis=1)
    assert rightness(decisions, labels).mean() == pytest.approx(
        label_ranking_average_precision_score(labels, decisions), abs=1e-12
    )


def test_one_label_each_weighs_the_same_in_either_form():
    labels, artists = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 2, 2, 3])
    of_each = np.eye(3, dtype=bool)[labels]
    np.testing.assert_allclose(
        track_weights(of_each, artists, power=0.5), track_weights(labels, artists, power=0.5), rtol=1e-12
    )
    assert strata(of_each).tolist() == labels.tolist()
    assert strata(np.array([[True, True], [True, False], [True, False]])).tolist() == [1, 0, 0]


CLASSES = ("folk", "loud", "loud---metal", "loud---ska")
SEVERAL = replace(CONFIG, classes=CLASSES)


def within(**changes) -> dict:
    """The made-up tracks: folk, and the two that are within `loud`."""
    taggrams, numbers, artists = made_up(**changes)
    labels = np.zeros((len(numbers), 4), bool)
    labels[np.arange(len(numbers)), np.array([0, 2, 3])[numbers]] = True
    labels[:, 1] = numbers > 0
    return {"tracks": heard(taggrams), "labels": labels, "artists": artists}


def test_a_head_of_labels_within_labels_answers_the_finest_and_what_it_is_within():
    trained = train(SEVERAL, **within(artists_each=10))
    head = trained.head
    assert head.classes == CLASSES
    assert trained.unanswerable == ()
    assert trained.metrics["ranking"] > 0.8
    assert trained.metrics["precision"] >= CONFIG.target_accuracy - 0.03
    answered = [
        decision for track in within(artists_each=10, seed=7)["tracks"] if (decision := head.decide([track])).genre
    ]
    assert len(answered) > 20
    ska = [decision for decision in answered if decision.genre == "loud---ska"]
    assert len(ska) > 5
    for decision in answered:
        names = [name for name, _ in decision.genres]
        assert names[0] == decision.genre == decision.guess
        assert decision.genre != "loud" or not {"loud---metal", "loud---ska"} & set(names)
    assert all("loud" in dict(decision.genres) for decision in ska)
    assert all(dict(decision.genres)["loud"] >= decision.confidence for decision in ska)


def test_answers_on_tracks_that_were_never_seen_reach_the_target():
    trained = train(replace(SEVERAL, target_accuracy=0.9), **within(artists_each=20))
    fresh = within(artists_each=20, seed=11)
    decisions = [trained.head.decide([track]) for track in fresh["tracks"]]
    said = [
        (row, CLASSES.index(name))
        for row, decision in enumerate(decisions)
        if decision.genre
        for name, _ in decision.genres
    ]
    assert len(said) > 60
    assert np.mean([fresh["labels"][at] for at in said]) > 0.85


def test_a_head_of_several_labels_reads_back_and_decides_the_same(tmp_path):
    head = train(SEVERAL, **within(artists_each=10)).head
    (tmp_path / "genre.npz").write_bytes(head.to_bytes())
    again = GenreHead.load(tmp_path / "genre.npz")
    assert again.to_bytes() == head.to_bytes()
    for track in within(seed=3)["tracks"][:10]:
        assert again.decide([track]) == head.decide([track])


def test_a_label_that_nothing_tells_apart_is_left_out():
    known = within(artists_each=8)
    at_random = np.random.default_rng(0).random(len(known["labels"])) < 0.3
    known["labels"] = np.column_stack([known["labels"], at_random])
    settings = replace(SEVERAL, classes=(*CLASSES, "sunny"))
    trained = train(settings, **known)
    assert trained.unanswerable == ("sunny",)
    assert trained.head.classes == CLASSES
    assert trained.by_class.keys() == set(CLASSES)
    assert trained.head.decide([known["tracks"][0]]).genres


def test_a_parent_stays_for_the_sake_of_a_label_within_it():
    head = train(SEVERAL, **within(artists_each=10)).head
    assert head.several is not None
    kept = keep_labels(head, np.array([False, True, False, True]))
    assert kept.classes == ("loud", "loud---ska")
    assert kept.several is not None
    assert kept.several.parents.tolist() == [-1, 0]
    track = within(seed=3)["tracks"][-1]
    scores, fewer = (each.scores(each.stack([track])).decisions[0] for each in (head, kept))
    np.testing.assert_allclose(kept.probabilities(fewer), head.probabilities(scores)[[1, 3]], rtol=1e-12)
    with pytest.raises(SettingsError, match="no label is right often enough"):
        keep_labels(head, np.zeros(4, bool))


def test_a_head_of_several_labels_that_hears_an_embedding_has_a_plain_head_of_the_same_labels():
    known = within(artists_each=8)
    has = known["artists"] % 100 < 6
    vectors = np.eye(4)[known["labels"].argmax(axis=1)] + np.random.default_rng(1).normal(0.0, 0.2, (len(has), 4))
    known["tracks"] = [
        track | ({"embedding": vector.astype(np.float32)} if is_known else {})
        for track, vector, is_known in zip(known["tracks"], vectors, has, strict=True)
    ]
    inputs = (*SEVERAL.inputs, Block(name="embedding", width=4, weight=2.0))
    trained = train(replace(SEVERAL, inputs=inputs), **known)
    assert trained.head.plain is not None
    assert trained.head.plain.classes == trained.head.classes
    without = {name: value for name, value in known["tracks"][0].items() if name != "embedding"}
    assert trained.head.decide([without]) == trained.head.plain.decide([without])


def test_kinds_of_music_are_not_asked_where_a_track_has_several_labels():
    kinds = (TagKind(name="loud", tags=TAGS["msd"][:3], genres=("loud",)),)
    with pytest.raises(SettingsError, match="kinds=\\[\\]"):
        train(replace(SEVERAL, kinds=kinds), **within())


def test_labels_that_were_permuted_by_artist_are_at_chance():
    taggrams, labels, artists = made_up(artists_each=12)
    of_artist = dict(zip(artists.tolist(), labels.tolist(), strict=True))
    names = sorted(of_artist)
    dealt = dict(
        zip(names, np.random.default_rng(5).permutation([of_artist[name] for name in names]).tolist(), strict=True)
    )
    tracks = heard(taggrams)
    true = train(replace(CONFIG, repeats=1), tracks=tracks, labels=labels, artists=artists).metrics
    permuted = train(
        replace(CONFIG, repeats=1), tracks=tracks, labels=np.array([dealt[artist] for artist in artists.tolist()]),
        artists=artists,
    ).metrics  # fmt: skip
    assert true["accuracy"] > 0.6
    assert abs(permuted["accuracy"] - 1 / 3) < 3 * permuted["accuracy_standard_error"]
