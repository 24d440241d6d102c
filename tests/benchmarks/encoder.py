"""The audio encoder on one core, against peers in the same run: a window of 30 s, and the steps of a training."""

from __future__ import annotations

import io
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_RUNS = 40
_STEPS = 2


def encoder(folder: Path) -> dict[str, Any]:
    """Milliseconds of processor time for a window of 30 s, run by run in turn."""
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    import librosa
    import numpy as np
    import torch

    from models.audio_encoder import load_audio_encoder
    from models.mel import ENCODER, log_mel
    from offline.audio_encoder.export import export
    from offline.audio_encoder.network import AudioNetwork

    torch.set_num_threads(1)
    network = AudioNetwork(mels=ENCODER.n_mels, dim=40).eval()
    export(network, out=folder / "encoder", name="drawn", licence="none", training={})
    ours = load_audio_encoder(folder / "encoder")
    waveform = np.random.default_rng(0).normal(0, 0.1, ours.manifest.samples).astype(np.float32)

    def theirs() -> None:
        mels = librosa.feature.melspectrogram(
            y=waveform, sr=ENCODER.sample_rate, n_fft=ENCODER.n_fft, hop_length=ENCODER.hop_length,
            n_mels=ENCODER.n_mels, pad_mode=ENCODER.pad_mode,
        )  # fmt: skip
        with torch.inference_mode():
            network(torch.from_numpy(librosa.power_to_db(mels, top_db=None).T[None]))

    parts: dict[str, Callable[[], object]] = {
        "whole": lambda: ours([waveform]), "log_mel": lambda: log_mel(waveform, ENCODER), "peer": theirs,
    }  # fmt: skip
    took: dict[str, list[float]] = {name: [] for name in parts}
    for run in range(_RUNS):
        for name, part in parts.items():
            started = time.process_time()
            part()
            if run > 1:  # the first ones are a warm-up
                took[name].append((time.process_time() - started) * 1000)
    figures = {name: statistics.median(each) for name, each in took.items()}
    print(
        f"audio encoder, 30 s, one core   {figures['whole']:8.1f} ms   librosa and PyTorch {figures['peer']:.1f} ms   "
        f"ratio {figures['peer'] / figures['whole']:.1f}x    (mark: at most 15 ms)"
    )
    print(f"  log_mel {'':<21} {figures['log_mel']:8.1f} ms")
    return figures


def training(folder: Path) -> dict[str, Any]:
    """Liked tracks that a training learns from in a second of processor time, against a plain loop of PyTorch.

    Both take the same batches of the same store and log: 128 liked and as many disliked tracks, drawn as people hear
    them, from 500 tracks of 30 s. The loop loads the sounds of a sample by a DataLoader, places its person by the user
    tower, and hears the two sounds one after the other.
    """
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    import numpy as np
    import torch
    from torch.utils.data import DataLoader

    from models.user_tower import load_user_tower
    from offline.audio_encoder.data import prepare
    from offline.audio_encoder.fit import fit
    from offline.audio_encoder.losses import hinge
    from offline.audio_encoder.network import AudioNetwork
    from offline.audio_encoder.settings import EncoderTraining
    from offline.interactions.log import read_log
    from offline.ranking.embeddings import histories
    from offline.ranking.examples import ends_before

    torch.set_num_threads(1)
    settings = EncoderTraining(**_platform(folder), validate_every=_STEPS, controls=False, device="cpu")
    data, tower, log = prepare(settings), load_user_tower(settings.tower), read_log(settings.log)
    row_of, rng = tower.items.rows(log.tracks), np.random.default_rng(0)

    def sample(batch: Any) -> list[Any]:
        users, at = batch.users, batch.at
        ends = ends_before(log, log.offsets[users], at)
        heard = (
            torch.from_numpy(data.sounds.crops([track], frames=data.crop_frames, rng=rng)[0]).float()
            for track in (int(batch.liked[0]), int(batch.disliked[0, 0]))
        )
        history = histories(log, row_of, users, ends, history=tower.manifest.history)
        return [*heard, *(torch.from_numpy(array[0]) for array in history)]

    def loop(steps: int) -> None:
        drawn = [data.pairs.draw(rng, count=1, negatives=1) for _ in range(steps * settings.batch)]
        samples: Any = DataLoader(drawn, batch_size=settings.batch, collate_fn=lambda some: [  # pyright: ignore
            torch.stack(part) for part in zip(*map(sample, some), strict=True)])  # fmt: skip
        for liked, disliked, *history in samples:
            people = torch.from_numpy(tower.embed(*(part.numpy() for part in history)))
            optimiser.zero_grad()
            counts = torch.ones(len(people), 1, dtype=torch.bool)
            loss = hinge(people, network(liked), network(disliked)[:, None], counts, margin=settings.margin)
            loss.backward()
            optimiser.step()

    network = AudioNetwork(mels=data.mels, dim=data.dim)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    parts = {
        "ours": lambda steps: fit(data, settings, sounds=data.sounds, steps=steps, valid=None),
        "loop": loop,
    }
    figures = {}
    for name, part in parts.items():
        part(1)
        started = time.process_time()
        part(_STEPS)
        figures[name] = _STEPS * settings.batch / (time.process_time() - started)
    print(
        f"encoder training, one core     {figures['ours']:8.1f} examples/s   DataLoader and PyTorch "
        f"{figures['loop']:.1f}   ratio {figures['ours'] / figures['loop']:.1f}x    (mark: at least 2x)"
    )
    return figures


