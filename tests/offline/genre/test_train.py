import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.decomposition import PCA
from sklearn.kernel_ridge import KernelRidge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.errors import SettingsError
from offline.cli import cli
from offline.genre.labels import read_artists, read_taggrams
from offline.genre.score import score_genre, wilson
from offline.genre.train import GenreTraining, choose, fit, folds, run, track_features, track_weights

CONFIG = GenreTraining(
    classes=("folk", "metal", "ska"), gammas=(0.1, 0.5), ridges=(0.1, 1.0), folds=3, inner_folds=2, repeats=2
)


def platform(*, artists_each: int = 5, tracks_each: int = 3, patches: int = 9, seed: int = 0):
    """Taggrams of three genres: every genre raises some tags, every artist a tag of its own."""
    rng = np.random.default_rng(seed)
    taggrams, labels, artists = [], [], []
    for label in range(3):
        for artist in range(artists_each):
            for _ in range(tracks_each):
                logits = rng.normal(-4.0, 0.7, (patches, 50))
                logits[:, 10 * label : 10 * label + 6] += rng.uniform(0.0, 2.2)
                logits[:, 30 + 5 * label + artist % 5] += 3.0
                taggrams.append((1.0 / (1.0 + np.exp(-logits))).astype(np.float32))
                labels.append(label)
                artists.append(100 * label + artist)
    return {"taggrams": tuple(taggrams), "labels": np.array(labels), "artists": np.array(artists)}


def data(**changes):
    tracks = platform(**changes)
    return track_features(CONFIG, tracks["taggrams"]), tracks["labels"], tracks["artists"]


def write_platform(folder: Path, **changes) -> Path:
    tracks = platform(**changes)
    names = [f"{CONFIG.classes[label]}.{index:05d}" for index, label in enumerate(tracks["labels"])]
    patches = len(tracks["taggrams"][0])
    np.savez(
        folder / "train.npz",
        X=np.concatenate(tracks["taggrams"]),
        Y=np.repeat(tracks["labels"], patches),
        IDS=np.repeat([f"{name.split('.')[0]}/{name}.au" for name in names], patches),
    )
    lines = [f'{name},"artist {artist}"' for name, artist in zip(names, tracks["artists"], strict=True)]
    (folder / "train_artists.csv").write_text("\n".join(["track,artist", *lines]) + "\n")
    return folder


def test_the_folded_head_gives_what_scikit_learn_gives():
    features, labels, artists = data(tracks_each=5)
    head = fit(CONFIG, features, labels, artists, gamma=0.25, ridge=0.3)
    raised = np.cbrt(features)
    steps = make_pipeline(StandardScaler(), PCA(min(128, *features.shape)))
    points = steps.fit_transform(raised)
    machine = KernelRidge(kernel="rbf", gamma=0.25 / points.var(axis=0, ddof=1).sum(), alpha=0.3)
    machine.fit(points, np.eye(3)[labels] - 1 / 3, sample_weight=track_weights(labels, artists, power=0.5))
    others = data(seed=1)[0]
    decisions, distances = head.scores(others)
    projected = steps.transform(np.cbrt(others))
    np.testing.assert_allclose(decisions, machine.predict(projected), rtol=0, atol=1e-9)
    to_all = np.linalg.norm(projected[:, None] - points, axis=2)
    np.testing.assert_allclose(distances, np.sort(to_all, axis=1)[:, :5].mean(axis=1), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("most", "tracks_each", "components"),
    [(128, 5, 50), (128, 2, 30), (20, 5, 20)],  # the columns, the tracks, the setting
)
def test_the_pca_keeps_the_least_of_setting_columns_and_tracks(most: int, tracks_each: int, components: int):
    features, labels, artists = data(tracks_each=tracks_each)
    config = dataclasses.replace(CONFIG, max_components=most)
    assert fit(config, features, labels, artists, gamma=0.1, ridge=0.1).vectors.shape[1] == components


def test_no_artist_is_on_both_sides_of_a_fold_and_every_track_is_tested_once():
    _, labels, artists = data(artists_each=7)
    tested = []
    for train, test in folds(3, labels, artists, seed=4):
        assert not set(artists[train]) & set(artists[test])
        tested.extend(test.tolist())
    assert sorted(tested) == list(range(len(labels)))


