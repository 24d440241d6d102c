"""`reproduce gtzan` and `reproduce fma-small` as a whole, on sets of tones in their shape."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from models.audio.windows import WindowPlan, decode_windows
from models.errors import ReleaseError, SettingsError
from models.mel import musicnn_log_mel
from models.release import load_release
from models.sealed_folder import load_sealed
from models.tagger import Tagger
from offline.audio_encoder.data import prepare
from offline.audio_encoder.fit import fit
from offline.audio_encoder.settings import EncoderTraining
from offline.audio_encoder.sounds import Sounds, place_tracks
from offline.cli import cli
from offline.features import extract
from offline.features.held_out import read_held_out
from offline.features.store import open_store
from offline.genre.catalogue import LabelledFile, labelled_tracks
from offline.genre.hearing import hear, heard_in, listening
from offline.interactions.log import read_log
from offline.reproduce import protocol, sources
from offline.reproduce.embed import dealt, permuted_sounds
from offline.reproduce.gtzan import read_gtzan
from offline.reproduce.protocol import run
from offline.reproduce.settings import Protocol
from offline.reproduce.sources import open_source
from offline.spread import SHARD
from offline.user_tower.settings import TowerTraining
from tests.conftest import MadeOnce
from tests.offline.audio_encoder import tones
from tests.offline.reproduce.small_sets import GENRES, write_fma_small, write_gtzan
from tests.platform.encoders import write_filterbank
from tests.platform.taste import write_release

CAVEAT = "All of it is made up."
ENCODER = {"steps": 3, "validate_every": 3, "batch": 8, "crop_s": 1.0, "device": "cpu", "mel": tones.MEL}
QUICK = ["folds=3", "repeats=2", "--processes", "1"]
PERMUTED = [f"permuted-{number:03d}" for number in range(20)]


def given(words: dict[str, Any]) -> list[str]:
    return [word for name, value in words.items() for word in (f"--{name}", str(value))]


def invoke(command: str, words: dict[str, Any], *more: str) -> Any:
    return CliRunner(env={"COLUMNS": "140"}).invoke(cli, ["reproduce", command, *given(words), *QUICK, *more])


@pytest.fixture(scope="module")
def source(made_once: MadeOnce, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A made-up platform, as --log takes it."""
    folder = tmp_path_factory.mktemp("platform")
    (folder / "truth").mkdir()
    (folder / "truth" / "config.json").write_text(json.dumps({"caveat": CAVEAT}))
    return {
        "log": tones.write_listens(folder / "log.parquet"),
        "store": made_once("tones-store", tones.write_store) / "store",
        "tower": made_once("tones-tower", tones.write_tower),
    }


def encoder_training(source: dict[str, Any], held_out: Path) -> EncoderTraining:
    places = {name: str(place) for name, place in source.items()}
    return EncoderTraining(**places, held_out=str(held_out), out="nowhere", **ENCODER)


@pytest.fixture(scope="module")
def of_gtzan(source: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], Any]:
    """The folder of a run, the words that it was given, and what it printed."""
    folder = tmp_path_factory.mktemp("gtzan")
    write_gtzan(folder)
    mel = "{sample_rate=8000,n_fft=512,hop_length=256,n_mels=24}"
    words = [f"encoder={{steps=3,validate_every=3,batch=8,crop_s=1.0,device='cpu',mel={mel}}}", "--force"]
    words += [f"lists={folder / 'lists'}", *given({"audio": folder / "audio", "out": folder / "out"})]
    done = invoke("gtzan", source, *words)
    assert done.exit_code == 0, (done.output, done.exception)
    return folder / "out", words, done


def results_of(out: Path) -> dict[str, Any]:
    load_sealed(out / "results", SHARD, make=lambda *_: None)
    return json.loads((out / "results" / "results.json").read_text())


def folder_in(place: Path) -> Path:
    (only,) = [path for path in place.iterdir() if path.is_dir()]
    return only


def test_every_recipe_and_control_stands_beside_the_published_figures(of_gtzan):
    out, _, done = of_gtzan
    rows = {row["name"]: row for row in results_of(out)["rows"]}
    assert {name: row["published"] for name, row in rows.items()} == {
        "reference": 0.7724, "audio": 0.7653, "preference": 0.8013, "embedding": None, "permuted": None,
        "random": None, "noise": None,
    }  # fmt: skip
    for row in rows.values():
        assert list(row["splits"]) == ["train to test"]
        assert (row["folds"] is None) == (row["name"] == "reference")
    for text in (done.output, (out / "results" / "report.md").read_text()):
        for told in ("reference repository", "audio + preference", "preference alone", "audio + permuted (20)",
                     "audio + random", "audio + noise", ".7724", ".7653", ".8013", "McNemar", "by rank"):  # fmt: skip
            assert told in text


