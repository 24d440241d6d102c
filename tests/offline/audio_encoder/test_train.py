"""`train-audio-encoder` on a platform where sound decides taste."""

import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import t as student_t

from models.audio.windows import WindowPlan, decode_windows
from models.audio_encoder import load_audio_encoder
from models.errors import ReleaseError, SettingsError, TastewaveError
from models.mel import ENCODER
from models.user_tower import load_user_tower
from offline.audio_encoder.data import EncoderData, prepare
from offline.audio_encoder.fit import cold_scores, fit
from offline.audio_encoder.pairs import liked_tracks, place_people
from offline.audio_encoder.settings import EncoderTraining
from offline.audio_encoder.sounds import Sounds, place_tracks
from offline.audio_encoder.train import exchange, run
from offline.features.held_out import Part, hold_out
from offline.features.store import open_store
from offline.interactions.log import read_log
from tests.offline.audio_encoder.tones import IDS, MEL, UNTIL, is_low

QUICK = {"mel": MEL, "steps": 40, "validate_every": 20, "batch": 32, "crop_s": 2.0, "device": "cpu"}


@pytest.fixture(scope="module")
def given(tones_store: Path, tones_tower: Path, tones_log: Path) -> dict[str, Any]:
    held_out = str(tones_store.with_name("held-out.csv"))
    paths = {"store": str(tones_store), "tower": str(tones_tower), "log": str(tones_log), "held_out": held_out}
    return {**paths, "out": "nowhere", **QUICK}


@pytest.fixture(scope="module")
def data(given: dict[str, Any]) -> EncoderData:
    return prepare(EncoderTraining(**given))


def names(store: Path, part: Part) -> set[str]:
    tracks = list(open_store(store))
    parts = hold_out(tracks, share=0.1, seed=0)
    return {track.track_id for track, of_track in zip(tracks, parts, strict=True) if of_track == part}


@pytest.fixture(scope="module")
def done(tones_encoder: Path):
    """The folder of an encoder, and what the command printed."""
    return tones_encoder, tones_encoder.with_name("shown.txt").read_text()


def test_the_listeners_of_tracks_that_it_never_heard_are_found_by_their_sound_alone(done):
    metrics = json.loads((done[0] / "metrics.json").read_text())
    assert list(metrics) == ["encoder", "popularity", "random", "permuted"]
    assert metrics["encoder"]["auc"]["low"] > 0.75  # nobody knows better than by the kind: .83
    assert metrics["encoder"]["auc"]["low"] > metrics["permuted"]["auc"]["high"]
    for floor in ("popularity", "random", "permuted"):
        assert metrics["encoder"]["auc"]["value"] > metrics[floor]["auc"]["value"] + 0.15
        assert metrics["encoder"]["track_recall_at_10"]["value"] > metrics[floor]["track_recall_at_10"]["value"]


def test_an_encoder_of_a_made_up_platform_tells_its_caveat_and_another_has_none(given, data, tmp_path):
    assert data.facts["log"]["caveat"] is None
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "config.json").write_text('{"caveat": "All of it is made up."}')
    made_up = shutil.copy(given["log"], tmp_path)
    assert prepare(EncoderTraining(**given | {"log": str(made_up)})).facts["log"]["caveat"] == "All of it is made up."


def test_the_command_tells_what_the_encoder_finds_and_what_others_find(done):
    out, shown = done
    first, second, *floors = shown.splitlines()
    assert first.startswith(f"{out}: audio encoder of 72 tracks; best at step ")
    assert second == "9 tracks of artists that it never heard:"
    assert [line.split()[0] for line in floors] == ["encoder", "popularity", "random", "permuted"]