def test_genre_and_artist_weights_are_known():
    labels, artists = np.array([0, 0, 0, 0, 0, 1]), np.array([7, 7, 7, 7, 8, 9])
    weights = track_weights(labels, artists, power=0.5)
    assert weights.mean() == pytest.approx(1.0)
    assert weights[:5].sum() == pytest.approx(weights[5])
    assert weights[4] / weights[0] == pytest.approx(2.0)


def test_choose_takes_the_setting_that_is_right_most_often():
    features, labels, artists = data()
    absurd = dataclasses.replace(CONFIG, gammas=(1e6, 0.25), ridges=(0.3,))
    assert choose(absurd, features, labels, artists, seed=0) == (0.25, 0.3)


def test_the_same_data_give_the_same_bytes():
    first, second = run(CONFIG, **platform()), run(CONFIG, **platform())
    assert first.head.to_bytes() == second.head.to_bytes()
    assert first.metrics == second.metrics
    assert run(dataclasses.replace(CONFIG, seed=1), **platform()).head.to_bytes() != first.head.to_bytes()


def test_probabilities_are_calibrated_and_thresholds_come_from_tracks_of_unheard_artists():
    trained = run(CONFIG, **platform(artists_each=12))
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
    by_artist = run(CONFIG, taggrams=taggrams, labels=tracks["labels"], artists=tracks["artists"])
    by_track = run(CONFIG, taggrams=taggrams, labels=tracks["labels"], artists=np.arange(len(taggrams)))
    assert by_track.metrics["accuracy"] > by_artist.metrics["accuracy"] + 0.2


def test_training_refuses_a_genre_without_tracks_and_too_few_artists():
    tracks = platform()
    with pytest.raises(SettingsError, match="genre punk"):
        run(dataclasses.replace(CONFIG, classes=(*CONFIG.classes, "punk")), **tracks)
    with pytest.raises(SettingsError, match="15 artists are too few"):
        run(dataclasses.replace(CONFIG, folds=10), **tracks)


def test_an_input_that_taggrams_do_not_give_is_refused():
    with pytest.raises(SettingsError, match="max_pool"):
        track_features(dataclasses.replace(CONFIG, inputs=(("msd.max_pool", 1.0),)), platform()["taggrams"])


def test_tracks_are_put_together_from_patches_in_any_order(tmp_path: Path):
    path = write_platform(tmp_path) / "train.npz"
    with np.load(path) as arrays:
        patches, labels, ids = arrays["X"], arrays["Y"], arrays["IDS"]
    straight = read_taggrams(path, classes=3)
    order = np.random.default_rng(0).permutation(len(ids))
    np.savez(path, X=patches[order], Y=labels[order], IDS=ids[order])
    shuffled = read_taggrams(path, classes=3)
    assert sorted(shuffled.ids) == sorted(straight.ids)
    one = shuffled.ids.index(straight.ids[7])
    np.testing.assert_allclose(shuffled.taggrams[one].mean(axis=0), straight.taggrams[7].mean(axis=0), rtol=1e-6)
    assert shuffled.labels[one] == straight.labels[7]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"X": np.zeros((4, 49))}, "X \\(4, 49\\)"),
        ({"X": np.full((4, 50), 1.5)}, "0 to 1"),
        ({"X": np.full((4, 50), np.nan)}, "0 to 1"),
        ({"X": np.zeros((4, 50), int)}, "0 to 1"),
        ({"Y": np.array([0, 0, 1])}, "Y \\(3,\\)"),
        ({"Y": np.array([0, 0, 1, 3])}, "0 to 2"),
        ({"Y": np.array([0, 0, 1, -1])}, "0 to 2"),
        ({"Y": np.array([0.0, 0, 1, 1])}, "integers"),
        ({"Y": np.array([0, 1, 1, 1])}, "track a .* several classes"),
        ({"IDS": np.array(["a", "a", "b", None], dtype=object)}, "cannot be read"),
        ({"X": np.zeros((0, 50)), "Y": np.zeros(0, int), "IDS": np.zeros(0, "<U1")}, "X \\(0, 50\\)"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path: Path, changes: dict, said: str):
    good = {"X": np.zeros((4, 50)), "Y": np.array([0, 0, 1, 1]), "IDS": np.array(["a", "a", "b", "b"])}
    np.savez(tmp_path / "x.npz", **good)
    assert len(read_taggrams(tmp_path / "x.npz", classes=3).ids) == 2
    np.savez(tmp_path / "x.npz", **good | changes)
    with pytest.raises(SettingsError, match=said):
        read_taggrams(tmp_path / "x.npz", classes=3)