def test_a_demonstration_is_marked_in_what_is_printed_and_in_the_results(of_gtzan):
    out, _, done = of_gtzan
    assert results_of(out)["demonstration"] == CAVEAT
    assert "A demonstration: the taste space was learned from a made-up platform" in done.output
    assert "> **A demonstration: the taste space was learned" in (out / "results" / "report.md").read_text()


def test_the_figures_are_those_of_the_tracks_on_which_each_recipe_was_right(of_gtzan):
    out, _, _ = of_gtzan
    told, judged = results_of(out), folder_in(out / "judged")
    right = {path.name: np.load(path / "right.npy") for path in judged.iterdir()}
    assert right.keys() == {"audio", "preference", "embedding", "random", "noise", *PERMUTED}
    rows = {row["name"]: row for row in told["rows"]}
    for name in ("audio", "preference", "embedding", "random", "noise"):
        assert right[name].shape == (2, 24)
        assert rows[name]["folds"]["value"] == pytest.approx(right[name].sum() / 48)
    accuracies = [right[name].sum() / 48 for name in PERMUTED]
    assert told["permuted"]["accuracies"] == pytest.approx(accuracies)
    reached = sum(one >= right["preference"].sum() / 48 for one in accuracies)
    assert told["permuted"]["p"] == pytest.approx((1 + reached) / 21)
    difference = (right["preference"].sum() - right["audio"].sum()) / 48
    assert told["primary"]["value"] == pytest.approx(difference)
    assert told["splits"]["train to test"]["tracks"] == 8
    assert (told["tracks"], told["artists"], told["genres"]) == (24, 12, list(GENRES))


def test_tones_that_listeners_part_are_parted_by_the_embedding_alone(of_gtzan):
    (row,) = [row for row in results_of(of_gtzan[0])["rows"] if row["name"] == "embedding"]
    assert row["folds"]["value"] > 0.9


def test_each_permuted_encoder_is_another_and_the_true_one_is_that_of_train_audio_encoder(of_gtzan, source):
    out, _, _ = of_gtzan
    embedded = folder_in(out / "embeddings")
    vectors = {path.name: np.load(path / "embedding.npy") for path in embedded.iterdir()}
    assert vectors.keys() == {"preference", "random", *PERMUTED}
    assert len({one.tobytes() for one in vectors.values()}) == 22
    settings = encoder_training(source, out / "held-out.csv")
    data, store = prepare(settings), open_store(out / "heard")
    trained = fit(data, settings, sounds=data.sounds, steps=3, valid=data.valid)
    ids = [track.track_id for track in store]
    sounds = Sounds(store, pl.Series(ids), np.arange(24))
    expected = place_tracks(trained.network, sounds, range(24), frames=data.frames, device=data.device)
    np.testing.assert_allclose(vectors["preference"], expected, atol=1e-5)


def test_permuted_artists_keep_their_tracks_together_within_what_is_learned_from_and_what_is_validated(source):
    settings = encoder_training(source, source["store"].with_name("held-out.csv"))
    data, store = prepare(settings), open_store(source["store"])
    ids = data.sounds.track_ids
    sound_of = permuted_sounds(data, store, seed=0)
    assert sorted(sound_of) == list(range(len(ids)))
    trained, valid = np.flatnonzero(data.trained), data.valid.tracks
    assert set(sound_of[trained]) == set(trained)
    assert set(sound_of[valid]) == set(valid)
    assert (sound_of[trained] != trained).mean() > 0.8
    artist = np.array([store[name].artist_id for name in ids])
    whole = [len(set(artist[sound_of[trained[artist[trained] == one]]])) for one in set(artist[trained])]
    assert set(whole) == {1}  # all artists have three tracks, and each took the sounds of one other
    assert (permuted_sounds(data, store, seed=1) != sound_of).any()


def test_tracks_are_dealt_by_artist_in_the_new_order_of_the_artists():
    tracks, artists = np.array([10, 11, 12, 13, 14]), np.array([7, 8, 7, 9, 8])
    dealt_from, dealt_to = dealt(tracks, artists, lambda count: np.array([2, 0, 1]))  # 8, 9, 7
    assert dealt_to.tolist() == [10, 12, 11, 14, 13]  # as they stood: 7, 7, 8, 8, 9
    assert dealt_from.tolist() == [11, 14, 13, 10, 12]


