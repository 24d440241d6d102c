"""Where encoders place the tracks of a set: the work that processes do, an encoder each.

In a permuted encoder's world, the sounds of whole artists have changed their listeners: the assignment of tracks to
listeners is permuted by artist, and all else is as it was, the seed too. So what such an encoder knows is of sounds,
and of how many listeners tracks have, and nothing of who likes which music.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from models.errors import ReleaseError
from models.features import EMBEDDING
from models.mel import log_mel
from models.release import load_release
from models.tagger import TrackHearing
from offline.audio_encoder.data import EncoderData, prepare
from offline.audio_encoder.fit import fit, new_network
from offline.audio_encoder.network import AudioNetwork
from offline.audio_encoder.settings import EncoderTraining
from offline.audio_encoder.sounds import Sounds, place_tracks
from offline.features.store import FeatureStore, open_store
from offline.genre.hearing import listening
from offline.genre.labels import joined
from offline.reproduce.sources import PREFERENCE, RANDOM, Source
from offline.spread import Files

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

VECTORS, FACTS = "embedding.npy", "facts.json"


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """The work: places the tracks of the set by the encoder of a name (Source.embeddings).

    Attributes:
        source: of the encoder.
        heard: folder of the set's feature store.
        uris: of its tracks, in the order of the store.
        seed: of the random encoder of a release; a trained one has that of its training.
    """

    source: Source
    heard: str
    uris: tuple[str, ...]
    seed: int

    def __call__(self, shard: Sequence[str]) -> Files:
        """embedding.npy (tracks, dim) float32, and facts.json, what is known of the encoder."""
        (name,) = shard
        torch.set_num_threads(1)
        with redirect_stderr(io.StringIO()):  # processes that draw bars of their own would draw over each other
            training = self.source.training
            vectors, facts = self._trained(name, training) if training else self._of_release(name)
        file = io.BytesIO()
        np.save(file, vectors, allow_pickle=False)
        return {VECTORS: file.getvalue(), FACTS: msgspec.json.encode(facts)}

    def _of_release(self, name: str) -> tuple[Float32, dict[str, Any]]:
        release = load_release(self.source.release)
        encoder = release.audio_encoder()
        if encoder is None or release.release_id != self.source.facts["release"]:
            raise ReleaseError(f"{self.source.release} is another release than when this began; run this again")
        if name == RANDOM:
            window = np.zeros(round(release.configuration.window_s * self.source.mel.sample_rate), np.float32)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                network = AudioNetwork(mels=self.source.mel.n_mels, dim=self.source.dim)
            return self._placed(network, frames=len(log_mel(window, self.source.mel)), device=torch.device("cpu")), {}
        hearing = TrackHearing(listening(release, ()), encoders={EMBEDDING: encoder})
        return np.stack([encoder.mean(hearing(uri).vectors[EMBEDDING]) for uri in self.uris]), {}

    def _trained(self, name: str, training: EncoderTraining) -> tuple[Float32, dict[str, Any]]:
        data = _prepared(training)
        if name == RANDOM:
            network, facts = new_network(data, seed=training.seed), {}
        else:
            if name != PREFERENCE:
                sound_of = permuted_sounds(data, open_store(training.store), seed=int(name.rpartition("-")[2]))
                data = replace(data, sounds=data.sounds.exchanged(sound_of))
            trained = fit(data, training, sounds=data.sounds, steps=training.steps, valid=data.valid)
            network, facts = trained.network, {"best_step": trained.best_step, "valid_auc": trained.valid_auc}
        return self._placed(network, frames=data.frames, device=data.device), facts

    def _placed(self, network: AudioNetwork, *, frames: int, device: torch.device) -> Float32:
        store = open_store(self.heard, mel=self.source.mel)
        ids = pl.Series([track.track_id for track in store])
        sounds = Sounds(store, ids, np.arange(len(ids)))
        return place_tracks(network, sounds, range(len(ids)), frames=frames, device=device)


@lru_cache(maxsize=1)
def _prepared(training: EncoderTraining) -> EncoderData:
    """A process prepares once for all encoders that it trains."""
    return prepare(training)


def permuted_sounds(data: EncoderData, store: FeatureStore, *, seed: int) -> Int64:
    """(tracks of the log,) the track whose sound each one has where artists have changed their listeners.

    Tracks that are learned from change among themselves, and so do those of the validation: an encoder learns from, and
    is chosen by, the world of its own listeners.

    Args:
        data: of the training.
        store: with the tracks' artists.
        seed: of the permutation.
    """
    ids = data.sounds.track_ids
    here = [number for number, name in enumerate(ids) if name in store]
    artists = np.full(len(ids), -1, np.int64)
    tracks = [store[ids[number]] for number in here]
    artists[here] = joined(
        [[f"file {track.content}", *([f"artist {track.artist_id}"] if track.artist_id else [])] for track in tracks]
    )
    sound_of, rng = np.arange(len(ids)), np.random.default_rng(seed)
    for part in (np.flatnonzero(data.trained), data.valid.tracks):
        dealt_from, dealt_to = dealt(part, artists[part], rng.permutation)
        sound_of[dealt_to] = dealt_from
    return sound_of


def dealt(tracks: Int64, artists: Int64, permutation: Callable[[int], Int64]) -> tuple[Int64, Int64]:
    """Tracks as they stand by artist in a new order of the artists, and as they stood: each takes the other's place.

    Artists stay together as far as their numbers of tracks allow: where an artist of three tracks takes the place of
    one of two, the third goes to the next.

    Args:
        tracks: (n,)
        artists: (n,) of these.
        permutation: gives a new order of so many.

    Returns:
        (n,) tracks in the new order, and (n,) in the old one.
    """
    numbers, of_track = np.unique(artists, return_inverse=True)
    order = permutation(len(numbers))
    return tracks[np.argsort(order[of_track], kind="stable")], tracks[np.argsort(of_track, kind="stable")]
