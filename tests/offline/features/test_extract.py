import csv
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import polars as pl
import pytest

from models.audio.loudness import made_as_loud
from models.audio.windows import WindowPlan, decode_windows
from models.contract import decode_taggram
from models.errors import ReleaseError, SettingsError
from models.mel import MUSICNN, MelConfig, log_mel
from models.release import load_release
from models.tagger import Tagger
from offline.features import extract
from offline.features.hear import Wanted
from offline.features.settings import Features
from offline.features.store import FeatureStore, open_store, settled
from tests.offline.features.catalogues import write_folder, write_table
from tests.offline.features.dying import DyingHearing
from tests.platform.music import write_music

ROOT = Path(__file__).parents[3]


def compute(catalogue: Path, out: Path, **settings: Any) -> extract.Outcome:
    return extract.run(Features(catalogue=str(catalogue), out=str(out), **{"processes": 1, **settings}))


def failures(out: Path) -> dict[str, str]:
    with (out / "failures.csv").open(newline="") as file:
        return {row["track_id"]: row["reason"] for row in csv.DictReader(file)}


def shards(out: Path) -> dict[str, int]:
    """The shards that there are, each with the number of its file system entry: a new one where it was made again."""
    return {path.name: path.stat().st_ino for path in (out / "shards").iterdir()}


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("music"))