def test_the_folder_is_an_encoder_of_the_tower_s_width_and_says_how_it_was_made(done, given):
    manifest = load_audio_encoder(done[0]).manifest
    assert (manifest.dim, manifest.name, manifest.window_s, manifest.unit_norm) == (40, "ours", 30.0, True)
    assert manifest.files.keys() == {"audio_encoder.onnx", "metrics.json"}
    assert "<h1>It finds listeners of unheard tracks better than " in (done[0] / "report.html").read_text()
    training = manifest.training
    assert training["tracks"] == {"train": 72, "valid": 9, "test": 9}
    assert (training["config"]["margin"], training["config"]["negatives"], training["config"]["loss"]) == (
        0.2, 1, "hinge"
    )  # fmt: skip
    assert training["trained_until_ms"] == UNTIL
    assert [point["step"] for point in training["course"]] == [20, 40]


def test_the_sealed_encoder_places_a_track_where_training_saw_it(done, data: EncoderData, given):
    encoder = load_audio_encoder(done[0])
    trained = fit(data, EncoderTraining(**given), sounds=data.sounds, steps=40, valid=data.valid)
    low, high = place_tracks(trained.network, data.sounds, [0, 40], frames=data.frames, device=data.device)
    assert low @ high < 0.8
    for track_id, place in ((IDS[0], low), (IDS[40], high)):
        path = str(Path(given["store"]).parent / "audio" / f"{track_id}.wav")
        audio = decode_windows(path, plan=WindowPlan(), sample_rate=8_000, max_duration_s=60)
        # The repeated waveform and the repeated spectrogram differ at the seams, twenty of 938 frames.
        assert encoder.embedding(audio.waveforms) @ place > 0.99


def test_tracks_that_are_held_out_are_never_heard_in_training_and_place_nobody(
    given, data: EncoderData, tones_store: Path
):
    held_out = names(tones_store, Part.VALID) | names(tones_store, Part.TEST)
    assert len(held_out) == 18
    heard = set[str]()

    class Recorded(Sounds):
        def crops(self, tracks, **options):
            heard.update(IDS[track] for track in tracks)
            return super().crops(tracks, **options)

    recorded = Recorded(open_store(tones_store), pl.Series(IDS), np.arange(len(IDS)))
    for loss in ("hinge", "infonce"):
        settings = EncoderTraining(**given | {"loss": loss, "batch": 200, "negatives": 2})
        fit(data, settings, sounds=recorded, steps=2, valid=None)
    assert heard == set(IDS) - held_out
    assert {IDS[track] for track in data.test.tracks} == names(tones_store, Part.TEST)
    assert data.pairs.liked.at.max() < UNTIL
    log, tower = read_log(given["log"]), load_user_tower(given["tower"])
    rows, everybody = tower.items.rows(log.tracks), np.arange(len(log.users))
    with_them = place_people(tower, log, rows, everybody, log.offsets[1:])
    rows[[IDS.index(track_id) for track_id in held_out]] = -1
    without = place_people(tower, log, rows, everybody, log.offsets[1:])
    np.testing.assert_array_equal(data.test.people, without.vectors)
    assert np.abs(with_them.vectors - without.vectors).max() > 0.01
    trained = np.array([track_id not in held_out for track_id in log.tracks])
    liked = liked_tracks(tower, log, rows, trained, until_ms=UNTIL, most=10_000, seed=0)
    np.testing.assert_array_equal(data.pairs.liked.vectors, liked.vectors)


def test_a_control_takes_its_last_step_and_controls_are_at_chance(data: EncoderData, given):
    """In the mean of exchanges that leave as many tracks with a sound of their own kind as with one of the other."""
    low, settings = np.array([is_low(int(name[1:])) for name in IDS]), EncoderTraining(**given | {"batch": 16})

    def auc(sounds: Sounds) -> float:
        trained = fit(data, settings, sounds=sounds, steps=10, valid=None)
        assert (trained.best_step, trained.course) == (10, [])
        return float(data.test.auc(cold_scores(trained.network, data, data.test)).mean())

    drawn = (exchange(data.trained, seed=seed) for seed in range(1000))
    fair = islice((sound_of for sound_of in drawn if (low == low[sound_of])[data.trained].mean() == 0.5), 16)
    aucs = [auc(data.sounds.exchanged(sound_of)) for sound_of in fair]
    bound = student_t(15).ppf(0.9995) * np.std(aucs, ddof=1) / 4  # of 1,000 means that are at chance, one is beyond it
    assert abs(np.mean(aucs) - 0.5) < bound
    assert auc(data.sounds) > np.mean(aucs) + bound  # as many steps on true sounds are enough to learn from them


