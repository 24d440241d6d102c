"""What a shard's tracks sound like: the work that processes do, here or on other machines."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, Any, BinaryIO, NamedTuple, cast

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.audio.loudness import gain_to
from models.audio.windows import WindowPlan, Windows, decode_windows
from models.errors import OutOfMemory, ReleaseError, TastewaveError
from models.features import feature_width, window_features
from models.mel import MUSICNN, Float32, MelConfig, log_mel, musicnn_log_mel
from models.musicnn import OUTPUTS, Musicnn, MusicnnFeatures
from models.release import Release, load_release
from offline.features.audio_files import opened, shown, shown_message
from offline.features.time_limit import time_limit
from offline.spread import Files

LOG_MEL = "log_mel"
WINDOW_FEATURES = ("max_pool", "taggram.mean", "taggram.spread")

ROWS = {
    "uri": pl.String,
    "stamp": pl.String,
    "content": pl.String,
    "reason": pl.String,
    "message": pl.String,
    "duration_s": pl.Float64,
    "starts_ms": pl.List(pl.Int64),
    "frames": pl.List(pl.Int64),
    "patches": pl.List(pl.Int64),
}
"""The columns of a shard's tracks.parquet."""


class Wanted(NamedTuple):
    """A file to hear, and what would tell that it has changed since."""

    uri: str
    stamp: str | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file.

    Attributes:
        uri, stamp: of the file; the uri as offline.features.audio_files.shown gives it.
        content: SHA-256 of its bytes; None where it could not be read.
        reason, message: why there are no features of it, where there are none.
        duration_s: of the track.
        starts_ms: where each window starts in the track; none where this content was known already.
        frames, patches: of each window, in the order in which the arrays of the shard have them.
    """

    uri: str
    stamp: str | None
    content: str | None = None
    reason: str | None = None
    message: str | None = None
    duration_s: float | None = None
    starts_ms: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    patches: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """The work: hears the files of a shard one after another. What cannot be heard becomes a row with its reason.

    Attributes:
        release, release_id: where it lies, and which one has to lie there.
        networks: models of it that hear each window.
        patches: whether max_pool of each patch is kept.
        patch_hop: frames from one patch to the next.
        mel: the spectrogram that is kept of each window; None where none is.
        plan: which windows.
        lufs: how loud they are made; None where they are heard as they are.
        max_bytes, max_duration_s: of the largest file and the longest track.
        max_file_s: the longest time that a file may take.
        known: SHA-256 of contents whose features there are already.
    """

    release: str | None
    release_id: str
    networks: tuple[str, ...]
    patches: bool
    patch_hop: int
    mel: MelConfig | None
    plan: WindowPlan
    lufs: float | None
    max_bytes: int
    max_duration_s: float
    max_file_s: float
    known: frozenset[str] = field(default=frozenset(), repr=False)

    def __call__(self, shard: Sequence[Wanted]) -> Files:
        """The files of a shard: tracks.parquet, and arrays that have the windows of all tracks one after another.

        Raises:
            ReleaseError: there is no such release where this runs, or another one.
        """
        networks = _networks(self.release, self.release_id, self.networks)
        arrays = {name: [np.empty((0, width), dtype)] for name, (width, dtype) in self.layout().items()}
        rows, here = list[Row](), set[str]()
        for wanted in shard:
            row, heard = self._row(wanted, networks, here)
            rows.append(row)
            for name, parts in heard.items():
                arrays[name] += parts
            if row.starts_ms and row.content:
                here.add(row.content)
        return {"tracks.parquet": _parquet(rows)} | {f"{name}.npy": _npy(parts) for name, parts in arrays.items()}

    def layout(self) -> dict[str, tuple[int, type]]:
        """Name, columns and type of each array."""
        layout: dict[str, tuple[int, type]] = {LOG_MEL: (self.mel.n_mels, np.float16)} if self.mel else {}
        for model in self.networks:
            layout[f"{model}.taggram"] = (OUTPUTS["tags"], np.uint8)
            for what in WINDOW_FEATURES:
                layout[f"{model}.{what}"] = (feature_width(f"{model}.{what}") or 0, np.float16)
            if self.patches:
                layout[f"{model}.patches.max_pool"] = (OUTPUTS["max_pool"], np.float16)
        return layout

    def _row(
        self, wanted: Wanted, networks: Mapping[str, Musicnn], here: set[str]
    ) -> tuple[Row, dict[str, list[NDArray[Any]]]]:
        content = None
        try:
            with (
                time_limit(self.max_file_s, what="hearing the track"),
                opened(wanted.uri, max_bytes=self.max_bytes) as file,
            ):
                content = hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()
                if content in self.known or content in here:
                    return Row(uri=shown(wanted.uri), stamp=wanted.stamp, content=content), {}
                file.seek(0)
                audio, waveforms = self._decoded(file)
                heard, patches = self._through_networks(waveforms[MUSICNN.sample_rate], networks)
                frames = (0,) * len(audio.starts_ms)
                if self.mel:
                    spectrograms = [log_mel(waveform, self.mel) for waveform in waveforms[self.mel.sample_rate]]
                    heard[LOG_MEL] = [spectrogram.astype(np.float16) for spectrogram in spectrograms]
                    frames = tuple(map(len, spectrograms))
        except TastewaveError as error:
            return _failed(wanted, content, error.reason, str(error)), {}
        except MemoryError:
            why = "hearing the track needs more memory than there is; check the file, or use fewer processes"
            return _failed(wanted, content, OutOfMemory.reason, why), {}
        except Exception as error:  # noqa: BLE001 - one file must not end a run over a million
            return _failed(wanted, content, TastewaveError.reason, f"{type(error).__name__}: {error}"), {}
        row = Row(
            uri=shown(wanted.uri),
            stamp=wanted.stamp,
            content=content,
            duration_s=audio.duration_s,
            starts_ms=audio.starts_ms,
            frames=frames,
            patches=patches or (0,) * len(frames),
        )
        return row, heard

    def _decoded(self, file: IO[bytes]) -> tuple[Windows, dict[int, list[Float32]]]:
        """The windows of a track, and their waveforms by sample rate, all made as loud as is heard by one gain."""
        further = {self.mel.sample_rate} - {MUSICNN.sample_rate} if self.mel else ()
        audio = decode_windows(
            cast(BinaryIO, file),
            plan=self.plan,
            sample_rate=MUSICNN.sample_rate,
            max_duration_s=self.max_duration_s,
            further_rates=further,
        )
        by_rate = {audio.sample_rate: audio.waveforms, **audio.at_rates}
        if self.lufs is None:
            return audio, {rate: list(waveforms) for rate, waveforms in by_rate.items()}
        gain = gain_to(self.lufs, audio.waveforms, sample_rate=audio.sample_rate)
        return audio, {rate: [waveform * gain for waveform in waveforms] for rate, waveforms in by_rate.items()}

    def _through_networks(
        self, waveforms: Sequence[Float32], networks: Mapping[str, Musicnn]
    ) -> tuple[dict[str, list[NDArray[Any]]], tuple[int, ...]]:
        """What each network hears, by the names of the arrays, and how many patches each window has."""
        arrays: dict[str, list[NDArray[Any]]] = {}
        patches: tuple[int, ...] = ()
        log_mels = [musicnn_log_mel(waveform) for waveform in waveforms] if networks else []
        for model, network in networks.items():
            heard = [network(spectrogram, hop=self.patch_hop) for spectrogram in log_mels]
            patches = tuple(len(window.taggram) for window in heard)
            for name, part in _parts(model, heard, patches=self.patches):
                arrays.setdefault(name, []).append(part)
        return arrays, patches


def _parts(model: str, heard: Sequence[MusicnnFeatures], *, patches: bool) -> Iterator[tuple[str, NDArray[Any]]]:
    """What is kept of what a network heard in each window: in bytes as answers have it, or as float16."""
    for window in heard:
        features = window_features(model, window)
        yield f"{model}.taggram", np.rint(np.clip(window.taggram, 0.0, 1.0) * 255.0).astype(np.uint8)
        for what in WINDOW_FEATURES:
            yield f"{model}.{what}", features[f"{model}.{what}"].astype(np.float16)[None]
        if patches:
            yield f"{model}.patches.max_pool", window.max_pool.astype(np.float16)


def failed_shard(hearing: Hearing, wanted: Wanted, *, reason: str, message: str) -> Files:
    """The files of a shard of one file that no process could hear."""
    arrays = {name: _npy([np.empty((0, width), dtype)]) for name, (width, dtype) in hearing.layout().items()}
    return {"tracks.parquet": _parquet([_failed(wanted, None, reason, message)])} | {
        f"{name}.npy": content for name, content in arrays.items()
    }


@lru_cache(maxsize=1)
def _networks(where: str | None, release_id: str, models: tuple[str, ...]) -> dict[str, Musicnn]:
    """The networks of a release; a process loads them once."""
    release: Release = load_release(where)
    if release.release_id != release_id:
        raise ReleaseError(
            f"the release {where or 'that ships with the project'} is {release.release_id} on one machine and "
            f"{release_id} on another; put the same one on all of them"
        )
    return {model: release.network(model) for model in models}


def _failed(wanted: Wanted, content: str | None, reason: str, message: str) -> Row:
    said = shown_message(message, wanted.uri)
    return Row(uri=shown(wanted.uri), stamp=wanted.stamp, content=content, reason=reason, message=said)


def _parquet(rows: Sequence[Row]) -> bytes:
    file = io.BytesIO()
    pl.DataFrame([msgspec.structs.asdict(row) for row in rows], schema=ROWS).write_parquet(file)
    return file.getvalue()


def _npy(parts: Sequence[NDArray[Any]]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.concatenate(parts), allow_pickle=False)
    return file.getvalue()
