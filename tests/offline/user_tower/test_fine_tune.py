"""`fine-tune-tower`: on a platform where sound decides taste, and where sounds lie elsewhere than what was learned."""

import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner
from rich.progress import Progress

from models.audio.windows import WindowPlan, decode_windows
from models.audio_encoder import load_audio_encoder
from models.errors import SettingsError, TastewaveError
from models.history import StoredHistory, history_members
from models.refresh import embed_newest, read_newest
from models.user_tower import ITEM_IDS, ITEM_VECTORS, TowerManifest, load_user_tower
from offline.cli import cli
from offline.features.held_out import Part, read_held_out
from offline.ranking.examples import Examples
from offline.ranking.rank import METRICS, rank
from offline.user_tower import by_sound
from offline.user_tower.by_sound import places_by_sound
from offline.user_tower.entering import SoundAlone, Sounds
from offline.user_tower.fine_tune import FineTuned, Parent, TunedNetwork, run
from offline.user_tower.fine_tuning import FineTuning
from offline.user_tower.networks import Items
from offline.user_tower.scorer import NetworkScorer
from tests.conftest import MadeOnce
from tests.offline.audio_encoder import tones
from tests.offline.user_tower.rule_log import QUICK, train_alone


@pytest.fixture(scope="module")
def given(tones_store: Path, tones_tower_without: Path, tones_encoder: Path, tones_log: Path) -> dict[str, Any]:
    return {
        "tower": str(tones_tower_without), "encoder": str(tones_encoder), "features": str(tones_store),
        "log": str(tones_log), "held_out": str(tones_store.with_name("held-out.csv")), "processes": 1,
    }  # fmt: skip


@pytest.fixture(scope="module")
def tuned(made_once: MadeOnce, given: dict[str, Any]) -> tuple[Path, str]:
    """The folder of a tower that was fine-tuned, and what the command printed."""

    def make(folder: Path) -> None:
        folder.mkdir()
        paths = [given[name] for name in ("tower", "encoder", "features", "log")]
        words = ["steps=40", "epochs=1", "validate_every=20", "warm_up=10", "device=cpu", "--processes", "1"]
        arguments = [*paths, str(folder / "tower"), *words, "--held-out", given["held_out"]]
        shown = CliRunner().invoke(cli, ["fine-tune-tower", *arguments])
        assert shown.exit_code == 0, shown.exception
        (folder / "shown.txt").write_text(shown.stdout)

    folder = made_once("tones-tuned", make)
    return folder / "tower", (folder / "shown.txt").read_text()


def test_the_vectors_that_people_are_compared_with_stay_as_they_are_and_the_network_does_not(tuned, given):
    out, parent = tuned[0], Path(given["tower"])
    for name in (ITEM_IDS, ITEM_VECTORS):
        assert (out / name).read_bytes() == (parent / name).read_bytes()
    ours, before = (load_user_tower(folder).manifest for folder in (out, parent))
    assert ours.files["tower.onnx"].sha256 != before.files["tower.onnx"].sha256
    assert (ours.global_embedding, ours.items, ours.history) == (before.global_embedding, 72, 10)
    assert ours.scale == pytest.approx(before.scale)
    assert not out.with_name("tower.partial").exists()


def test_the_manifest_names_the_tower_and_the_encoder_by_their_hashes(tuned, given):
    made = load_user_tower(tuned[0]).manifest.training["fine_tuning"]
    for name, manifest in (("tower", "tower.json"), ("encoder", "audio_encoder.json")):
        files = json.loads(Path(given[name], manifest).read_text())["files"]
        assert made[f"{name}_sha256"] == {file: about["sha256"] for file, about in files.items()}
    assert (made["item_dropout"], made["with_sound"]) == (0.15, 72)


def test_recall_before_and_after_is_told_for_warm_and_for_cold_tracks(tuned, given):
    training = load_user_tower(tuned[0]).manifest.training
    figures = training["fine_tuning"]["recall_at_10"]
    log = pl.read_parquet(given["log"]).sort("at")
    parts = read_held_out(given["held_out"]).parts(log["track_id"])
    asked = log.with_columns(part=pl.Series(parts)).filter(
        pl.col("at") >= tones.UNTIL, pl.col("kind") == "play",
        pl.struct("user_id", "track_id").is_first_distinct(),
    )  # fmt: skip
    heard = log.filter(pl.col("at") < tones.UNTIL).select("user_id", "track_id")
    asked = asked.join(heard, on=["user_id", "track_id"], how="anti")
    assert figures["warm"]["n"] == (asked["part"] == Part.TRAIN).sum()
    assert figures["cold"]["n"] == (asked["part"] == Part.TEST).sum() > 5
    for name in ("warm", "cold", "sound_alone"):
        of_slice = figures[name]
        assert of_slice["n"] > 0
        assert 0 <= of_slice["before"]["value"] <= 1
        difference = of_slice["after"]["value"] - of_slice["before"]["value"]
        assert of_slice["difference"]["value"] == pytest.approx(difference)
        assert of_slice["difference"]["low"] <= difference <= of_slice["difference"]["high"]
    # People hear 45 tracks of their kind, and have heard some 15 to 20 of them: whoever knows no more than the kind
    # finds at least ten of these.
    assert figures["warm"]["after"]["low"] > 10 / 90
    lines = tuned[1].splitlines()
    assert lines[0].startswith(f"{tuned[0]}: {given['tower']}, fine-tuned; 72 of its 72 tracks have a sound; best at")
    assert lines[2].startswith("  tracks with a learned vector: ")
    assert f"n {figures['cold']['n']})" in lines[3]