def test_infonce_learns_as_well(data: EncoderData, given):
    settings = EncoderTraining(**given | {"loss": "infonce"})
    assert fit(data, settings, sounds=data.sounds, steps=40, valid=data.valid).valid_auc > 0.75


def test_equal_seeds_give_equal_encoders_and_others_give_others(data: EncoderData, given):
    def weights(seed: int) -> torch.Tensor:
        trained = fit(data, EncoderTraining(**given | {"seed": seed}), sounds=data.sounds, steps=4, valid=None)
        return torch.cat([weight.flatten() for weight in trained.network.parameters()])

    first, same, other = weights(0), weights(0), weights(1)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_training_ends_when_validations_bring_nothing_better_and_keeps_the_best(
    data: EncoderData, given, monkeypatch
):
    aucs = iter([0.6, 0.7, 0.65, 0.7, 0.9])
    monkeypatch.setattr(type(data.valid), "auc", lambda *_: np.array([next(aucs)]))
    settings = EncoderTraining(**given | {"validate_every": 2, "patience": 2})
    trained = fit(data, settings, sounds=data.sounds, steps=10, valid=data.valid)
    assert (trained.best_step, trained.valid_auc, len(trained.course)) == (4, 0.7, 4)


def test_a_loss_that_is_no_number_ends_the_training(data: EncoderData, given):
    with pytest.raises(SettingsError, match="the loss is no number any more after 20 steps; run this again with"):
        fit(data, EncoderTraining(**given | {"learning_rate": 1e30}), sounds=data.sounds, steps=20, valid=None)


def write(path: Path, *rows: tuple[str, str, int]) -> str:
    pl.DataFrame(list(rows), orient="row", schema=["user_id", "track_id", "at"]).write_parquet(path)
    return str(path)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"mel": ENCODER}, ReleaseError, "the features in .* are others: log-mels .* compute them again"),
        ({"log": "others.parquet"}, SettingsError, "has no track of .*store; compute the features"),
        ({"log": "one.parquet"}, SettingsError, "leaves none for valid; write it anew"),
        ({"log": "late.parquet"}, SettingsError, "has no liked track of .* by somebody with a history, and before"),
        ({"store": "nowhere"}, ReleaseError, "nowhere has no store.json"),
        ({"tower": "nowhere"}, ReleaseError, "nowhere"),
        ({"held_out": "nowhere"}, SettingsError, "nowhere cannot be read .*; name a file that `hold-out` wrote"),
        ({"device": "cuda"}, SettingsError, "device=cuda, but PyTorch finds no GPU here"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence_and_leaves_nothing(given, tmp_path, changes, error, says):
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    write(tmp_path / "others.parquet", ("ann", "x1", UNTIL), ("ann", "x2", UNTIL + 1))
    write(tmp_path / "one.parquet", ("ann", IDS[0], UNTIL - 2000), ("ann", IDS[1], UNTIL - 1000))
    write(tmp_path / "late.parquet", *((f"u{user}", track, UNTIL + place) for user in range(4)
          for place, track in enumerate(IDS) if place % 4 == user))  # fmt: skip
    paths = {
        name: str(tmp_path / value) for name, value in changes.items() if name in ("log", "store", "tower", "held_out")
    }
    settings = EncoderTraining(**given | changes | paths | {"out": str(tmp_path / "out")})
    with pytest.raises(error, match=says) as refused:
        run(settings)
    assert isinstance(refused.value, TastewaveError)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