def _platform(folder: Path) -> dict[str, Any]:
    """A store of drawn log-mels, a log of people who hear few tracks often, a tower of drawn weights, and a list."""
    import numpy as np
    import polars as pl

    from models.mel import ENCODER
    from offline.features.held_out import HoldOut, run
    from tests.platform.taste import write_tower

    rng, count = np.random.default_rng(0), 500
    names = [f"t{number:03}" for number in range(count)]
    log_mels = 15 * rng.standard_normal((count, 938, ENCODER.n_mels), np.float32) - 40
    store = write_store(folder / "store", names, [f"a{number // 5}" for number in range(count)], log_mels, ENCODER)
    share = 1 / np.arange(1, count + 1) ** 0.8
    listens = rng.choice(count, 20_000, p=share / share.sum())
    pl.DataFrame({
        "user_id": [f"u{number % 400}" for number in range(len(listens))],
        "track_id": [names[number] for number in listens],
        "at": 1_600_000_000_000 + 60_000 * np.arange(len(listens)),
    }).write_parquet(folder / "log.parquet")  # fmt: skip
    run(HoldOut(store=str(store), out=str(folder / "held-out.csv")))
    tower = write_tower(folder / "tower", names)
    return {
        "store": str(store), "tower": str(tower), "log": str(folder / "log.parquet"), "out": "none",
        "held_out": str(folder / "held-out.csv"),
    }  # fmt: skip


def write_store(
    store: Path, names: list[str], artists: list[str], log_mels: Any, mel: Any, *, window_s: int = 30
) -> Path:
    """A feature store of log-mels (tracks, frames, mels), a window each."""
    import numpy as np
    import polars as pl

    from offline.features.hear import ROWS
    from offline.features.store import FORMAT, SHARDS, StoreManifest, claim, publish
    from offline.spread import seal

    count, frames, mels = log_mels.shape
    (store / SHARDS).mkdir(parents=True)
    manifest = StoreManifest(
        format=FORMAT, front_end="drawn", windows=1, window_s=window_s, networks={}, patches=False, mel=mel
    )
    claim(store, manifest)
    rows = {
        "uri": names, "stamp": names, "content": names, "duration_s": window_s, "starts_ms": [[0]] * count,
        "frames": [[frames]] * count, "patches": [[0]] * count,
    }  # fmt: skip
    table, content = io.BytesIO(), io.BytesIO()
    nothing = {name: pl.lit(None, kind) for name, kind in ROWS.items() if name not in rows}
    heard = pl.DataFrame(rows).with_columns(**nothing)
    heard.select(pl.col(name).cast(kind) for name, kind in ROWS.items()).write_parquet(table)
    np.save(content, log_mels.reshape(count * frames, mels).astype(np.float16))
    seal(store / SHARDS / "000000", {"tracks.parquet": table.getvalue(), "log_mel.npy": content.getvalue()})
    publish(store, pl.DataFrame({"track_id": names, "uri": names, "artist_id": artists, "genre": ["none"] * count}))
    return store


PARTS = {"encoder": encoder, "encoder-training": training}
