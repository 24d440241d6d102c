"""How many tracks a core answers from their features, with the shipped genre head."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np
from tracks_path import Figures

from models.events import TrackFeatures, TrackTagged, WindowFeatures
from models.features import taggram_features
from models.release import Release, load_release
from models.rescoring import Rescorer

TRACKS, WINDOWS = 20_000, 3
DIFFERENT = 1_000
MARK = 20_000


def rescore(folder: Path) -> Figures:
    """Tracks a second of CPU time, from the bytes of the features topic to answers; and one track after the other."""
    release = load_release()
    values, rescorer = made_up(release), Rescorer(release, top_k=5)
    decoder = msgspec.msgpack.Decoder(TrackFeatures)
    of_parts = list[tuple[float, float]]()
    for _ in range(3):
        started = time.process_time()
        tracks = [decoder.decode(value) for value in values]
        decoded = time.process_time()
        answers = rescorer(tracks, tagged_at=1)
        of_parts.append((decoded - started, time.process_time() - decoded))
        assert all(isinstance(answer, TrackTagged) for answer in answers)
    decode_s, score_s = min(of_parts, key=sum)
    started = time.process_time()
    for track in tracks[:DIFFERENT]:
        rescorer([track], tagged_at=1)
    singly = DIFFERENT / (time.process_time() - started)
    together, scoring = TRACKS / (decode_s + score_s), TRACKS / score_s
    print(f"scoring of features, one core   {scoring:8.0f} tracks/s  (mark: {MARK:,})   {WINDOWS} windows a track")
    print(f"  with the decoding of msgpack  {together:8.0f} tracks/s")
    print(f"  one track at a time           {singly:8.0f} tracks/s   ratio {scoring / singly:.1f}x")
    return {"tracks_per_s": scoring, "decoded_tracks_per_s": together, "singly_per_s": singly}


def made_up(release: Release) -> list[bytes]:
    """Values of the topic: taggrams that vary as those of music do, from track to track more than within one."""
    rng = np.random.default_rng(0)
    windows = list[tuple[WindowFeatures, ...]]()
    for _ in range(DIFFERENT):
        track = rng.normal(-3.0, 1.0, 50)
        windows.append(tuple(window(rng, track, start_ms=30_000 * at) for at in range(WINDOWS)))
    encoder = msgspec.msgpack.Encoder()
    return [
        encoder.encode(
            TrackFeatures(
                track_id=f"track-{at}", front_end=release.hearing, content_hash="0" * 64,
                networks=release.network_hashes, windows={"msd": windows[at % DIFFERENT]}, event_time=1, event_id="e",
                title="a title", artist_id="an artist",
            )
        )
        for at in range(TRACKS)
    ]  # fmt: skip


def window(rng: np.random.Generator, track: np.ndarray, *, start_ms: int) -> WindowFeatures:
    taggram = 1.0 / (1.0 + np.exp(-(track + rng.normal(0.0, 0.5, (10, 50)))))
    packed = {name: row.astype("<f2").tobytes() for name, row in taggram_features("msd", taggram).items()}
    return WindowFeatures(
        start_ms=start_ms, patches=10, max_pool=rng.normal(0.0, 20.0, 753).astype("<f2").tobytes(),
        taggram_mean=packed["msd.taggram.mean"], taggram_spread=packed["msd.taggram.spread"],
    )  # fmt: skip


PARTS = {"rescore": rescore}
