"""Where the preference embedding comes from: the audio encoder of a release, or one that is trained here on a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from models.audio_encoder import LogMelInput
from models.errors import SettingsError
from models.mel import ENCODER, MelConfig
from models.release import load_release
from models.user_tower import TOWER_MANIFEST, load_user_tower
from offline.audio_encoder.settings import EncoderTraining
from offline.config import load_config
from offline.features import held_out as drawn
from offline.features.held_out import read_held_out
from offline.features.store import open_store
from offline.interactions.log import read_log
from offline.interactions.made_up import platform_caveat
from offline.reproduce.settings import Protocol
from offline.user_tower import train as tower_training
from offline.user_tower.settings import TowerTraining

PREFERENCE, RANDOM = "preference", "random"
TOWER, HELD_OUT = "tower", "held-out.csv"

_OF_THIS_JOB = {"store", "tower", "log", "out", "forgotten", "seed"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the embedding comes from.

    Attributes:
        release: folder or URL of the release; None where an encoder is trained.
        training: settings of the encoder's training; None where a release has one.
        dim: of the embedding.
        mel: the spectrogram that networks of this project hear.
        facts: what identifies it: equal facts, equal embeddings.
        caveat: what is to be said of a demonstration; None where it is none.
    """

    release: str | None
    training: EncoderTraining | None
    dim: int
    mel: MelConfig
    facts: dict[str, Any]
    caveat: str | None

    def embeddings(self, permutations: int) -> tuple[str, ...]:
        """The names of the embeddings that are compared."""
        permuted = [permuted_name(number) for number in range(permutations)] if self.training else []
        return (PREFERENCE, RANDOM, *permuted)


def permuted_name(number: int) -> str:
    """The embedding of an encoder that learned from listeners that were dealt out anew."""
    return f"permuted-{number:03d}"


def open_source(settings: Protocol) -> Source:
    """Open what the settings name; train the user tower where a log has none.

    Raises:
        SettingsError: neither or both are named, the log cannot be used, or it is a demonstration and not forced.
        ReleaseError: the release, store or tower cannot be used, or the release has no audio encoder.
    """
    if (settings.release is None) == (settings.log is None):
        raise SettingsError("the preference embedding has one source; name it with --release or with --log")
    source = _of_release(settings.release) if settings.release else _of_log(settings, str(settings.log))
    if source.caveat and not settings.force:
        raise _refused(str(settings.release or settings.log), source.caveat)
    return source


def _refused(what: str, caveat: str) -> SettingsError:
    return SettingsError(
        f"the taste space of {what} is a demonstration, learned from a made-up platform ({caveat.rstrip('.')}), and "
        "says nothing of real listeners; name another, or add --force to see the protocol run"
    )


def _of_release(where: str) -> Source:
    release = load_release(where)
    encoder = release.audio_encoder()
    if encoder is None:
        raise SettingsError(
            f"release {release.release_id} has no audio encoder, so that it cannot place tracks; name one that was "
            "built with --audio-encoder, or a log"
        )
    manifest, taken = encoder.manifest, encoder.manifest.input
    return Source(
        release=where,
        training=None,
        dim=manifest.dim,
        mel=taken.mel if isinstance(taken, LogMelInput) else ENCODER,
        facts={"release": release.release_id, "encoder": manifest.name},
        caveat=_first(release.manifest.training.get("demonstration"), _caveat(manifest.training)),
    )


def _of_log(settings: Protocol, log: str) -> Source:
    if settings.store is None:
        raise SettingsError(
            "an audio encoder learns from the log-mels of the log's tracks; name the folder that `features` wrote of "
            "them with --store"
        )
    if (caveat := platform_caveat(log)) and not settings.force:  # before a tower is trained for hours
        raise _refused(log, caveat)
    if named := sorted(_OF_THIS_JOB & settings.encoder.keys()):
        raise SettingsError(f"encoder.{named[0]} is set by this job; give it as {named[0]}")
    held_out = settings.encoder.get("held_out") or _held_out(settings, settings.store)
    tower = settings.tower or _tower(settings, log, held_out)
    own: dict[str, Any] = {
        "store": _here(settings.store),
        "tower": _here(tower),
        "log": _here(log),
        "held_out": _here(held_out),
        "forgotten": settings.forgotten and _here(settings.forgotten),
        "out": settings.out,
        "seed": settings.seed,
    }
    training = load_config(EncoderTraining, **settings.encoder | own)
    manifest, store = load_user_tower(tower).manifest, open_store(settings.store, mel=training.mel)
    told = {name: value for name, value in msgspec.to_builtins(training).items() if name not in _OF_THIS_JOB}
    return Source(
        release=None,
        training=training,
        dim=manifest.dim,
        mel=training.mel,
        facts={
            "log": read_log(log, rule=manifest.counting, forgotten=settings.forgotten).fingerprint,
            "tower": {name: file.sha256 for name, file in manifest.files.items()},
            "store": sorted((track.track_id, str(track.artist_id), track.content) for track in store),
            "windows": [store.manifest.front_end, store.manifest.windows, store.manifest.window_s],
            "training": told | {"held_out": read_held_out(held_out).sha256, "seed": settings.seed},
        },
        caveat=_first(caveat, _caveat(manifest.training)),
    )


def _held_out(settings: Protocol, store: str) -> str:
    """The list of the tracks that choose the step of an encoder, drawn here before anything is trained.

    Equal stores and seeds give an equal list, so that a run that goes on draws it again.
    """
    path = Path(settings.out, HELD_OUT)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.run(drawn.HoldOut(store=store, out=str(path), seed=settings.seed))
    return str(path)


def _tower(settings: Protocol, log: str, held_out: str) -> str:
    """The tower of the log, trained here where there is none yet that was trained on it without these tracks."""
    folder = Path(settings.out, TOWER)
    if not (folder / TOWER_MANIFEST).exists() or not _is_of(folder, settings, log, held_out):
        tower_training.run(TowerTraining(log=log, out=str(folder), forgotten=settings.forgotten, held_out=held_out))
    return str(folder)


def _is_of(tower: Path, settings: Protocol, log: str, held_out: str) -> bool:
    manifest = load_user_tower(tower).manifest
    listens = read_log(log, rule=manifest.counting, forgotten=settings.forgotten)
    made = manifest.training
    return made["log"]["fingerprint"] == listens.fingerprint and made["held_out"] == read_held_out(held_out).facts()


def _here(where: str) -> str:
    """A place as processes that began in other folders find it."""
    return where if "://" in where else str(Path(where).absolute())


def _caveat(training: Mapping[str, Any]) -> str | None:
    """What a manifest says of the log that a tower or an encoder was trained on."""
    log = training.get("log")
    return log.get("caveat") if isinstance(log, Mapping) else None


def _first(*caveats: str | None) -> str | None:
    told: Iterator[str] = (caveat for caveat in caveats if caveat)
    return next(told, None)
