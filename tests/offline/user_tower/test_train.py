import resource
import signal
import subprocess
import time

import msgspec
import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner

from models.errors import SettingsError
from models.user_tower import load_user_tower
from offline.cli import cli
from offline.evaluation.scorers import TowerScorer
from offline.interactions.log import read_log
from offline.interactions.splits import split_log
from offline.ranking.examples import HISTORIES, Examples
from offline.ranking.rank import METRICS, rank
from offline.user_tower.scorer import NetworkScorer
from offline.user_tower.settings import TowerTraining
from offline.user_tower.train import describe, run
from tests.offline.user_tower.rule_log import QUICK, START, train_alone, write_log
from tests.platform.commands import OFFLINE

ONE_DROPOUT = QUICK | {"dropouts": (0.1,)}
LONGER = {"steps": 250, "validate_every": 50, "learning_rate": 0.005}


def test_a_tower_learns_what_follows_what(trained, log_path):
    out, _, found = trained
    log = read_log(log_path)
    split = split_log(log, "leave-last")
    examples = Examples.of(log, split, split.test)
    ranked = rank(TowerScorer(out), log, examples)["replay"]
    recall = ranked.values()[:, METRICS.index("recall_at_10")].mean()
    assert recall > 0.5  # ten of forty tracks: .25 by chance
    assert found["course"][-1]["loss"] < found["course"][0]["loss"]
    assert found["valid_ndcg_at_10"] == max(point["valid_ndcg_at_10"] for point in found["course"])
    assert not out.with_name(out.name + ".partial").exists()