def test_a_run_that_was_stopped_goes_on_with_what_is_missing(of_gtzan, source):
    out, words, _ = of_gtzan
    before = (out / "results" / "results.json").read_bytes()
    lost = folder_in(out / "judged") / "permuted-007"
    shutil.rmtree(lost)
    shutil.rmtree(out / "results")
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    done = invoke("gtzan", source, *words)
    assert done.exit_code == 0, done.exception
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    assert after.keys() - made.keys() == {lost / "right.npy", lost / "right-of-splits.npy"}
    assert {path: after[path] for path in made} == made
    assert (out / "results" / "results.json").read_bytes() == before


def test_features_encoders_and_recipes_are_shards_that_a_ray_cluster_can_do(of_gtzan, source, monkeypatch):
    out, words, _ = of_gtzan
    before, asked = (out / "results" / "results.json").read_bytes(), dict[str, list[str]]()

    def spread(work: Any, shards: dict[str, Any], *, ray: str, label: str, **_: Any) -> list[str]:
        assert ray == "10.0.0.1:6379"
        pickle.dumps((work, shards))
        asked.setdefault(label, []).extend(shards)
        return []

    for module in (protocol, extract):
        monkeypatch.setattr(module, "spread", spread)
    done = invoke("gtzan", source, *words, "--ray", "10.0.0.1:6379")
    assert done.exit_code == 0, done.exception
    assert asked["Encoders"] == ["preference", "random", *PERMUTED]
    assert sorted(asked["Recipes"]) == sorted(path.name for path in folder_in(out / "judged").iterdir())
    assert asked["Hearing tracks"] == []  # all are heard
    assert (out / "results" / "results.json").read_bytes() == before


def test_the_folder_of_a_run_is_not_taken_for_another_set(of_gtzan):
    out, _, _ = of_gtzan
    other = replace(read_gtzan(out.parent / "audio", lists=out.parent / "lists"), name="FMA-small")
    with pytest.raises(SettingsError, match="holds a run on another set than FMA-small; name another folder"):
        run(Protocol(audio="a", release="r", out=str(out)), other)


def test_what_a_store_holds_is_what_a_genre_head_would_hear_in_the_files(of_gtzan):
    out, _, _ = of_gtzan
    store = open_store(out / "heard")
    stored = heard_in(store, labelled_tracks(store), encoders={})
    audio = out.parent / "audio"
    wanted = [LabelledFile(where=str(audio / f"{file.where}.wav"), labels=file.labels, artist_id=file.artist_id)
              for file in stored.files[:2]]  # fmt: skip
    heard = hear(wanted, listening(load_release(), ("msd",)), encoders={})
    assert heard.content == stored.content[:2]
    for mine, its in zip(stored.features, heard.features, strict=False):
        np.testing.assert_allclose(mine["msd.max_pool"], its["msd.max_pool"], rtol=2e-3, atol=1e-2)  # float16


def test_the_reference_recipe_hears_a_patch_each_second_of_the_audio_as_it_is(of_gtzan):
    out, _, _ = of_gtzan
    store, audio = open_store(out / "patches"), out.parent / "audio"
    path = audio / "low" / "low.00003.wav"
    (waveform,) = decode_windows(path, plan=WindowPlan(), sample_rate=16_000, max_duration_s=60).waveforms
    expected = load_release().network("msd")(musicnn_log_mel(waveform), hop=61).max_pool
    assert len(expected) == 2  # 4.3 s: from 0 to 3 s, and from 1 to 4 s
    np.testing.assert_allclose(store.patch_max_pool("low/low.00003", "msd", 0), expected, atol=0.05)  # float16
    with pytest.raises(ReleaseError, match="front end musicnn-1 there, musicnn-1 at -20 LUFS here"):
        open_store(out / "patches", release=load_release())


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    return write_release(folder / "release", None, audio_encoder=write_filterbank(folder / "encoder", dim=6))


