"""The alarms that ring where they should, and what the runbook and the documents say of them and of the metrics."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from stream import metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
OBSERVABILITY = DEPLOY / "observability"
RULES = [
    rule for group in yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
NAME = re.compile(r"\btastewave_[a-z_0-9]+[a-z]\b")
UNITS = ("_seconds", "_bytes", "_ratio", "_total", "_info", "_records", "_tracks", "_users", "_streams", "_partitions")
STATES = {"tastewave_guard", "tastewave_waiting", "tastewave_landlock_abi"}
"""What is 1 or 0, and a version."""
PARITY = {f"tastewave_parity_{name}" for name in ("compared_users", "differing_users", "checked_timestamp_seconds")}
"""Those of `tastewave parity --metrics-file`."""


def exported() -> set[str]:
    """The names under which metrics are scraped, without the parts of histograms."""
    return {
        f"{family.name}_total"
        if family.type == "counter"
        else f"{family.name}_info"
        if family.type == "info"
        else family.name
        for family in metrics.REGISTRY.collect()
    }


def test_every_alarm_rings_where_it_should_and_there_alone() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", "alerts_test.yaml"],
        cwd=OBSERVABILITY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    cases = yaml.safe_load((OBSERVABILITY / "alerts_test.yaml").read_text())["tests"]
    assert {case["name"] for case in cases} == {"all is well", *(rule["alert"] for rule in ALERTS)}


def test_every_alarm_has_its_row_in_the_runbook() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (.+) \| \[\d+\]\((#[^)]+)\) \|$", (DEPLOY / "runbook.md").read_text(), re.MULTILINE
    )
    assert rows == [
        (
            rule["alert"],
            rule["annotations"]["summary"],
            rule["annotations"]["runbook"].removeprefix("deploy/runbook.md"),
        )
        for rule in ALERTS
    ]
    assert {rule["labels"]["severity"] for rule in ALERTS} == {"page", "ticket"}


def test_every_metric_is_named_by_its_unit_or_by_what_it_counts() -> None:
    assert len(exported()) > 20
    assert [name for name in sorted(exported() - STATES) if not name.endswith(UNITS)] == []


@pytest.mark.parametrize("file", ["alerts.yaml", "dashboard.json"])
def test_alarms_and_dashboard_ask_for_metrics_that_there_are(file: str) -> None:
    if file == "alerts.yaml":
        expressions = [rule["expr"] for rule in RULES]
    else:
        panels = json.loads((OBSERVABILITY / file).read_text())["panels"]
        expressions = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    named = {re.sub(r"_(bucket|sum|count)$", "", name) for one in expressions for name in NAME.findall(one)}
    recorded = {rule["record"].split(":")[1] for rule in RULES if "record" in rule}
    assert named - recorded <= exported() | PARITY


def test_the_scrape_configuration_is_that_of_the_network_of_the_compose_file() -> None:
    jobs = yaml.safe_load((OBSERVABILITY / "prometheus.yaml").read_text())["scrape_configs"]
    (targets,) = [job["static_configs"][0]["targets"] for job in jobs if job["job_name"] == "tastewave"]
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    ports = {name: [*of.get("expose", ()), *of.get("ports", ())] for name, of in services.items() if "build" in of}
    assert set(targets) == {f"{name}:{port.rpartition(':')[2]}" for name, of in ports.items() for port in of}


def test_production_has_every_metric() -> None:
    documented = re.findall(r"^\| `(tastewave_\w+)", (DEPLOY / "docs" / "production.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(exported() | PARITY)