def test_a_tower_of_a_made_up_platform_tells_its_caveat_and_another_has_none(trained, tmp_path):
    assert trained[2]["log"]["caveat"] is None
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "config.json").write_text('{"caveat": "All of it is made up."}')
    log = write_log(tmp_path / "log.parquet", users=20)
    made = train_alone(tmp_path / "tower", log=log, **ONE_DROPOUT | {"steps": 20})
    assert describe(*made)["log"]["caveat"] == "All of it is made up."


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_a_tower_learns_nothing_from_a_log_whose_tracks_are_permuted(pooling, tmp_path):
    told = pl.read_parquet(write_log(tmp_path / "log.parquet", users=400))
    path = str(tmp_path / "permuted.parquet")
    told.with_columns(pl.col("track_id").shuffle(seed=1)).write_parquet(path)
    data, chosen = train_alone(tmp_path / "tower", log=path, pooling=pooling, **QUICK | {"steps": 100})
    log, scorer = data.log, NetworkScorer(data, chosen.best.tower, chosen.best.items)
    ranked = rank(scorer, log, Examples.of(log, data.split, data.split.test))["replay"]
    found = ranked.values()[:, METRICS.index("recall_at_10")]
    chance = np.sort(np.bincount(log.track))[-10:].sum() / len(log.track)
    assert found.mean() < chance + 4 * np.sqrt(chance * (1 - chance) / len(found))


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_a_log_whose_ids_rise_within_seconds_teaches_nothing(pooling, tmp_path):
    drawn = np.random.default_rng(0).permuted(np.tile(np.arange(100), (200, 1)), axis=1)[:, :40]
    rows = [
        (f"u{user:03}", f"t{track:02}", START + 1000 * (place // 20)) for (user, place), track in np.ndenumerate(drawn)
    ]
    path = str(tmp_path / "log.parquet")
    pl.DataFrame(rows, orient="row", schema=["user_id", "track_id", "at"]).write_parquet(path)
    data, chosen = train_alone(tmp_path / "tower", log=path, pooling=pooling, **ONE_DROPOUT | LONGER)
    scorer = NetworkScorer(data, chosen.best.tower, chosen.best.items)
    chance = 10 / 61  # of the tracks that a user of 40 has not had before the last one
    for history in HISTORIES:
        examples = Examples.of(data.log, data.split, data.split.test, history=history)
        ranked = rank(scorer, data.log, examples)["discovery"]
        found = ranked.values()[:, METRICS.index("recall_at_10")]
        assert found.mean() < chance + 4 * np.sqrt(chance * (1 - chance) / len(found))


def test_tracks_that_were_only_skipped_are_neither_learned_nor_recommended(tmp_path):
    told = pl.read_parquet(write_log(tmp_path / "log.parquet"))
    skips = told.group_by("user_id").agg(pl.col("at").min() + 30_000).with_columns(track_id=pl.lit("t0s"))
    kinds = [told.with_columns(kind=pl.lit("play")), skips.with_columns(kind=pl.lit("skip"))]
    pl.concat(kinds, how="diagonal").write_parquet(tmp_path / "log.parquet")
    found = run(TowerTraining(log=str(tmp_path / "log.parquet"), out=str(tmp_path / "tower"), **QUICK)).training
    tower = load_user_tower(tmp_path / "tower")
    assert found["tracks"] == len(tower.items) == 40
    assert tower.items.rows(["t0", "t0s", "t1"]).tolist() == [0, -1, 1]
    log = read_log(str(tmp_path / "log.parquet"))
    split = split_log(log, "leave-last")
    scores = TowerScorer(tmp_path / "tower").scores(log, np.arange(60), split.train_end)
    assert np.isneginf(scores[:, 1]).all()
    assert np.isfinite(np.delete(scores, 1, axis=1)).all()


def test_equal_seeds_give_equal_towers_and_other_seeds_others(log_path, tmp_path):
    weights = []
    for number, seed in enumerate((1, 1, 2)):
        _, chosen = train_alone(tmp_path / str(number), log=log_path, seed=seed, **QUICK)
        weights.append(chosen.best.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["items.table.weight"], weights[2]["items.table.weight"])


def test_dropouts_side_by_side_give_the_same_tower_and_those_that_were_done_are_not_done_again(log_path, tmp_path):
    _, alone = train_alone(tmp_path / "alone", log=log_path, **QUICK)
    _, beside = train_alone(tmp_path / "beside", log=log_path, processes=2, **QUICK)
    assert beside.dropout == alone.dropout
    assert [point["loss"] for point in beside.course] == [point["loss"] for point in alone.course]
    best, same = alone.best.state_dict(), beside.best.state_dict()
    assert all(torch.equal(best[name], same[name]) for name in best)
    (other,) = {0.1, 0.3} - {alone.dropout}
    (score,) = (tmp_path / "beside").glob(f"trial-*/dropout-{other}/score.json")
    score.write_text("2.0")  # as if it had been the best before a run was killed
    _, again = train_alone(tmp_path / "beside", log=log_path, processes=2, **QUICK)
    assert again.dropout == other


def test_without_a_terminal_each_validation_is_a_line_and_what_is_to_come_is_stated_before_them(
    log_path, tmp_path, capsys
):
    outcome = run(TowerTraining(log=log_path, out=str(tmp_path / "tower"), **QUICK | {"steps": 30}))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "dropout 0.1, step 10", "dropout 0.3, step 10", "Training", "dropout 0.1, step 20", "dropout 0.1, step 30",
    ] or [line.split(":")[0] for line in lines] == [
        "dropout 0.1, step 10", "dropout 0.3, step 10", "Training", "dropout 0.3, step 20", "dropout 0.3, step 30",
    ]  # fmt: skip
    assert "at most 30 steps" in lines[2]
    assert "40 with those of the dropouts that are given up: 1 minutes at" in lines[2]
    assert outcome.lines()[-1] == outcome.training["ended"]
    assert "30 steps" in outcome.training["ended"]


def command(log_path, out, **settings):
    words = [f"{key}={msgspec.json.encode(value).decode()}" for key, value in (QUICK | settings).items()]
    return [str(OFFLINE), "train-user-tower", log_path, str(out), *words]


def test_a_killed_training_goes_on_and_ends_like_an_undisturbed_one(log_path, tmp_path):
    settings = {"steps": 150, "patience": 100}
    whole, undisturbed = train_alone(tmp_path / "whole", log=log_path, **QUICK | settings)
    partial = tmp_path / "killed.partial"
    kills = 0
    for checkpoints in (1, 2):  # in the first trial, and in a later one
        with subprocess.Popen(command(log_path, tmp_path / "killed", **settings), stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 120
            while len(list(partial.glob("*.safetensors"))) < checkpoints and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
        assert not (tmp_path / "killed").exists()
    subprocess.run(command(log_path, tmp_path / "killed", **settings), check=True, capture_output=True)
    assert kills == 2
    killed = load_user_tower(tmp_path / "killed")
    scorer = NetworkScorer(whole, undisturbed.best.tower, undisturbed.best.items)
    assert np.array_equal(scorer.vectors, killed.items.vectors)
    losses = [
        [point["loss"] for point in course] for course in (undisturbed.course, killed.manifest.training["course"])
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "dot"}, "score=dot gives vectors without unit norm"),
        ({"out": "."}, "holds files of something else; name a new folder"),
    ],
)
def test_what_cannot_become_a_tower_is_refused_before_the_training(log_path, tmp_path, monkeypatch, settings, message):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=message):
        run(TowerTraining(**{"log": log_path, "out": "tower"} | QUICK | settings))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_loss_that_is_no_number_is_one_sentence(log_path, tmp_path):
    with pytest.raises(SettingsError, match=r"loss is no number any more after \d+ steps; run"):
        run(TowerTraining(log=log_path, out=str(tmp_path / "tower"), learning_rate=1e38, **QUICK))
    assert not (tmp_path / "tower").exists()