@pytest.fixture(scope="module")
def made(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the folder with all that can be kept, in two shards, and of a track of two windows."""
    write_music(music / "long.wav", seconds=65.0, seed=9)
    out = tmp_path_factory.mktemp("made") / "store"
    settings = {
        "mel": MUSICNN,
        "networks": ("msd", "mtt"),
        "patches": True,
        "genre_folders": True,
        "tracks_per_shard": 4,
    }
    outcome = compute(music, out, **settings)
    assert (outcome.tracks, outcome.unchanged, outcome.failed) == (5, 0, 1)
    return out


@pytest.fixture
def store(made: Path) -> FeatureStore:
    return open_store(made, mel=MUSICNN, release=load_release())


@pytest.fixture
def light() -> dict[str, Any]:
    """Settings of a store that is quickly made."""
    return {"networks": (), "mel": MelConfig(sample_rate=16_000, n_fft=512, hop_length=512, n_mels=8)}


def test_a_store_has_the_tracks_in_order_and_tells_which_could_not_be_heard_and_why(made: Path, store: FeatureStore):
    assert [(track.track_id, track.genre, track.artist_id) for track in store] == [
        ("blues/one.wav", "blues", None),
        ("blues/two.flac", "blues", None),
        ("long.wav", None, None),
        ("rock/one.wav", "rock", None),
        ("rock/three.mp3", "rock", None),
    ]
    assert failures(made) == {"rock/broken.mp3": "not_audio"}
    assert (len(store), "long.wav" in store, "rock/broken.mp3" in store) == (5, True, False)
    assert [round(store[name].duration_s) for name in ("blues/one.wav", "long.wav")] == [4, 65]
    assert store["long.wav"].starts_ms == (1000, 33_000)  # the middles of two halves of 32.5 s
    store.verify()


def test_a_track_has_the_features_that_a_worker_hears_to_the_bit(music: Path, store: FeatureStore):
    tagger = Tagger(load_release())
    for track in store:
        tagging = tagger.tag(music / track.track_id)
        assert np.array_equal(store.taggram(track.track_id, "msd") / np.float32(255), decode_taggram(tagging.taggram))
        features = store.features(track.track_id)
        assert len(features) == len(tagging.windows["msd"]) == len(track.starts_ms)
        for kept, heard in zip(features, tagging.windows["msd"], strict=True):
            published = {"max_pool": heard.max_pool, "taggram.mean": heard.taggram_mean}
            for what, content in (published | {"taggram.spread": heard.taggram_spread}).items():
                assert np.array_equal(kept[f"msd.{what}"], np.frombuffer(content, "<f2").astype(np.float32))
        assert track.starts_ms == tuple(window.start_ms for window in tagging.windows["msd"])


def test_features_can_be_decided_on_by_the_release(music: Path, store: FeatureStore):
    decision = load_release().genre_head().decide(store.features("long.wav"))
    tagging = Tagger(load_release()).tag(music / "long.wav")
    assert dict(decision.genres) == pytest.approx(dict(tagging.genres), abs=0.01)


def test_the_max_pool_of_a_window_is_the_mean_of_those_of_its_patches(store: FeatureStore):
    for window, features in enumerate(store.features("long.wav")):
        patches = store.patch_max_pool("long.wav", "mtt", window).astype(np.float32)
        assert patches.shape == (10, 753)
        np.testing.assert_allclose(patches.mean(axis=0), features["mtt.max_pool"], atol=0.02)


def window_of(path: Path, *, sample_rate: int, window: int) -> np.ndarray:
    """As loud as the network hears it, whatever the rate."""
    heard = decode_windows(path, plan=WindowPlan(), sample_rate=16_000, max_duration_s=3600).waveforms
    audio = decode_windows(path, plan=WindowPlan(), sample_rate=sample_rate, max_duration_s=3600)
    gain = made_as_loud(heard, lufs=-20.0, sample_rate=16_000)[0].max() / heard[0].max()
    return audio.waveforms[window] * gain


def test_log_mels_are_those_of_the_windows_as_float16(music: Path, store: FeatureStore):
    for window in (0, 1):
        kept = store.log_mel("long.wav", window)
        assert (kept.shape, kept.dtype, kept.flags.writeable) == ((1876, 96), np.float16, False)
        expected = log_mel(window_of(music / "long.wav", sample_rate=16_000, window=window), MUSICNN)
        np.testing.assert_allclose(kept.astype(np.float32), expected, atol=0.035)  # half a step of float16 at 100
    with pytest.raises(IndexError, match="2 windows, not a window 2"):
        store.log_mel("long.wav", 2)


def test_an_encoder_places_a_track_by_its_log_mels_as_a_worker_does_by_its_audio(tmp_path: Path):
    path = write_music(tmp_path / "whole.wav", seconds=30.0)
    hearing, _ = extract.hearing_of(Features(catalogue="none", out="none", networks=()))
    log_mels = np.load(io.BytesIO(hearing([Wanted(str(path), "1 1")])["log_mel.npy"]))
    release = load_release()
    encoder = release.audio_encoder()
    place = encoder.mean(encoder.of_log_mels([log_mels]))
    np.testing.assert_allclose(place, Tagger(release).tag(path).embedding, atol=1e-5)


def test_log_mels_of_another_rate_are_of_the_same_windows(music: Path, tmp_path: Path):
    mel = MelConfig(sample_rate=22_050, n_fft=1024, hop_length=441, n_mels=40, fmin=30.0, htk=True, norm=None)
    table = write_table(tmp_path / "tracks.csv", {"track_id": ["a"], "uri": [str(music / "long.wav")]})
    compute(table, tmp_path / "store", mel=mel, networks=())
    store = open_store(tmp_path / "store", mel=mel)
    expected = log_mel(window_of(music / "long.wav", sample_rate=22_050, window=1), mel)
    assert store["a"].starts_ms == (1000, 33_000)
    np.testing.assert_allclose(store.log_mel("a", 1).astype(np.float32), expected, atol=0.035)
    assert store.features("a") == []


def test_a_store_is_refused_where_another_front_end_network_or_spectrogram_is_needed(music: Path, made: Path):
    release = load_release()
    other = load_release()
    other.manifest = release.manifest.__class__(
        **{name: getattr(release.manifest, name) for name in release.manifest.__struct_fields__}
        | {
            "files": {
                name: file.__class__(sha256="0" * 64, bytes=file.bytes) for name, file in release.manifest.files.items()
            }
        }
    )
    with pytest.raises(ReleaseError, match="network msd 021bccf147df there, 000000000000 here; name another folder"):
        open_store(made, release=other)
    with pytest.raises(ReleaseError, match=r"others: log-mels \{.*\"n_mels\":96.*there, .*\"n_mels\":64.*here"):
        open_store(made, mel=MelConfig(sample_rate=16_000, n_fft=512, hop_length=256, n_mels=64))
    with pytest.raises(ReleaseError, match="others: patch hop 187 there, 61 here"):
        compute(music, made, mel=MUSICNN, networks=("msd", "mtt"), patches=True, patch_hop=61)
    with pytest.raises(ReleaseError, match="others: front end musicnn-1 at -20 LUFS there, musicnn-1 here"):
        compute(music, made, mel=MUSICNN, loudness_lufs="as_is", networks=("msd", "mtt"), patches=True)
    with pytest.raises(ReleaseError, match="others: front end musicnn-1 at -20 LUFS there, musicnn-1 at -14 LUFS here"):
        compute(music, made, mel=MUSICNN, loudness_lufs=-14.0, networks=("msd", "mtt"), patches=True)
    with pytest.raises(ReleaseError, match=r'others: networks {"msd":"021bccf147df","mtt":"\w+"} there, {"msd":'):
        compute(music, made)


def test_a_folder_of_something_else_is_not_written_to(music: Path, tmp_path: Path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(SettingsError, match="holds files of something else; name a new folder"):
        compute(music, tmp_path)
    with pytest.raises(ReleaseError, match=r"has no store\.json; name the folder of a feature store"):
        open_store(tmp_path)


def test_what_is_to_be_computed_has_to_be_something_that_there_is(music: Path, tmp_path: Path):
    with pytest.raises(SettingsError, match="has no network jazz; there are msd, mtt"):
        compute(music, tmp_path / "store", networks=("jazz",))
    with pytest.raises(SettingsError, match="there is nothing to compute"):
        compute(music, tmp_path / "store", networks=(), log_mels=False)


def test_only_what_is_new_or_has_changed_is_heard_again(music: Path, tmp_path: Path, light: dict[str, Any]):
    folder, out = shutil.copytree(music / "blues", tmp_path / "music"), tmp_path / "store"
    assert compute(folder, out, **light).unchanged == 0
    before, first = open_store(out), shards(out)

    assert compute(folder, out, **light).unchanged == 2
    assert shards(out) == first

    os.utime(folder / "one.wav")  # read, and found to be the same
    (folder / "two.flac").rename(folder / "second.flac")
    write_music(folder / "three.wav", seed=7)
    assert compute(folder, out, **light).unchanged == 0
    after = open_store(out)
    assert [track.track_id for track in after] == ["one.wav", "second.flac", "three.wav"]
    assert [track.shard for track in after] == ["000000", "000000", "000001"]
    assert after["second.flac"].content == before["two.flac"].content
    assert len(np.load(out / "shards" / "000001" / "log_mel.npy")) == after["three.wav"].frames[-1]  # no other's
    assert compute(folder, out, **light).unchanged == 3

    write_music(folder / "one.wav", seed=8)
    compute(folder, out, **light)
    assert open_store(out)["one.wav"].shard == "000002"
    assert not np.array_equal(open_store(out).log_mel("one.wav", 0), before.log_mel("one.wav", 0))


def test_artists_and_genres_are_those_of_the_last_run_and_equal_files_are_kept_once(
    music: Path, tmp_path: Path, light: dict[str, Any]
):
    table, out = tmp_path / "tracks.parquet", tmp_path / "store"
    uris: list[str | None] = [str(music / "blues" / "one.wav"), str(shutil.copy(music / "blues" / "one.wav", tmp_path))]
    write_table(table, {"track_id": ["a", "b"], "uri": uris, "artist_id": ["x", None], "genre": ["jazz", None]})
    compute(table, out, **light)
    store = open_store(out)
    assert [(track.artist_id, track.genre, track.row) for track in store] == [("x", "jazz", 0), (None, None, 0)]
    assert len(np.load(out / "shards" / "000000" / "log_mel.npy")) == store["a"].frames[-1]
    write_table(table, {"track_id": ["a"], "uri": uris[:1], "genre": ["blues"]})
    assert compute(table, out, **light).unchanged == 1
    assert [(track.track_id, track.artist_id, track.genre) for track in open_store(out)] == [("a", None, "blues")]


def test_a_file_that_was_missing_is_tried_again_and_leaves_no_empty_shard(
    music: Path, tmp_path: Path, light: dict[str, Any]
):
    table, out, late = tmp_path / "tracks.csv", tmp_path / "store", tmp_path / "late.wav"
    write_table(table, {"track_id": ["a"], "uri": [str(late)]})
    assert compute(table, out, **light).lines()[1] == f"tracks without features: 1; {out}/failures.csv says why"
    assert (failures(out), shards(out), len(open_store(out))) == ({"a": "not_found"}, {}, 0)
    shutil.copy(music / "blues" / "one.wav", late)
    assert compute(table, out, **light).failed == 0
    assert (failures(out), len(open_store(out))) == ({}, 1)


def test_a_file_whose_processes_die_is_reported_and_those_of_its_shard_are_heard(
    music: Path, tmp_path: Path, light: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    folder, out = shutil.copytree(music / "blues", tmp_path / "music"), tmp_path / "store"
    shutil.copy(music / "rock" / "one.wav", folder / "deadly.wav")
    monkeypatch.setattr(extract, "Hearing", DyingHearing)
    compute(folder, out, **light)
    assert [track.track_id for track in open_store(out)] == ["one.wav", "two.flac"]
    assert failures(out) == {"deadly.wav": "process_crashed"}
    assert compute(folder, out, **light).unchanged == 3  # it is not tried again as long as it stays as it is


def test_a_run_that_is_killed_goes_on_where_it_was(music: Path, tmp_path: Path):
    out = tmp_path / "store"
    words = ["features", str(music), str(out), "tracks_per_shard=1", "processes=1", "networks=[]"]
    command = [sys.executable, "-c", "from offline.cli import main; main()", *words]
    killed = subprocess.Popen(command, cwd=ROOT)
    end = time.monotonic() + 120
    while not list(out.glob("shards/[0-9]*")):
        assert time.monotonic() < end
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    sealed = {name: entry for name, entry in shards(out).items() if not name.startswith(".")}
    assert 1 <= len(sealed) < 6
    with pytest.raises(ReleaseError, match="has not ended; run it again"):
        open_store(out)
    outcome = compute(music, out, networks=(), tracks_per_shard=1)
    assert outcome.unchanged == len(sealed)
    assert sealed.items() <= shards(out).items()
    compute(music, tmp_path / "undisturbed", networks=())
    disturbed, undisturbed = open_store(out), open_store(tmp_path / "undisturbed")
    assert [track.track_id for track in disturbed] == [track.track_id for track in undisturbed]
    for track in undisturbed:
        for window in range(len(track.starts_ms)):
            kept = disturbed.log_mel(track.track_id, window)
            assert np.array_equal(kept, undisturbed.log_mel(track.track_id, window))


def test_damage_is_one_sentence(music: Path, tmp_path: Path, light: dict[str, Any]):
    out = tmp_path / "store"
    compute(music / "blues", out, **light)
    shard = out / "shards" / "000000"
    array = (shard / "log_mel.npy").read_bytes()
    (shard / "log_mel.npy").write_bytes(array[:-1] + bytes([array[-1] ^ 1]))
    with pytest.raises(ReleaseError, match=r"000000/log_mel\.npy is not the file that the manifest describes"):
        open_store(out).verify()
    (shard / "log_mel.npy").write_bytes(array[:1000])
    with pytest.raises(ReleaseError, match="cannot be read"):
        open_store(out).log_mel("one.wav", 0)
    (shard / "log_mel.npy").unlink()
    with pytest.raises(ReleaseError, match=r"has no log_mel .* it was not kept, or its shard is damaged"):
        open_store(out).log_mel("one.wav", 0)
    (shard / "tracks.parquet").write_bytes(b"")
    with pytest.raises(ReleaseError, match="remove the folder of this shard, and run this again"):
        compute(music / "blues", out, **light)
    shutil.rmtree(shard)
    assert compute(music / "blues", out, **light).tracks == 2
    assert len(open_store(out).log_mel("one.wav", 0)) > 100


def test_the_tables_can_be_read_by_others(made: Path):
    tracks = pl.read_parquet(made / "tracks.parquet")
    log_mels = np.load(made / "shards" / "000000" / "log_mel.npy", mmap_mode="r")
    last = tracks.filter(shard="000000").row(-1, named=True)
    assert log_mels.shape == (last["frames"][-1], 96)


def test_no_file_of_a_store_holds_a_signature_and_a_signed_file_is_found_again(
    music: Path, tmp_path: Path, light: dict[str, Any]
):
    """Files in memory stand for those behind signed addresses: fsspec gives them the whole address as their name."""
    signed = "memory://music/one.wav?sig=verysecret"
    fsspec.filesystem("memory").pipe(signed, (music / "blues" / "one.wav").read_bytes())
    table, out = tmp_path / "tracks.csv", tmp_path / "store"
    write_table(table, {"track_id": ["a", "gone"], "uri": [signed, "memory://music/gone.wav?sig=verysecret"]})
    # Processes of their own would have another memory.
    settings = Features(catalogue=str(table), out=str(out), **light)
    hearing, _ = extract.hearing_of(settings)
    files = hearing([Wanted(signed, "1 1"), Wanted("memory://music/gone.wav?sig=verysecret", None)])
    rows = pl.read_parquet(files["tracks.parquet"])
    assert rows["reason"].to_list() == [None, "not_found"]
    assert len(rows["starts_ms"][0]) == 1
    assert not any(b"verysecret" in content for content in files.values())
    compute(table, out, **light)
    assert failures(out).keys() == {"a", "gone"}
    assert not any(b"verysecret" in path.read_bytes() for path in out.rglob("*") if path.is_file())


def test_a_file_that_takes_too_long_is_skipped_and_tried_again_another_time(
    music: Path, light: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    hearing, _ = extract.hearing_of(Features(catalogue="none", out="none", max_file_s=0.2, **light))
    monkeypatch.setattr(type(hearing), "_decoded", lambda *_: threading.Event().wait(60))
    rows = pl.read_parquet(hearing([Wanted(str(music / "blues" / "one.wav"), "1 1")])["tracks.parquet"])
    assert rows["reason"].to_list() == ["process_timed_out"]
    assert "took longer than 0.2 s" in rows["message"][0]
    assert settled(rows).is_empty()
