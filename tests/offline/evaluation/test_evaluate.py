import json
from dataclasses import dataclass
from errno import ENOSPC
from os import strerror
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from msgspec import structs

from models.errors import SettingsError
from models.history import CountingRule
from offline.cli import cli
from offline.config import load_config
from offline.evaluation import evaluate
from offline.evaluation.evaluate import (
    Evaluate,
    Judged,
    command,
    history_ends,
    is_synthetic,
    plain,
    run,
    signed,
    stale,
    verdict,
    write,
)
from offline.evaluation.ranking import Bootstrap, Examples, rank
from offline.interactions.log import read_log
from offline.user_tower.train import TowerTraining
from offline.user_tower.train import run as train
from tests.offline.small_logs import log_of, split_of

HOUR, DAY = 3_600_000, 86_400_000
START = 1_700_000_000_000


def leaf(value, n=1090):
    return {"value": value, "n": n, "low": value and value - 0.01, "high": value and value + 0.01}


def parts(recall, ndcg=None, new=0, untied=1090):
    """What a scorer reached, with the same figures under both protocols."""
    of_all = {"recall_at_10": leaf(recall), "ndcg_at_10": leaf(ndcg or recall / 2)}
    slices = {
        "all": of_all,
        "new_tracks": {"recall_at_10": leaf(None, new)},
        "untied": {"recall_at_10": leaf(untied and recall * 0.5, untied)},
    }
    return dict.fromkeys(("discovery", "replay"), slices)


def metrics_of(
    discovery, replay=(0.008, 0.001, 0.015), *, ndcg=None, sampled=False, new=0, ease=True, users=1090, untied=1090
):
    """Metrics of one tower `mean`; discovery, replay and ndcg are a difference, low and high."""

    def match(figures):
        return {"floor": "item_knn", "difference": figures[0], "low": figures[1], "high": figures[2]}

    return {
        "models": {"mean": parts(0.091, untied=untied)},
        "floors": {"item_knn": parts(0.083, new=new, untied=untied)}
        | ({"ease": parts(0.07, untied=untied)} if ease else {}),
        "against_best_floor": {
            "mean": {
                "discovery": {"recall_at_10": match(discovery), "ndcg_at_10": match(ndcg or discovery)},
                "replay": {"recall_at_10": match(replay), "ndcg_at_10": match(replay)},
            }
        },
        "split": {"sampled": sampled, "test_examples": 1090, "test_users": users},
    }


def test_a_tower_that_wins_is_said_to_win_with_its_figures():
    assert verdict(metrics_of((0.008, 0.001, 0.015)), is_synthetic=False)[0] == (
        "mean beats every floor in discovery: Recall@10 .091 against .083 of item_knn "
        "(difference +.008, 95 % interval +.001 to +.015, n 1,090)."
    )


def test_a_floor_that_wins_is_named_first_with_advice_not_to_ship():
    found = verdict(metrics_of((-0.008, -0.015, -0.001)), is_synthetic=False)
    assert found[0] == (
        "A floor wins in discovery: item_knn reaches Recall@10 .083 against .091 of mean (difference -.008, "
        "95 % interval -.015 to -.001, n 1,090). Do not ship this tower on these figures."
    )
    assert found[1].startswith("mean beats every floor in replay")


def test_an_interval_that_holds_0_is_no_win():
    found = verdict(metrics_of((0.008, -0.001, 0.015)), is_synthetic=False)
    assert found[0].startswith("No winner in discovery: item_knn reaches Recall@10 .083 against .091 of mean")
    assert "the interval holds 0" in found[0]


def test_the_second_metric_is_told_of_where_it_says_something_else():
    assert len(verdict(metrics_of((0.008, 0.001, 0.015)), is_synthetic=False)) == 2
    found = verdict(metrics_of((0.008, 0.001, 0.015), ndcg=(-0.008, -0.015, -0.001)), is_synthetic=False)
    assert found[0].startswith("A floor wins in discovery: item_knn reaches NDCG@10")
    assert len(found) == 3


