"""The runbook knows every dead-letter reason, every guard, every alarm, and only metrics that there are."""

import re
from pathlib import Path

import pytest

from models import errors
from stream import metrics
from stream.audio.sandbox import GUARDS

RUNBOOK = (Path(__file__).parents[2] / "deploy" / "runbook.md").read_text()


def subclasses(kind: type[errors.TastewaveError]) -> set[type[errors.TastewaveError]]:
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


REASONS = {error.reason for error in subclasses(errors.TastewaveError)}


def test_every_dead_letter_reason_has_its_row() -> None:
    assert len(REASONS) == 15
    rows = set(re.findall(r"^\| `([a-z_]+)` \|", RUNBOOK, re.MULTILINE))
    assert rows == REASONS | set(GUARDS)


def test_every_metric_that_it_names_exists() -> None:
    exported = {sample.name for family in metrics.REGISTRY.collect() for sample in family.samples}
    exported |= {f"{family.name}{end}" for family in metrics.REGISTRY.collect() for end in ("", "_total", "_sum")}
    named = set(re.findall(r"\btastewave_[a-z_]+[a-z]\b", RUNBOOK)) - {"tastewave_stage_seconds_"}
    assert len(named) >= 6
    assert named <= exported


@pytest.mark.parametrize("anchor", re.findall(r"\(#([^)]+)\)", RUNBOOK))
def test_every_alarm_leads_to_a_section(anchor: str) -> None:
    headings = re.findall(r"^### (.+)$", RUNBOOK, re.MULTILINE)
    assert anchor in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_sections_are_numbered_one_after_the_other() -> None:
    numbers = [int(number) for number in re.findall(r"^### (\d+)\. ", RUNBOOK, re.MULTILINE)]
    assert numbers == list(range(1, 18))
