"""The store: a catalogue's features as sealed shards, how it is read, and how a run finds what there is already.

    FOLDER/store.json       what the features are of: front end, windows, networks, spectrogram
    FOLDER/shards/000000/   tracks.parquet, log_mel.npy, msd.taggram.npy, ..., and shard.json, their sizes and hashes
    FOLDER/tracks.parquet   the tracks of the last run that ended, and where their features lie
    FOLDER/failures.csv     the tracks of that run that have none, with the reason

Features belong to the content of a file (SHA-256), so that a track that was moved or named anew keeps them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.audio_encoder import AudioEncoder, EncoderManifest
from models.errors import AudioError, ProcessCrashed, ReleaseError, SettingsError, TooLong
from models.mel import PATCH_FRAMES, MelConfig
from models.release import Release
from models.sealed_folder import load_sealed
from offline.features.hear import LOG_MEL, ROWS, WINDOW_FEATURES
from offline.files import new_file, write_json
from offline.spread import SHARD

MANIFEST, TRACKS, FAILURES, SHARDS = "store.json", "tracks.parquet", "failures.csv", "shards"
FORMAT = 1
"""Of the folder and of what is in it: grows whenever a stored value would be another one."""

_FINAL = {kind.reason for kind in AudioError.__subclasses__()} - {TooLong.reason} | {ProcessCrashed.reason}
"""Reasons that stay as long as the file stays as it is: it is not heard again."""

_OPEN_ARRAYS = 256  # each holds a descriptor


class StoreManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """store.json: two stores of equal manifests have equal features of equal files.

    Attributes:
        format: FORMAT.
        front_end: how a track is heard, such as `musicnn-1 at -20 LUFS` (models.release.Release.front_end).
        windows: most windows of a track.
        window_s: length of a window, s.
        networks: those that heard the windows (mtt, msd), each with 12 hex digits of the SHA-256 of its file.
        patches: whether max_pool of each patch was kept.
        patch_hop: frames from one patch to the next.
        mel: the spectrogram of models.mel.log_mel that was kept of each window; None where none was.
    """

    format: int
    front_end: str
    windows: int
    window_s: int
    networks: dict[str, str]
    patches: bool
    patch_hop: int = PATCH_FRAMES
    mel: MelConfig | None


class StoredTrack(msgspec.Struct, frozen=True, kw_only=True):
    """A track of a store.

    Attributes:
        track_id: of the catalogue.
        artist_id, genre: None where the catalogue does not say; several genres are joined by `; `.
        content: SHA-256 of its file; tracks of one content have the same features.
        duration_s: of the whole track.
        starts_ms: where each of its windows starts in it.
        shard, row: where its windows lie: a folder, and the first of its rows there.
        frames, patches: bounds of each window's log-mel frames and patches in the arrays of the shard, one more than
            there are windows.
    """

    track_id: str
    artist_id: str | None
    genre: str | None
    content: str
    duration_s: float
    starts_ms: tuple[int, ...]
    shard: str
    row: int
    frames: tuple[int, ...]
    patches: tuple[int, ...]


class FeatureStore:
    """The features of a catalogue, for trainings. Arrays are mapped, not read, until they are looked at.

        store = open_store("features", mel=ENCODER)  # models.mel
        for track in store:
            track.track_id, track.artist_id, track.genre
        store.log_mel("t000001", 0).shape                 # (938, 96) for 30 s, float16
        store.features("t000001")[0]["msd.max_pool"]      # (753,) float32, as a genre head takes it

    Attributes:
        folder: of the store.
        manifest: what the features are of.
    """

    def __init__(self, folder: Path, manifest: StoreManifest, tracks: tuple[StoredTrack, ...]) -> None:
        self.folder = folder
        self.manifest = manifest
        self._tracks = {track.track_id: track for track in tracks}
        self._array = lru_cache(maxsize=_OPEN_ARRAYS)(self._mapped)

    def __len__(self) -> int:
        return len(self._tracks)

    def __iter__(self) -> Iterator[StoredTrack]:
        """The tracks in the order of the catalogue."""
        return iter(self._tracks.values())

    def __contains__(self, track_id: str) -> bool:
        return track_id in self._tracks

    def __getitem__(self, track_id: str) -> StoredTrack:
        return self._tracks[track_id]

    def log_mel(self, track_id: str, window: int) -> NDArray[np.float16]:
        """The log-mel spectrogram of a window.

        Args:
            track_id: of the catalogue.
            window: from 0 to before len(store[track_id].starts_ms).

        Returns:
            (frames, manifest.mel.n_mels) decibels, read-only, mapped from the file: models.mel.log_mel as float16.

        Raises:
            ReleaseError: the store has no spectrograms, or the file is missing or damaged.
            KeyError, IndexError: there is no such track or window.
        """
        track = self._tracks[track_id]
        return self._array(track.shard, LOG_MEL)[_between(track.frames, window)]

    def taggram(self, track_id: str, network: str) -> NDArray[np.uint8]:
        """(patches of all windows, 50): 255 times the probability of each tag, as an answer's taggram has it."""
        track = self._tracks[track_id]
        return self._array(track.shard, f"{network}.taggram")[track.patches[0] : track.patches[-1]]

    def patch_max_pool(self, track_id: str, network: str, window: int) -> NDArray[np.float16]:
        """(patches, 753) of a window, where the store was made with patches=true."""
        track = self._tracks[track_id]
        return self._array(track.shard, f"{network}.patches.max_pool")[_between(track.patches, window)]

    def features(self, track_id: str) -> list[dict[str, NDArray[np.float32]]]:
        """What every network heard in each window, by the names of models.features: as float16 held it, in float32."""
        track = self._tracks[track_id]
        rows = slice(track.row, track.row + len(track.starts_ms))
        names = [f"{network}.{what}" for network in self.manifest.networks for what in WINDOW_FEATURES]
        columns = [self._array(track.shard, name)[rows].astype(np.float32) for name in names]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    def check_heard_by(self, encoder: EncoderManifest) -> None:
        """Raise SettingsError where the windows or log-mels of the store are not those that an encoder hears."""
        if encoder.window_s != self.manifest.window_s or getattr(encoder.input, "mel", None) != self.manifest.mel:
            raise SettingsError(
                f"the encoder {encoder.name} does not hear the log-mels of {self.folder}; name a store of those that "
                "it was trained on, or the audio"
            )

    def vectors(self, track_id: str, encoder: AudioEncoder) -> NDArray[np.float32]:
        """(windows, dim) what an audio encoder hears in each window, for which check_heard_by passes."""
        windows = range(len(self._tracks[track_id].starts_ms))
        return encoder.of_log_mels([self.log_mel(track_id, window) for window in windows])

    def verify(self) -> None:
        """Read all files, and compare them with the hashes in the manifests of the shards.

        Raises:
            ReleaseError: one is missing or damaged.
        """
        for shard in sorted({track.shard for track in self}):
            load_sealed(self.folder / SHARDS / shard, SHARD, make=lambda manifest, _: manifest)

    def _mapped(self, shard: str, name: str) -> NDArray[Any]:
        path = self.folder / SHARDS / shard / f"{name}.npy"
        try:
            mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            kept = "its shard is damaged" if (path.parent / "shard.json").exists() else "its shard is missing"
            raise ReleaseError(
                f"{self.folder} has no {name} ({path} is not there): it was not kept, or {kept}; compute the features "
                "again with it"
            ) from None
        except (OSError, ValueError) as error:
            raise ReleaseError(f"{path} cannot be read ({error}); remove its shard, and compute it again") from error
        return mapped.view(np.ndarray)  # slices of a memmap are ten times as slow