def test_what_limits_the_figures_is_said():
    metrics = metrics_of((0.008, 0.001, 0.015), sampled=True, new=17, ease=False)
    found = "\n".join(verdict(metrics, is_synthetic=True))
    assert found.startswith("Figures measured on this platform are plumbing: they were programmed in.\nmean beats")
    assert "17 of the 1,090 examples of discovery ask for tracks that nobody had in training." in found
    assert "The test is a sample: 1,090 examples, all of 1,090 users." in found
    assert "ease is no floor here" in found
    assert "too few" not in found
    assert "The test has 9 users: too few to tell who wins." in verdict(
        metrics_of((0.008, 0.001, 0.015), users=9), is_synthetic=False
    )


def test_what_the_order_of_ids_tells_is_said_before_who_wins():
    found = verdict(metrics_of((0.008, 0.001, 0.015), untied=545), is_synthetic=False)
    assert found[0] == (
        "50% of the examples of discovery stand at the same moment as the listen before them, in the order of their "
        "ids, which a model can learn: without them, Recall@10 is .045 of mean against .042 of item_knn."
    )
    assert found[1].startswith("50% of the examples of replay")
    assert found[2].startswith("mean beats every floor in discovery")
    everything = verdict(metrics_of((0.008, 0.001, 0.015), untied=0), is_synthetic=False)
    assert everything[0].startswith("100% of the examples")
    assert everything[0].endswith("which a model can learn.")
    assert "same moment" not in "".join(verdict(metrics_of((0.008, 0.001, 0.015), untied=1050), is_synthetic=False))


def test_the_command_that_makes_a_report_again_names_what_was_set():
    config = Evaluate(log="my logs/*.parquet", out="report")
    assert command(config) == "tastewave-offline evaluate 'my logs/*.parquet' report --split temporal"
    counting = CountingRule(target_share=0.8)
    config = Evaluate(log="log", out="r", towers=("a", "b"), split="leave-last", seed=3, counting=counting)
    assert command(config) == (
        "tastewave-offline evaluate log r --split leave-last --tower a --tower b counting.target_share=0.8 seed=3"
    )


def test_figures_are_written_without_their_leading_zero():
    assert [plain(value) for value in (0.0831, 0.0, 1.0, None)] == [".083", ".000", "1.000", "none"]
    assert [signed(value) for value in (0.0082, -0.0082, 0.0, -1.0)] == ["+.008", "-.008", "+.000", "-1.000"]


def test_a_gap_takes_from_the_history_what_is_younger_than_it():
    times = [0, DAY, DAY + HOUR, 2 * DAY]
    log = log_of([[0, 1, 2, 3], [3, 2]], tracks=4, times=[times, [5, 5]])
    split = split_of(log, learned=[3, 1], valid=0)
    examples = Examples.of(log, split, split.test)
    assert history_ends(log, examples, gap_ms=0).tolist() == [3, 5]
    assert history_ends(log, examples, gap_ms=HOUR).tolist() == [3, 4]
    assert history_ends(log, examples, gap_ms=DAY - HOUR).tolist() == [3, 4]
    assert history_ends(log, examples, gap_ms=DAY).tolist() == [2, 4]
    assert history_ends(log, examples, gap_ms=7 * DAY).tolist() == [0, 4]


@dataclass(frozen=True)
class Next:
    """Recommends the track after the last one of the history, and it alone."""

    name: str = "next"

    def scores(self, log, users, ends):
        scores = np.full((len(users), len(log.tracks)), -np.inf, np.float32)
        known = ends > log.offsets[users]
        scores[known, (log.track[ends[known] - 1] + 1) % len(log.tracks)] = 1.0
        return scores