def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_no_tower(log_path, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    found = subprocess.run(
        command(log_path, tmp_path / "tower"), preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert found.stderr.startswith("Error: ")
    assert "make room, and run this again" in found.stderr
    assert found.stderr.count("\n") == 1
    assert not (tmp_path / "tower").exists()


def test_a_folder_of_something_else_is_not_replaced(log_path, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(SettingsError, match="holds files of something else; name a new folder"):
        run(TowerTraining(log=log_path, out=str(tmp_path), **QUICK))
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize("settings", [{"full_softmax_tracks": 10, "negatives": 20}, {"loss": "gbce", "negatives": 20}])
def test_sampled_losses_learn_too(log_path, tmp_path, settings):
    _, chosen = train_alone(tmp_path / "tower", log=log_path, **QUICK | {"steps": 150, "patience": 40} | settings)
    assert chosen.best_score > 0.25  # by chance .11


def test_a_log_in_which_nothing_follows_is_one_sentence(tmp_path):
    rows = [(f"u{user}", f"t{user % 3}", START + user) for user in range(5)]
    rows += [("v", f"t{place % 3}", START + place) for place in range(3)]
    pl.DataFrame(rows, orient="row", schema=["user_id", "track_id", "at"]).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(SettingsError, match="no target follows a listen; take a longer log"):
        run(TowerTraining(log=str(tmp_path / "log.parquet"), out=str(tmp_path / "tower"), **QUICK))


def test_listeners_who_only_skip_train_nothing_and_stop_nothing(tmp_path):
    users = [[(track, "skip") for track in range(20)] for _ in range(30)]
    users += [[(track, "play") for track in range(20)] for _ in range(3)]
    rows = [
        (f"u{user:02}", f"t{track}", START + place, kind)
        for user, listens in enumerate(users)
        for place, (track, kind) in enumerate(listens)
    ]
    path = tmp_path / "log.parquet"
    pl.DataFrame(rows, orient="row", schema=["user_id", "track_id", "at", "kind"]).write_parquet(path)
    _, chosen = train_alone(tmp_path / "tower", log=str(path), **QUICK | {"positions": 15})
    assert all(np.isfinite(point["loss"]) for point in chosen.course)


def test_rows_that_do_not_count_are_told(tmp_path):
    path, forgotten = tmp_path / "log.parquet", tmp_path / "forgotten.parquet"
    write_log(path)
    frame = pl.read_parquet(path).with_columns(excluded=pl.lit(value=False), kind=pl.lit("play"))
    private = frame.head(3).with_columns(pl.col("at") + 1, excluded=pl.lit(value=True))
    removes = frame.filter(pl.col("user_id") == "u7").tail(2).with_columns(kind=pl.lit("remove"))
    pl.concat([frame, frame.head(7), private, removes]).write_parquet(path)
    until = START + 60_000 * 100
    pl.DataFrame({"kind": ["user"], "id": ["u5"], "forgotten_at": [until]}).write_parquet(forgotten)
    of_u5 = frame.filter(pl.col("user_id") == "u5").height
    words = [f"{key}={msgspec.json.encode(value).decode()}" for key, value in QUICK.items() if key != "split"]
    result = CliRunner().invoke(
        cli,
        [
            "train-user-tower",
            str(path),
            str(tmp_path / "tower"),
            "--split",
            "leave-last",
            f"forgotten={forgotten}",
            *words,
        ],
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:-2] == [
        "7 rows of the log were the same listen again, and counted once",
        "3 rows of the log are marked as excluded, and were left out",
        f"{of_u5} rows of the log are of users or tracks that were forgotten, and were left out",
        "2 rows of the log were taken back by later ones, and were left out",
    ]