def open_store(folder: str | Path, *, mel: MelConfig | None = None, release: Release | None = None) -> FeatureStore:
    """Open a store, and refuse one that was made for something else.

        store = open_store("features", release=load_release())

    Args:
        folder: of the store, on this machine.
        mel: the spectrogram that it has to have; any or none when None.
        release: whose front end, windows and networks it has to have; those of any when None.

    Raises:
        ReleaseError: there is no store whose run has ended, or it is of another spectrogram, front end or network.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise ReleaseError(f"{folder} has no {MANIFEST}; name the folder of a feature store")
    if mel is not None and manifest.mel != mel:
        raise _other(folder, "log-mels", manifest.mel, mel)
    if release is not None:
        configuration = release.configuration
        wanted = {
            "front end": (manifest.front_end, release.front_end),
            "windows": (
                f"{manifest.windows} of {manifest.window_s} s",
                f"{configuration.windows} of {configuration.window_s} s",
            ),
            "patch hop": (manifest.patch_hop, PATCH_FRAMES),
        } | {
            f"network {model}": (manifest.networks.get(model), sha256)
            for model, sha256 in release.network_hashes.items()
        }
        for what, (there, here) in wanted.items():
            if there != here:
                raise _other(folder, what, there, here)
    try:
        tracks = pl.read_parquet(folder / TRACKS)
    except FileNotFoundError:
        raise ReleaseError(f"the run that makes {folder} has not ended; run it again") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ReleaseError(f"{folder / TRACKS} cannot be read ({error}); run `features` again") from error
    return FeatureStore(
        folder, manifest, tuple(msgspec.convert(row, StoredTrack) for row in tracks.iter_rows(named=True))
    )


def is_store(folder: Path) -> bool:
    """Whether a folder is a store, of whatever features."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> StoreManifest | None:
    """What the features of a store are of; None where there is no store.

    Raises:
        ReleaseError: it cannot be read, or is of another version.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReleaseError(f"{folder / MANIFEST} cannot be read ({error.strerror}); mend the disk") from None
    try:
        if (found := msgspec.json.decode(content, type=dict[str, Any]).get("format")) != FORMAT:
            raise ReleaseError(
                f"{folder} is of format {found}, this program has {FORMAT}; use its version, or compute the features "
                "again in a new folder"
            )
        return msgspec.json.decode(content, type=StoreManifest)
    except msgspec.MsgspecError as error:
        raise ReleaseError(f"{folder / MANIFEST} cannot be read ({error}); name the folder of a store") from None


def claim(folder: Path, manifest: StoreManifest) -> None:
    """Make a folder a store of these features; refuse one that is of others.

    Raises:
        ReleaseError: it is a store of another front end, network or spectrogram.
    """
    there = read_manifest(folder)
    if there is None:
        with new_file(folder / MANIFEST) as draft:
            write_json(draft, manifest)
        return
    for name in manifest.__struct_fields__:
        if (found := getattr(there, name)) != (wanted := getattr(manifest, name)):
            raise _other(folder, name.replace("_", " "), found, wanted)


def _other(folder: Path, what: str, there: Any, here: Any) -> ReleaseError:
    return ReleaseError(
        f"the features in {folder} are others: {what} {_shown(there)} there, {_shown(here)} here; name another folder, "
        "or compute them again in a new one"
    )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else "none" if value is None else msgspec.json.encode(value).decode()


def sealed_rows(folder: Path) -> pl.DataFrame:
    """What became of every file that a run has had in hand: ROWS, the shard, and where its windows lie there.

    Raises:
        ReleaseError: a shard is damaged.
    """
    frames = [pl.DataFrame(schema=ROWS).with_columns(shard=pl.lit("", pl.String), **_places())]
    for path in sorted(folder.glob(f"{SHARDS}/[0-9]*/{TRACKS}")):
        try:
            rows = pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise ReleaseError(
                f"{path} cannot be read ({error}); remove the folder of this shard, and run this again"
            ) from error
        frames.append(rows.with_columns(shard=pl.lit(path.parent.name, pl.String), **_places()))
    return pl.concat(frames)


def _places() -> dict[str, pl.Expr]:
    """First row, frame and patch of each track among the windows of its shard."""
    sizes = {
        "row": pl.col("starts_ms").list.len(),
        "frame": pl.col("frames").list.sum(),
        "patch": pl.col("patches").list.sum(),
    }
    return {name: (size.cast(pl.Int64).cum_sum() - size.cast(pl.Int64)) for name, size in sizes.items()}


def settled(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that say all that is to say of a file as it was then: its features, or that it has none."""
    return rows.filter(pl.col("stamp").is_not_null(), pl.col("reason").is_null() | pl.col("reason").is_in(list(_FINAL)))


