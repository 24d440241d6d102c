"""Where an audio encoder places the tracks of a feature store, which a user tower can take in the place of vectors."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from models.audio_encoder import AudioEncoder, load_audio_encoder
from models.errors import SettingsError
from offline.features.store import FeatureStore, open_store
from offline.spread import Files, spread

_AT_ONCE = 256  # tracks of a shard
_PLACES = "places.npy"


@dataclass(frozen=True, kw_only=True)
class Placing:
    """The work: the embeddings of the tracks of a shard, as a worker computes them (models.audio_encoder).

    Attributes:
        encoder: folder of the audio encoder.
        store: folder of the feature store.
    """

    encoder: str
    store: str

    def __call__(self, shard: Sequence[str]) -> Files:
        """The file of a shard: (tracks, dim) float32."""
        encoder, store = _loaded(self.encoder, self.store)
        file = io.BytesIO()
        places = [encoder.mean(store.vectors(track_id, encoder)) for track_id in shard]
        np.save(file, np.stack(places), allow_pickle=False)
        return {_PLACES: file.getvalue()}


def places_by_sound(
    track_ids: Sequence[str],
    *,
    encoder: str,
    store: str,
    out: Path,
    progress: Progress,
    processes: int | None = None,
    ray: str | None = None,
) -> NDArray[np.float32]:
    """(n, dim) of unit norm: the embeddings of tracks of a store.

    Args:
        track_ids: of the store, at least one.
        encoder: folder of the audio encoder.
        store: folder of the feature store.
        out: a folder for the sealed shards. A run that was killed goes on with them; no other tracks, encoder or store
            may use it.
        progress: bars to which one is added.
        processes: as for offline.spread.spread.
        ray: likewise.

    Raises:
        SettingsError: the encoder's windows are not those of the store, or tracks killed their processes.
        ReleaseError: the encoder or the store cannot be used.
    """
    open_store(store).check_heard_by(load_audio_encoder(encoder).manifest)
    out.mkdir(parents=True, exist_ok=True)
    shards = {
        f"{first // _AT_ONCE:06d}": track_ids[first : first + _AT_ONCE] for first in range(0, len(track_ids), _AT_ONCE)
    }
    work = Placing(encoder=encoder, store=store)
    if given_up := spread(
        work, shards, out=out, progress=progress, label="Placing tracks", processes=processes, ray=ray
    ):
        raise SettingsError(f"the tracks of shard {given_up[0]} killed their processes; use fewer processes")
    return np.concatenate([np.load(out / name / _PLACES, allow_pickle=False) for name in shards])


@lru_cache(maxsize=1)
def _loaded(encoder: str, store: str) -> tuple[AudioEncoder, FeatureStore]:
    """A process loads them once."""
    return load_audio_encoder(encoder), open_store(store)