@pytest.fixture(scope="module")
def of_fma(release: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = write_fma_small(tmp_path_factory.mktemp("fma"))
    words = {"audio": folder / "audio", "metadata": folder / "metadata", "release": release, "out": folder / "out"}
    done = invoke("fma-small", words, "reference_patches=10")
    assert done.exit_code == 0, (done.output, done.exception)
    return folder / "out", done


def test_fma_small_runs_on_both_splits_with_the_encoder_of_a_release(of_fma):
    out, done = of_fma
    told = results_of(out)
    rows = {row["name"]: row for row in told["rows"]}
    assert rows["audio"]["published"] == 0.5918
    assert rows["preference"]["published"] == 0.6148
    for row in rows.values():
        assert list(row["splits"]) == ["7:3 stratified", "official"]
    assert {name: split["tracks"] for name, split in told["splits"].items()} == {"7:3 stratified": 8, "official": 4}
    assert told["demonstration"] is None
    assert "demonstration" not in done.output


def test_a_release_has_no_permuted_control_and_the_run_says_so(of_fma):
    out, done = of_fma
    assert results_of(out)["permuted"] is None
    assert "No permuted control: it trains encoders anew, which takes listens" in done.output


def test_clips_that_cannot_be_heard_and_patches_that_are_passed_over_are_told(of_fma):
    told = results_of(of_fma[0])
    assert told["tracks"] == 24
    assert "1 tracks cannot be heard, and are left out; heard/failures.csv names them" in told["notes"]
    assert "on the split official, the reference recipe learns from one patch in 4" in told["notes"]


def test_the_embedding_of_a_release_is_what_its_encoder_gives_in_service(of_fma, release):
    out, _ = of_fma
    embedded = folder_in(out / "embeddings")
    vectors = np.load(embedded / "preference" / "embedding.npy")
    assert vectors.shape == (24, 6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    served = Tagger(load_release(release)).tag(out.parent / "audio" / "000" / "000100.mp3").embedding
    np.testing.assert_allclose(vectors[0], served, atol=1e-5)


def test_a_demonstration_is_refused_unless_it_is_forced(source, release, tmp_path):
    words = {"audio": tmp_path, "out": tmp_path / "out"}
    with pytest.raises(SettingsError, match=r"is a demonstration, .*All of it is made up\), .*add --force"):
        open_source(Protocol(**{name: str(place) for name, place in (words | source).items()}))
    encoder = shutil.copytree(release.parent / "encoder", tmp_path / "encoder")
    manifest = json.loads((encoder / "audio_encoder.json").read_text())
    manifest["training"] = {"log": {"caveat": CAVEAT}}
    (encoder / "audio_encoder.json").write_text(json.dumps(manifest))
    of_made_up = write_release(tmp_path / "release", None, audio_encoder=encoder)
    settings = {"audio": str(tmp_path), "release": str(of_made_up)}
    with pytest.raises(SettingsError, match=r"is a demonstration"):
        open_source(Protocol(**settings))
    assert open_source(Protocol(**settings, force=True)).caveat == CAVEAT


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({}, "one source; name it with --release or with --log"),
        ({"release": "r", "log": "l"}, "one source; name it with --release or with --log"),
        ({"log": "l"}, "name the folder that `features` wrote of them with --store"),
        ({"log": "l", "store": "s", "encoder": {"seed": 3}}, "encoder.seed is set by this job; give it as seed"),
    ],
)
def test_a_source_that_is_not_whole_is_refused_in_one_sentence(words, said, tmp_path):
    with pytest.raises(SettingsError) as refused:
        open_source(Protocol(audio="a", out=str(tmp_path), **words))
    assert said in str(refused.value)


def test_a_tower_that_was_trained_here_is_taken_again_for_its_log_and_list_alone(source, tmp_path, monkeypatch):
    trained = list[str]()

    def train(settings: TowerTraining) -> None:
        trained.append(settings.log)
        tower = Path(shutil.copytree(source["tower"], settings.out, dirs_exist_ok=True)) / "tower.json"
        log, held_out = read_log(settings.log), read_held_out(str(settings.held_out))
        training = {"log": {"fingerprint": log.fingerprint}, "held_out": held_out.facts()}
        tower.write_text(json.dumps(json.loads(tower.read_text()) | {"training": training}))

    monkeypatch.setattr(sources.tower_training, "run", train)
    words = {"audio": "a", "out": str(tmp_path / "out"), "store": str(source["store"]), "force": True}
    of_log = Protocol(**words, log=str(source["log"]), encoder={"mel": msgspec.to_builtins(tones.MEL)})
    first = open_source(of_log).facts
    assert open_source(of_log).facts == first
    other = msgspec.structs.replace(of_log, log=tones.write_listens(tmp_path / "other.parquet", seed=2))
    assert open_source(other).facts["log"] != first["log"]
    other_list = open_source(msgspec.structs.replace(other, seed=1)).facts["training"]
    assert other_list["held_out"] != first["training"]["held_out"]
    assert trained == [of_log.log, other.log, other.log]


def test_a_release_without_an_audio_encoder_is_refused(tmp_path):
    release = load_release(write_release(tmp_path / "plain", None))
    with pytest.raises(SettingsError, match=f"release {release.release_id} has no audio encoder"):
        open_source(Protocol(audio="a", out=str(tmp_path), release=str(release.folder)))