def test_files_that_are_no_taggrams_are_refused(tmp_path: Path):
    (tmp_path / "x.npz").write_bytes(b"nothing of the kind")
    for name in ("x.npz", "missing.npz"):
        with pytest.raises(SettingsError, match="cannot be read as taggrams"):
            read_taggrams(tmp_path / name, classes=3)


def test_joint_recordings_join_artists_and_unknown_ones_are_one_per_genre(tmp_path: Path):
    path = tmp_path / "artists.csv"
    path.write_text('track,artist\nska.1,A\nska.2,"B; C"\nska.3,"C; A"\nska.4,D\nska.5,\nska.6,\nfolk.1,\n')
    numbers = read_artists(
        path, ("ska/ska.1.au", "ska.2.wav", "ska.3.wav", "ska.4.au", "ska.5.au", "ska.6.au", "folk.1.au")
    )
    first, second, third, fourth, fifth, sixth, seventh = numbers.tolist()
    assert first == second == third
    assert fifth == sixth
    assert len({first, fourth, fifth, seventh}) == 4


def test_an_artist_list_without_a_track_or_a_column_is_refused(tmp_path: Path):
    path = tmp_path / "artists.csv"
    path.write_text("track,artist\nska.1,A\n")
    with pytest.raises(SettingsError, match=r"ska\.2"):
        read_artists(path, ("ska.1.au", "ska.2.au"))
    path.write_text("name,artist\nska.1,A\n")
    with pytest.raises(SettingsError, match="columns track, artist"):
        read_artists(path, ("ska.1.au",))
    with pytest.raises(SettingsError, match="cannot be read"):
        read_artists(tmp_path / "missing.csv", ("ska.1.au",))


def test_the_wilson_interval_has_its_known_value():
    low, high = wilson(8, 10)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10)[0] == pytest.approx(0.0, abs=1e-9)
    assert wilson(10, 10)[1] == pytest.approx(1.0, abs=1e-9)


def test_a_score_counts_every_track_once_and_can_be_searched(tmp_path: Path):
    trained = run(CONFIG, **platform())
    tracks = read_taggrams(write_platform(tmp_path) / "train.npz", classes=3)
    assert score_genre(trained.head, tracks).accuracy == 1.0
    labels = tracks.labels.copy()
    labels[:6] = 1
    score = score_genre(trained.head, dataclasses.replace(tracks, labels=labels))
    assert score.confusion.tolist() == [[9, 0, 0], [6, 15, 0], [0, 0, 15]]
    assert score.accuracy == 39 / 45
    assert score.macro_f1 == pytest.approx((18 / 24 + 30 / 36 + 1) / 3)
    lines = score.lines()
    assert lines[:2] == ["accuracy 0.867", "n 45"]
    assert [line.split() for line in lines[-3:]] == [
        ["folk", "9", "0", "0"],
        ["metal", "6", "15", "0"],
        ["ska", "0", "0", "15"],
    ]


def test_scoring_needs_none_of_the_training_libraries():
    code = "import sys, offline.genre.score, offline.genre.labels; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules = set(done.stdout.split())
    assert "offline.genre.score" in modules
    assert modules.isdisjoint({"sklearn", "torch", "librosa", "onnxruntime"})


def test_score_genre_of_a_file_that_is_none_is_one_sentence(tmp_path: Path):
    (tmp_path / "x.npz").write_bytes(b"nothing of the kind")
    result = CliRunner().invoke(cli, ["score-genre", str(tmp_path / "x.npz")])
    assert result.exit_code == 1
    assert isinstance(result.exception, SettingsError)
    assert "cannot be read as taggrams" in str(result.exception)