def test_staleness_tells_users_with_listens_in_the_gap_from_those_without():
    histories = [[0, 1, 2, 3], [4, 5, 6, 7]]
    busy, calm = [0, HOUR, 2 * DAY, 2 * DAY + 60_000], [0, HOUR, 2 * HOUR, 5 * DAY]
    log = log_of(histories, tracks=9, times=[busy, calm])
    split = split_of(log, learned=[3, 3], valid=0)
    examples = Examples.of(log, split, split.test)
    judged = Judged(log=log, examples=examples, bootstrap=Bootstrap(examples.users, replicates=100, seed=0))
    fresh = rank(Next(), log, examples)["discovery"]
    found = stale(Next(), judged, fresh, advance=lambda _: None)
    told = {gap: {name: (part["value"], part["n"]) for name, part in parts.items()} for gap, parts in found.items()}
    assert told["0"] == {"all": (1.0, 2), "with_listens": (None, 0), "without_listens": (1.0, 2)}
    assert told[str(HOUR)] == {"all": (0.5, 2), "with_listens": (0.0, 1), "without_listens": (1.0, 1)}
    assert told[str(7 * DAY)] == {"all": (0.0, 2), "with_listens": (0.0, 2), "without_listens": (None, 0)}


def test_a_made_up_log_is_known_by_the_truth_beside_it(tmp_path: Path):
    listens = tmp_path / "listens"
    listens.mkdir()
    assert not is_synthetic(str(listens))
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "config.json").touch()
    for where in (tmp_path, listens, listens / "*.parquet", listens / "part-0.parquet"):
        assert is_synthetic(str(where))
    assert not is_synthetic("s3://bucket/listens")


def test_a_report_that_cannot_be_made_leaves_what_was_there(tmp_path: Path):
    (tmp_path / "metrics.json").write_text("old")
    with pytest.raises(SettingsError):
        write({"verdict": []}, tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("metrics.json", "old")]


def write_log(path: Path, *, users: int = 60, length: int = 12, tracks: int = 40) -> Path:
    """People who go round a circle of tracks, one a day, each from a place and a day of their own."""
    rows = [
        (f"u{user}", f"t{(7 * user + step) % tracks}", START + (step + user % 5) * DAY)
        for user in range(users)
        for step in range(length)
    ]
    pl.DataFrame(rows, schema=["user_id", "track_id", "at"], orient="row").write_parquet(path)
    return path


