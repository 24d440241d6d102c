"""The model card of a release: markdown in which every figure stands beside the field that it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from models.release import CARD, MANIFEST, Manifest, Release
from models.sealed_folder import describe_file
from models.user_tower import TOWER_MANIFEST

_HEARS = (
    "genres", "networks", "run", "front_end", "windows", "window_s", "sample_rate", "loudness_lufs", "embedding_dim",
)  # fmt: skip
_TOWER = ("pooling", "dim", "history", "items")
_ENCODER = ("name", "licence", "dim", "input", "window_s", "unit_norm")
_LEFT_OUT = {"config", "course", "where"}
"""Of what is said of a training: its settings and its course, which are long, and the folder that its log was in."""
_METRICS = {
    "accuracy": "share of tracks whose best guess is right",
    "accuracy_standard_error": "standard error of that, over artists",
    "answered": "share of tracks that get an answer: the head is sure enough, and the track is like those it knows",
    "accuracy_answered": "share of the answered tracks whose answer is right",
    "log_loss": "log loss of the probabilities, nats",
    "ece": "expected calibration error of the best guesses, over ten bins",
}
_FOLDS = (("training", "config", "folds"), ("training", "config", "repeats"))
_PLAIN = "plain_"
_Path = tuple[str, ...]
_HEAD = ("| what | value | origin |", "|---|---|---|")


_MEASURED = (
    "By cross-validation on the tracks that it was trained on. No fold divides an artist who is known, so these are",
    "figures of artists that a head never heard. They tell nothing of music of other kinds, or of recordings that were",
    "made in another way.",
)


def with_card(manifest: Manifest, folder: Path, *, taste_trainings: Iterable[Mapping[str, Any]]) -> Manifest:
    """Write the card of a release beside its other files.

    Args:
        manifest: of the release without a card.
        folder: of the release, with all of its other files.
        taste_trainings: what the manifests of its user tower and of its audio encoder say of their training.

    Returns:
        The manifest with the card among its files, and with the caveat `training.demonstration` where the taste space
        was learned from a made-up platform.
    """
    logs = [training.get("log") for training in taste_trainings]
    caveats = [str(log["caveat"]) for log in logs if isinstance(log, Mapping) and log.get("caveat")]
    if caveats:
        manifest = replace(manifest, training=manifest.training | {"demonstration": caveats[0]})
    (folder / CARD).write_text(model_card(Release(manifest, folder)), encoding="utf-8")
    return replace(manifest, files=manifest.files | {CARD: describe_file(folder / CARD)})


def model_card(release: Release) -> str:
    """The card of a release, which says nothing of when it was made: equal releases have equal cards.

    Args:
        release: whose files are in its folder. A card among them is not looked at.
    """
    manifest = msgspec.to_builtins(release.manifest)
    configuration = release.configuration
    lines = [f"# Model card of release {release.release_id}", ""]
    if caveat := manifest["training"].get("demonstration"):
        lines += [
            "> **A demonstration.** The taste space of this release was learned from a made-up platform, and is true",
            f"> for no other: train one on your own log before you place people or tracks. {_text(caveat)}",
            "",
        ]
    lines += ["Beside each figure stands its origin: a file of this release, and the field in it.", ""]
    lines += ["## What does it hear and answer?", ""]
    lines += _table(MANIFEST, manifest, [("configuration", name) for name in _HEARS])
    lines += ["", "## How good is its genre head?", "", *_MEASURED, ""]
    lines += _table(MANIFEST, manifest, [*_fields(manifest, "metrics"), *_FOLDS])
    lines += ["", "## What was the genre head trained on?", ""]
    lines += _table(MANIFEST, manifest, _fields(manifest, "training"))
    if configuration.user_tower is not msgspec.UNSET:
        lines += _part("The user tower", release.folder, TOWER_MANIFEST, _TOWER)
    if configuration.audio_encoder is not msgspec.UNSET:
        lines += _part("The audio encoder", release.folder, configuration.audio_encoder, _ENCODER)
    for name, file in (configuration.blocks or {}).items():
        lines += _part(f"The network {_text(name)}, which the genre head hears", release.folder, file, _ENCODER)
    return "\n".join([*lines, "", *_limits(release)]) + "\n"


def _limits(release: Release) -> Iterator[str]:
    yield "## What is it not for?"
    yield ""
    yield "- The genre head knows the genres above and no others. Where it is unsure, it gives no genre."
    if release.configuration.embedding_dim:
        yield "- A taste space is only true for the platform that it was learned from."
    yield "- The weights have licences: those of musicnn's networks are in `LICENSE-musicnn.txt`, and that of a further"
    yield "  network stands above."


def _part(heading: str, folder: Path, file: str, names: Iterable[str]) -> list[str]:
    """The section of a part that has a manifest of its own."""
    content = msgspec.json.decode((folder / file).read_bytes())
    fields = [*((name,) for name in names), *_fields(content, "training")]
    return ["", f"## {heading}", "", *_table(file, content, fields)]


def _fields(content: Mapping[str, Any], *path: str) -> Iterator[_Path]:
    """The paths below one of them of what a table can show: numbers and texts, at any depth."""
    for name, value in _at(content, path).items():
        if isinstance(value, Mapping) and name not in _LEFT_OUT:
            yield from _fields(content, *path, name)
        elif isinstance(value, int | float | str) and name not in _LEFT_OUT:
            yield (*path, name)


def _at(content: Any, path: _Path) -> Any:
    """What stands at a path; None where nothing does."""
    for name in path:
        content = content.get(name) if isinstance(content, Mapping) else None
    return content


def _table(file: str, content: Mapping[str, Any], fields: Iterable[_Path]) -> list[str]:
    shown = [(field, value) for field in fields if (value := _at(content, field)) is not None]
    return [*_HEAD, *(f"| {_meaning(path)} | {_shown(value)} | `{file}`: `{_code(path)}` |" for path, value in shown)]


def _meaning(path: _Path) -> str:
    *outer, name = path
    plain = name.removeprefix(_PLAIN)
    if outer == ["metrics"] and plain in _METRICS:
        return _METRICS[plain] + (", by the plain head" if plain != name else "")
    return _text(" ".join(path[1:] or path).replace("_", " "))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{_text(name)}: {_shown(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return _text(value)


def _text(value: Any) -> str:
    """A value from elsewhere as plain text in a cell or a line of markdown."""
    return re.sub(r"([\\`|<\[*_])", r"\\\1", " ".join(str(value).split()))


def _code(path: _Path) -> str:
    """A path as it stands between backticks in a cell."""
    return re.sub(r"[`|]", "?", " ".join(".".join(path).split()))