def test_a_worker_places_people_by_tracks_that_nobody_has_heard(tuned, given, tones_store: Path):
    """By the sound that a worker hears, through the code that it runs; and people of either kind come apart."""
    tower, encoder = load_user_tower(tuned[0]), load_audio_encoder(given["encoder"])
    parts = read_held_out(given["held_out"]).parts(pl.Series(tones.IDS))
    cold = np.flatnonzero(parts == Part.TEST).tolist()
    assert (tower.items.rows([tones.IDS[number] for number in cold]) == -1).all()
    of_unknown = {}
    for number in cold:
        audio = decode_windows(
            str(tones_store.parent / "audio" / f"{tones.IDS[number]}.wav"),
            plan=WindowPlan(), sample_rate=8_000, max_duration_s=60,
        )  # fmt: skip
        of_unknown[tones.IDS[number].encode()] = encoder.embedding(audio.waveforms)
    for low in (True, False):
        tracks = [tones.IDS[number].encode() for number in cold if tones.is_low(number) == low]
        times = np.arange(len(tracks)) * tones.MINUTE + tones.UNTIL
        members = history_members(
            times, np.zeros(len(tracks), np.int64), np.full(len(tracks), 60_000), times * 0, tracks
        )
        found = embed_newest(tower, read_newest(tower, [StoredHistory(members, [])]), of_unknown)
        assert found.of_history[0]
        scores = tower.items.vectors @ found.embeddings[0]
        top = [tower.items.track_id(row) for row in np.argsort(-scores)[:20].tolist()]
        assert sum(tones.is_low(tones.IDS.index(name)) == low for name in top) >= 18


@pytest.fixture(scope="module")
def rule(log_path: str, tmp_path_factory: pytest.TempPathFactory):
    """A tower of the rule, and sounds that lie elsewhere: the learned vectors, turned about the origin."""
    folder = tmp_path_factory.mktemp("rule")
    settings = QUICK | {"dropouts": (0.1,), "steps": 250, "validate_every": 50}
    data, chosen = train_alone(folder / "tower", log=log_path, **settings)
    vectors = chosen.best.items().detach()
    turned, _ = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(0)))
    places = np.zeros((len(data.log.tracks), 40), np.float32)
    places[data.learned] = (vectors @ turned).numpy()
    known = data.row_of >= 0
    sounds = Sounds(places=places, known=known, parts=np.zeros(len(known), np.int64))
    manifest = TowerManifest(
        pooling="mean", dim=40, history=10, counting=data.settings.counting, scale=chosen.best.items.scale.item(),
        global_embedding=(1.0,) + (0.0,) * 39, items=len(vectors), files={}, training={"dropout": 0.1},
    )  # fmt: skip
    no_history = torch.tensor(manifest.global_embedding)
    weights = {name: weight.clone() for name, weight in chosen.best.tower.state_dict().items()}
    data = replace(data, settings=msgspec.structs.replace(data.settings, learning_rate=5e-3, warm_up=20))
    return data, Parent(manifest=manifest, weights=weights, vectors=vectors, no_history=no_history), sounds


def recall(data, parent, sounds, tower) -> tuple[float, float]:
    """Recall@10 in replay of people placed by learned vectors, and of people placed by sounds alone."""

    class Apart(SoundAlone):
        def scores(self, log, users, ends):
            return self._people.embed(users, ends).numpy() @ parent.vectors.numpy()[data.row_of].T

    examples = Examples.of(data.log, data.split, data.split.test)
    found = []
    for vectors in (parent.vectors, torch.from_numpy(sounds.places[data.learned])):
        items = Items(vectors, sparse=False, unit_norm=False)
        people = NetworkScorer(data, tower.eval(), items, no_history=parent.no_history)
        ranked = rank(Apart(people, data.row_of), data.log, examples, protocols=("replay",))["replay"]
        found.append(float(ranked.values()[:, METRICS.index("recall_at_10")].mean()))
    return found[0], found[1]


