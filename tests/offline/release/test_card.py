import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from models.release import CARD, MANIFEST, Release, load_release, release_id
from models.sealed_folder import describe_bytes
from models.user_tower import TOWER_MANIFEST
from offline.files import write_json
from offline.release.card import model_card, with_card
from tests.conftest import TowerOf
from tests.platform import taste
from tests.platform.encoders import write_filterbank, write_mean_mel

ROW = re.compile(r"^\| (?P<what>.+) \| (?P<value>.*) \| `(?P<file>[^`]+)`: `(?P<path>[^`]+)` \|$")
CAVEAT = "All of it is made up."


@pytest.fixture
def whole(tmp_path: Path, tower_of: TowerOf) -> Release:
    """A release with everything that one can have."""
    encoder = write_filterbank(tmp_path / "encoder", dim=40)
    block = write_mean_mel(tmp_path / "block", frames=938)
    return load_release(
        taste.write_release(
            tmp_path / "release", tower_of(["a", "b"]), audio_encoder=encoder, blocks={"mean-mel": block}
        )
    )


def rows(card: str) -> Iterator[re.Match[str]]:
    lines = [line for line in card.splitlines() if line.startswith("|") and line[2:6] not in ("what", "--|-")]
    for line in lines:
        row = ROW.match(line)
        assert row, f"no origin stands in {line}"
        yield row


def test_every_figure_of_a_card_is_what_its_origin_says(whole: Release):
    seen = set()
    for row in rows(model_card(whole)):
        value = json.loads((whole.folder / row["file"]).read_text())
        for name in row["path"].split("."):
            value = value[name]
        shown = row["value"].replace("\\", "")
        if isinstance(value, bool):
            assert shown == str(value).lower()
        elif isinstance(value, int | float):
            assert float(shown) == pytest.approx(value, rel=1e-3)
        elif isinstance(value, str):
            assert shown == value
        else:
            assert all(str(part) in shown for part in value)
        seen.add((row["file"], row["path"]))
    assert seen >= {
        (MANIFEST, "configuration.genres"),
        (MANIFEST, "training.tracks"),
        (MANIFEST, "training.config.folds"),
        *((MANIFEST, f"metrics.{name}") for name in whole.manifest.metrics),
        (TOWER_MANIFEST, "items"),
        (TOWER_MANIFEST, "training.trained_until_ms"),
        ("audio_encoder.json", "licence"),
        ("block-mean-mel.json", "dim"),
    }


def test_a_card_says_what_a_taste_space_is_and_nothing_of_one_that_is_not_there(whole: Release):
    assert "only true for the platform that it was learned from" in model_card(whole)
    assert "demonstration" not in model_card(whole)
    release = load_release()
    configuration = msgspec.structs.replace(
        release.configuration, embedding_dim=None, user_tower=msgspec.UNSET, audio_encoder=msgspec.UNSET
    )
    manifest = msgspec.structs.replace(release.manifest, configuration=configuration, demonstration=msgspec.UNSET)
    assert "taste space" not in model_card(Release(manifest, release.folder))


def test_the_card_of_the_shipped_release_tells_how_its_encoder_does_on_tracks_that_it_never_heard():
    release = load_release()
    card = (release.folder / CARD).read_text()
    assert card == model_card(release)
    assert "> **A demonstration.**" in card
    shown = {(row["file"], row["path"]): float(row["value"]) for row in rows(card) if row["path"].endswith("value")}
    measured = json.loads((release.folder / "audio_encoder-metrics.json").read_text())
    assert measured.keys() == {"encoder", "popularity", "random", "permuted"}
    for name, figures in measured.items():
        value = shown["audio_encoder-metrics.json", f"{name}.auc.value"]
        assert value == pytest.approx(figures["auc"]["value"], rel=1e-3)
    assert measured["encoder"]["auc"]["low"] > measured["permuted"]["auc"]["high"] + 0.1


def test_names_from_elsewhere_change_nothing_of_the_cards_form(tmp_path: Path, whole: Release):
    path = whole.folder / "audio_encoder.json"
    encoder = json.loads(path.read_text())
    encoder["licence"] = "mine | [x](javascript:1)\n| a | <script> | `b`"
    encoder["training"] = {"a`|\n# b": {"c.d": 1.5}}
    path.write_text(json.dumps(encoder))
    card = model_card(whole)
    shown = {row["path"]: row["value"] for row in rows(card) if row["file"] == path.name}
    assert shown["licence"] == r"mine \| \[x](javascript:1) \| a \| \<script> \| \`b\`"
    assert shown["training.a?? # b.c.d"] == "1.5"
    assert [line for line in card.splitlines() if line.startswith("#")] == [
        f"# Model card of release {whole.release_id}",
        "## What does it hear and answer?",
        "## How good is its genre head?",
        "## What was the genre head trained on?",
        "## The user tower",
        "## The audio encoder",
        r"## The network mean-mel, which the genre head hears",
        "## What is it not for?",
    ]


@pytest.mark.parametrize("caveat", [CAVEAT, msgspec.UNSET])
def test_a_taste_space_of_a_made_up_platform_is_called_a_demonstration(whole: Release, caveat):
    with_card(msgspec.structs.replace(whole.manifest, demonstration=caveat), whole.folder)
    card = (whole.folder / CARD).read_text()
    assert ("**A demonstration.**" in card) == (CAVEAT in card) == (caveat is CAVEAT)


def test_the_card_is_verified_and_no_part_of_the_release_id(whole: Release):
    folder, before = whole.folder, whole.release_id
    write_json(folder / MANIFEST, with_card(whole.manifest, folder))
    release = load_release(folder)
    assert release.release_id == before
    changed = release.manifest.files | {CARD: describe_bytes(b"another")}
    assert release_id(release.configuration, changed) == before
    (folder / CARD).write_text("# The best release")
    with pytest.raises(Exception, match=rf"{CARD} is not the file that the manifest describes"):
        load_release(folder)


def test_a_card_does_not_tell_when_or_where_a_release_was_made(whole: Release):
    later = msgspec.structs.replace(whole.manifest, created="2031-01-01T00:00:00+00:00", code_version="9.9.9")
    assert model_card(Release(later, whole.folder)) == model_card(whole)
