"""`tastewave-offline features`: the features of a catalogue, heard by many processes, each track once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import polars as pl
from rich.progress import Progress

from models.audio.windows import WindowPlan
from models.errors import ProcessCrashed, SettingsError
from models.mel import FRONT_END
from models.release import Release, load_release
from offline.features.audio_files import shown, stamp
from offline.features.catalogue import read_catalogue
from offline.features.hear import Hearing, Wanted, failed_shard
from offline.features.settings import Features
from offline.features.store import (
    FAILURES,
    FORMAT,
    MANIFEST,
    SHARDS,
    StoreManifest,
    claim,
    publish,
    sealed_rows,
    settled,
)
from offline.files import check_replaceable, locked, writing
from offline.progress import progress_bar
from offline.spread import MOST_DEATHS, seal, spread

_THREADS = 32  # that ask file systems, which may be far away, for sizes and times


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the store has now.

    Attributes:
        out: its folder.
        tracks: with features.
        unchanged: tracks whose files were not opened.
        failed: tracks without features; failures.csv says why.
    """

    out: Path
    tracks: int
    unchanged: int
    failed: int

    def lines(self) -> list[str]:
        """What the command prints."""
        lines = [f"{self.out}: features of {self.tracks:,} tracks; files as before: {self.unchanged:,}"]
        if self.failed:
            lines.append(f"tracks without features: {self.failed:,}; {self.out / FAILURES} says why")
        return lines


def run(settings: Features) -> Outcome:
    """Compute the features of a catalogue's tracks; those that a store has already are not computed again.

    Raises:
        SettingsError: the catalogue, a network or Ray cannot be used, or the store cannot be written.
        ReleaseError: the release cannot be used, or the store is of another front end, network or spectrogram.
        SpreadFailed: the processes die, whatever they hear.
    """
    out, catalogue = Path(settings.out), read_catalogue(settings)
    hearing, manifest = hearing_of(settings)
    then = ": what was heard stays"
    check_replaceable(out, MANIFEST)
    with writing(out, then), locked(out), progress_bar() as bar:
        claim(out, manifest)
        wanted, hearing = _wanted(catalogue["uri"].unique(maintain_order=True), hearing, out, bar)
        _hear(wanted, hearing, settings, out / SHARDS, bar)
        known_as = pl.Series([shown(uri) for uri in catalogue["uri"]], dtype=pl.String)
        tracks, failed = publish(out, catalogue.with_columns(uri=known_as))
    return Outcome(out=out, tracks=tracks, unchanged=catalogue["uri"].n_unique() - len(wanted), failed=failed)


def hearing_of(settings: Features) -> tuple[Hearing, StoreManifest]:
    """How tracks are heard, and what a store of that is."""
    release = load_release(settings.release)
    configuration = release.configuration
    lufs = settings.loudness_lufs
    if lufs is None and configuration.loudness_lufs is not msgspec.UNSET:
        lufs = configuration.loudness_lufs
    if lufs == "as_is":
        lufs = None
    hearing = Hearing(
        release=settings.release,
        release_id=release.release_id,
        networks=_networks(settings, release),
        patches=settings.patches,
        patch_hop=settings.patch_hop,
        mel=settings.mel if settings.log_mels else None,
        plan=WindowPlan(count=configuration.windows, window_s=configuration.window_s),
        lufs=lufs,
        max_bytes=settings.max_mb * 10**6,
        max_duration_s=settings.max_duration_s,
        max_file_s=settings.max_file_s,
    )
    files = release.manifest.files
    manifest = StoreManifest(
        format=FORMAT,
        front_end=FRONT_END + ("" if lufs is None else f" at {lufs:g} LUFS"),
        windows=configuration.windows,
        window_s=configuration.window_s,
        networks={model: files[configuration.networks[model]].sha256[:12] for model in hearing.networks},
        patches=settings.patches,
        patch_hop=settings.patch_hop,
        mel=hearing.mel,
    )
    return hearing, manifest


def _networks(settings: Features, release: Release) -> tuple[str, ...]:
    networks = release.configuration.run if settings.networks is None else settings.networks
    if unknown := set(networks) - release.configuration.networks.keys():
        there = ", ".join(release.configuration.networks)
        raise SettingsError(f"release {release.release_id} has no network {min(unknown)}; there are {there}")
    if not networks and not settings.log_mels:
        raise SettingsError("neither a network nor a log-mel is wanted, so there is nothing to compute; ask for one")
    return tuple(sorted(set(networks)))


def _wanted(uris: pl.Series, hearing: Hearing, out: Path, bar: Progress) -> tuple[list[Wanted], Hearing]:
    """The files to hear, and the hearing that knows what there is already.

    A file that is as a store has it (place, size and time) is not opened; one that was moved is, and its content is
    known.
    """
    rows = sealed_rows(out)
    known = frozenset(rows.filter(pl.col("starts_ms").list.len() > 0)["content"])
    rows = settled(rows).filter(pl.col("reason").is_not_null() | pl.col("content").is_in(list(known)))
    heard = dict(rows.select("uri", "stamp").iter_rows())
    with ThreadPoolExecutor(_THREADS) as pool:
        stamps = bar.track(pool.map(stamp, uris), total=len(uris), description="Looking for changes")
        files = [Wanted(uri, mark) for uri, mark in zip(uris, stamps, strict=True)]
    wanted = [file for file in files if file.stamp is None or heard.get(shown(file.uri)) != file.stamp]
    return wanted, replace(hearing, known=known)


def _hear(wanted: Sequence[Wanted], hearing: Hearing, settings: Features, out: Path, bar: Progress) -> None:
    """Hear files in shards, and those of a shard that killed its processes one by one."""

    def heard(files: Sequence[Wanted], label: str, *, at_once: int) -> list[tuple[str, Sequence[Wanted]]]:
        shards = _shards(files, out, at_once=at_once)
        given_up = spread(
            hearing, shards, out=out, progress=bar, label=label, processes=settings.processes, ray=settings.ray
        )
        return [(name, shards[name]) for name in given_up]

    out.mkdir(exist_ok=True)
    suspects = [
        file for _, files in heard(wanted, "Hearing tracks", at_once=settings.tracks_per_shard) for file in files
    ]
    for name, (file,) in heard(suspects, "Hearing those of processes that died", at_once=1):
        message = (
            f"{MOST_DEATHS} processes that heard it died, or were ended after {2 * settings.max_file_s:g} s; check the "
            "file, or leave it out"
        )
        seal(out / name, failed_shard(hearing, file, reason=ProcessCrashed.reason, message=message))


def _shards(files: Sequence[Wanted], out: Path, *, at_once: int) -> dict[str, Sequence[Wanted]]:
    """The files in shards that are named after those that there are."""
    first = max((int(path.name) for path in out.glob("[0-9]*")), default=-1) + 1
    pieces = [files[start : start + at_once] for start in range(0, len(files), at_once)]
    return {f"{number:06d}": piece for number, piece in enumerate(pieces, start=first)}