def publish(folder: Path, catalogue: pl.DataFrame) -> tuple[int, int]:
    """Write which tracks of a catalogue have features, and which have none and why; how many there are of each.

    A shard whose rows say nothing that lasts is removed then: the next run tries its files again.
    """
    rows = sealed_rows(folder)
    latest = rows.unique("uri", keep="last").select("uri", "content", "reason", "message")
    contents = rows.filter(pl.col("starts_ms").list.len() > 0).unique("content", keep="first", maintain_order=True)
    known = catalogue.join(latest, on="uri", how="left", maintain_order="left")
    failures = known.filter(pl.col("reason").is_not_null()).select("track_id", "uri", "reason", "message")
    tracks = known.filter(pl.col("reason").is_null()).drop("reason", "message", "uri")
    tracks = tracks.join(contents.drop("uri", "stamp", "reason", "message"), on="content", maintain_order="left")
    tracks = tracks.with_columns(frames=_bounds("frame", "frames"), patches=_bounds("patch", "patches"))
    with new_file(folder / FAILURES) as draft:
        failures.write_csv(draft)
    with new_file(folder / TRACKS) as draft:
        tracks.drop("frame", "patch").write_parquet(draft)
    for shard in set(rows["shard"]) - set(settled(rows)["shard"]) - set(contents["shard"]):
        shutil.rmtree(folder / SHARDS / shard)
    return len(tracks), len(failures)


def _bounds(first: str, sizes: str) -> pl.Expr:
    return pl.concat_list(pl.col(first), pl.col(first) + pl.col(sizes).list.eval(pl.element().cum_sum()))


def _between(bounds: tuple[int, ...], window: int) -> slice:
    if not 0 <= window < len(bounds) - 1:
        raise IndexError(f"the track has {len(bounds) - 1} windows, not a window {window}")
    return slice(bounds[window], bounds[window + 1])
