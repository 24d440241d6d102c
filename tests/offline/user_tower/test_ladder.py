import json

from click.testing import CliRunner

from offline.cli import cli
from offline.config import load_config
from offline.user_tower.ladder import RUNGS, Rung
from offline.user_tower.settings import Ladder
from tests.offline.user_tower.rule_log import QUICK, write_log


def test_the_ladder_prints_each_rung_and_what_it_reaches(tmp_path):
    log = write_log(tmp_path / "log.parquet")
    words = [
        "steps=30",
        "epochs=1",
        "trial_shares=[0.3]",
        "validate_every=10",
        "dropouts=[0.1]",
        f"positions={QUICK['positions']}",
    ]
    result = CliRunner().invoke(cli, ["ladder", log, str(tmp_path / "out"), "--split", "leave-last", *words])
    assert result.exit_code == 0, result.output
    rungs = json.loads((tmp_path / "out" / "ladder.json").read_text())
    assert [rung["name"] for rung in rungs] == list(RUNGS)
    for rung in rungs:
        assert rung["name"] in result.stdout
        assert f"{rung['recall_at_10']:.4f}" in result.stdout
        assert 0.0 < rung["ndcg_at_10"] < rung["recall_at_10"] <= 1.0
        assert rung["n"] > 30
    settings = load_config(Ladder, overrides=words, log=log, out=str(tmp_path / "again"), split="leave-last")
    by_itself = json.loads(Rung(settings=settings)([rungs[3]["name"]])["reached.json"])
    assert by_itself | {"seconds": 0} == rungs[3] | {"seconds": 0}
    (done,) = (tmp_path / "out").glob("done-*/rung-0/reached.json")
    done.write_bytes(json.dumps(rungs[0] | {"n": 12_345}).encode())
    again = CliRunner().invoke(cli, ["ladder", log, str(tmp_path / "out"), "--split", "leave-last", *words])
    assert "12,345" in again.stdout  # it was not done again