SHORT = {"steps": 40, "validate_every": 20, "trial_steps": (20,), "dropouts": (0.2,)}


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A log, and a tower that was trained on it, shortly."""
    folder = tmp_path_factory.mktemp("evaluate")
    log = write_log(folder / "log.parquet")
    train(load_config(TowerTraining, log=str(log), out=str(folder / "mean"), split="leave-last", **SHORT))
    return log, folder / "mean"


def test_a_tower_is_evaluated_against_the_floors_and_a_report_is_written(tower: tuple[Path, Path], tmp_path: Path):
    log, folder = tower
    result = CliRunner().invoke(
        cli, ["evaluate", str(log), str(tmp_path), "--tower", str(folder), "--split", "leave-last", "replicates=100"]
    )
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "report.html"]
    assert "item_knn" in (tmp_path / "report.html").read_text()
    assert "item_knn" in result.stdout
    assert metrics["verdict"][0] in result.stdout.splitlines()
    assert list(metrics["models"]) == list(metrics["staleness"]) == list(metrics["training"]) == ["mean"]
    assert list(metrics["floors"]) == ["popularity", "markov", "item_knn", "ease"]
    assert metrics["floors"]["markov"]["discovery"]["all"]["recall_at_10"]["value"] == 1.0
    assert metrics["log"] | {"where": "", "fingerprint": ""} == {
        "where": "", "fingerprint": "", "users": 60, "tracks": 40, "listens": 720, "targets": 720, "from_ms": START,
        "to_ms": START + 15 * DAY,
    }  # fmt: skip
    split = metrics["split"]
    assert (split["train_listens"], split["valid_examples"], split["test_examples"], split["test_users"]) == (
        600, 60, 60, 60,
    )  # fmt: skip
    assert split["sampled"] is False
    fresh = metrics["staleness"]["mean"]["0"]["all"]
    assert fresh == metrics["models"]["mean"]["discovery"]["all"]["recall_at_10"]


def test_without_a_tower_both_poolings_are_trained_with_what_the_evaluation_is_set_to(
    tower: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[TowerTraining] = []
    monkeypatch.setattr(evaluate, "train", asked.append)
    counting = CountingRule(target_share=0.8)
    config = Evaluate(log=str(tower[0]), out=str(tmp_path), test_share=0.2, counting=counting)
    folders = evaluate.train_towers(config, read_log(config.log, rule=counting))
    assert folders == tuple(str(tmp_path / "towers" / pooling) for pooling in ("mean", "attention"))
    assert asked == [
        TowerTraining(log=config.log, out=folder, pooling=Path(folder).name, test_share=0.2, counting=counting)
        for folder in folders
    ]


def test_a_tower_that_an_evaluation_has_trained_is_not_trained_again(
    tower: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    log, made = tower
    defaults = load_config(TowerTraining, log=str(log), out=str(made), split="leave-last", **SHORT)
    monkeypatch.setattr(evaluate, "POOLINGS", ("mean",))
    monkeypatch.setattr(evaluate, "TowerTraining", lambda **given: structs.replace(defaults, out=str(made)))
    asked: list[TowerTraining] = []
    monkeypatch.setattr(evaluate, "train", asked.append)
    config = Evaluate(log=str(log), out=str(tmp_path), split="leave-last")
    (tmp_path / "towers").mkdir()
    (tmp_path / "towers" / "mean").symlink_to(made)
    evaluate.train_towers(config, read_log(config.log))
    assert not asked
    other = write_log(tmp_path / "other.parquet", users=61)
    evaluate.train_towers(config, read_log(str(other)))
    assert len(asked) == 1


def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_no_report(
    tower: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(ENOSPC, strerror(ENOSPC))

    monkeypatch.setattr(evaluate, "write_report", full)
    log, folder = tower
    with pytest.raises(SettingsError, match=r"cannot be written \(No space left on device\); make room"):
        run(Evaluate(log=str(log), out=str(tmp_path), towers=(str(folder),), split="leave-last", replicates=100))
    assert not list(tmp_path.glob("[!.]*"))


def test_a_sample_is_a_sample_in_the_metrics_too(tower: tuple[Path, Path], tmp_path: Path):
    log, folder = tower
    metrics = run(
        Evaluate(
            log=str(log), out=str(tmp_path), towers=(str(folder),), split="leave-last", max_examples=20, replicates=100
        )
    )
    assert metrics["split"]["sampled"] is True
    assert metrics["split"]["test_examples"] == 20
    assert metrics["models"]["mean"]["replay"]["all"]["recall_at_10"]["n"] == 20


def test_a_tower_of_another_split_or_log_is_refused_in_a_sentence(tower: tuple[Path, Path], tmp_path: Path):
    log, folder = tower
    with pytest.raises(SettingsError, match="was trained on the split leave-last, not temporal, and may have seen"):
        run(Evaluate(log=str(log), out=str(tmp_path / "out"), towers=(str(folder),)))
    other = write_log(tmp_path / "other.parquet", users=61)
    with pytest.raises(SettingsError, match=r"was trained on the log [0-9a-f]{12}, not [0-9a-f]{12}"):
        run(Evaluate(log=str(other), out=str(tmp_path / "out"), towers=(str(folder),), split="leave-last"))
    with pytest.raises(SettingsError, match="is a second tower that is called mean"):
        run(Evaluate(log=str(log), out=str(tmp_path / "out"), towers=(str(folder),) * 2, split="leave-last"))
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_a_log_that_leaves_nothing_to_judge_ends_the_command_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from offline import cli as module

    log = write_log(tmp_path / "log.parquet", length=2)
    monkeypatch.setattr("sys.argv", ["tastewave-offline", "evaluate", str(log), str(tmp_path / "out"), "--split",
                                     "leave-last"])  # fmt: skip
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("Error: the leave-last split of")
    assert not list((tmp_path / "out").glob("[!.]*"))
