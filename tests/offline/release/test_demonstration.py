"""The chain that makes the default release: the chapter shows it, and the long tests run all of it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from models.release import DEFAULT, Release, load_release
from offline.cli import JOBS, SYNTH_JOBS, cli
from offline.release.demonstration import run
from offline.release.settings import BuildDemonstration
from offline.synth.catalogue import draw_catalogue

CHAPTER = Path(__file__).parents[3] / "deploy" / "docs" / "release.md"
OWN = {"out", "name", "licence", "device"}
"""What the chapter leaves to whoever reads it."""


@dataclass(frozen=True)
class Nothing:
    """What a job returns that did nothing."""

    release: Release

    def lines(self) -> list[str]:
        return []


def test_the_chapter_shows_the_steps_of_the_chain_with_their_settings(monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    asked = list[tuple[str, dict]]()
    for job in (*SYNTH_JOBS, *JOBS):
        module, _, function = job.run.partition(":")

        def record(settings: Any, job: str = job.name) -> Nothing:
            asked.append((job, {k: v for k, v in msgspec.structs.asdict(settings).items() if k not in OWN}))
            Path(settings.out).mkdir(parents=True, exist_ok=True)
            return Nothing(load_release())

        if job.name != "build-demonstration":
            monkeypatch.setattr(resolve_name(module), function, record)

    def settings_of(lines: list[str]) -> list[tuple[str, dict]]:
        asked.clear()
        for line in lines:
            done = CliRunner().invoke(cli, line)
            assert done.exit_code == 0, (line, done.exception)
        return list(asked)

    shown = settings_of(re.findall(r"^tastewave-offline (.+)$", chapter_section(), re.MULTILINE)[1:])
    assert (shown[0][0], shown[-1][0]) == ("platform", "build-release")
    run_by_the_chain = settings_of([f"build-demonstration chain --out {DEFAULT}"])
    assert repr(shown) == repr(run_by_the_chain).replace("chain/", "")


def chapter_section() -> str:
    """Of the chapter, how the default release was made."""
    return CHAPTER.read_text().partition("## How was the default release made?")[2].partition("\n## ")[0]


def test_the_shipped_tower_knows_tracks_of_the_platform_that_the_settings_describe():
    settings = BuildDemonstration(folder="").platform("")
    titles = draw_catalogue(settings, np.random.default_rng(settings.seed)).titles()
    items = load_release().user_tower().items
    known = [track for track in titles if items.rows([track])[0] >= 0]
    assert len(known) == len(items) > 200
    style = np.array([titles[track].partition(" ")[0] for track in known])
    scores = items.vectors @ items.vectors.T
    np.fill_diagonal(scores, -1)
    assert np.mean(style[scores.argmax(axis=1)] == style) > 0.7


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_chain_takes_under_twelve_minutes_finds_listeners_by_sound_and_makes_the_same_release_again(tmp_path: Path):
    one = run(BuildDemonstration(folder=str(tmp_path / "one")))
    assert sum(one.seconds.values()) < 720
    measured = json.loads((one.release.folder / "audio_encoder-metrics.json").read_text())
    assert measured["encoder"]["auc"]["low"] > measured["permuted"]["auc"]["high"] + 0.1
    assert json.loads((tmp_path / "one" / "genre" / "metrics.json").read_text())["metrics"]["accuracy"] > 0.9
    assert run(BuildDemonstration(folder=str(tmp_path / "two"))).release.release_id == one.release.release_id
    said = "".join(path.read_text() for path in one.release.folder.iterdir() if path.suffix in (".json", ".md"))
    assert str(tmp_path) not in said