def test_people_whose_tracks_are_known_by_sound_alone_are_understood_after_item_dropout(rule, tmp_path):
    data, parent, sounds = rule
    tuned = FineTuned(data, parent, sounds, item_dropout=0.5, path=tmp_path / "checkpoint")
    before = recall(data, parent, sounds, tuned.begin().tower)
    tuned.train(islice(data.steps(), 300), advance=lambda: None)
    after = recall(data, parent, sounds, tuned.best.tower)
    assert before[1] < 0.4 < 0.5 < after[1]  # ten of forty tracks: .25 by chance
    assert after[0] > before[0] - 0.1
    assert torch.equal(tuned.best.items(), parent.vectors)


def test_a_share_of_the_tracks_enters_by_their_sound_in_a_step_and_only_in_training(rule):
    data, parent, sounds = rule
    silent = replace(sounds, known=sounds.known & (np.arange(len(sounds.known)) % 2 == 0))
    torch.manual_seed(0)
    network = TunedNetwork(data, parent, silent, item_dropout=0.3)
    rows = torch.arange(len(parent.vectors)).repeat(2, 1)
    counts, draws = torch.zeros(len(parent.vectors)), 200
    for _ in range(draws):
        entered = network.entered(parent.vectors[rows], rows)
        assert torch.equal(entered[0], entered[1])  # a track is the same in all histories of a step
        by_sound = (entered[0] != parent.vectors).any(dim=1)
        assert torch.equal(entered[0][by_sound], network.places[by_sound])
        counts += by_sound
    known = torch.from_numpy(silent.known[data.learned])
    assert (counts[~known] == 0).all()
    assert counts[known].mean().item() / draws == pytest.approx(0.3, abs=0.03)


def test_a_fine_tuning_that_is_taken_up_goes_on_as_if_nothing_had_been(rule, tmp_path):
    data, parent, sounds = rule

    def begun(name: str) -> FineTuned:
        return FineTuned(data, parent, sounds, item_dropout=0.15, path=tmp_path / name)

    whole, halved = begun("whole"), begun("halved")
    for number in range(2):
        whole.train(islice(data.steps(done=10 * number), 10), advance=lambda: None)
        halved.train(islice(data.steps(done=10 * number), 10), advance=lambda: None)
        halved = begun("halved")
    assert halved.steps == 20
    for name, weight in whole.network.tower.state_dict().items():
        assert torch.equal(weight, halved.network.tower.state_dict()[name]), name


def test_tracks_are_placed_as_a_worker_places_them_shard_by_shard(given, tones_store: Path, tmp_path, monkeypatch):
    monkeypatch.setattr(by_sound, "_AT_ONCE", 2)
    names = [tones.IDS[0], tones.IDS[4], tones.IDS[89]]
    with Progress(disable=True) as bar:
        found = places_by_sound(
            names, encoder=given["encoder"], store=given["features"], out=tmp_path / "places", progress=bar, processes=1
        )
    assert sorted(path.name for path in (tmp_path / "places").iterdir()) == ["000000", "000001"]
    encoder = load_audio_encoder(given["encoder"])
    for name, place in zip(names, found, strict=True):
        path = str(tones_store.parent / "audio" / f"{name}.wav")
        audio = decode_windows(path, plan=WindowPlan(), sample_rate=8_000, max_duration_s=60)
        # A repeated waveform and a repeated spectrogram differ at the seams.
        assert encoder.embedding(audio.waveforms) @ place > 0.99
        assert np.linalg.norm(place) == pytest.approx(1, abs=1e-5)


def test_what_does_not_belong_together_is_refused_in_a_sentence_and_leaves_no_tower(given, tones_tower: Path, tmp_path):
    (tmp_path / "list.csv").write_text("track_id,part\nt01,test\n")
    encoder = shutil.copytree(given["encoder"], tmp_path / "encoder")
    made = json.loads((encoder / "audio_encoder.json").read_text())
    made["training"]["tower"]["tower.onnx"] = "0" * 64
    (encoder / "audio_encoder.json").write_text(json.dumps(made))
    other_log = tones.write_listens(tmp_path / "log.parquet", seed=2)
    for changes, says in (
        ({"tower": str(tones_tower)}, "does not tell how it was trained"),
        ({"encoder": str(encoder)}, "was trained against another tower than .*; name the two that belong together"),
        ({"log": other_log}, "was not trained on .*log.parquet as it is now"),
        ({"held_out": str(tmp_path / "list.csv")}, "the tower in .* was not trained without the tracks of .*list.csv"),
    ):
        with pytest.raises(SettingsError, match=says) as refused:
            run(FineTuning(**given | changes, out=str(tmp_path / "out")))
        assert isinstance(refused.value, TastewaveError)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
