"""The audio encoder on one core: a window of 30 s, against librosa's log-mel and PyTorch in the same run."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_RUNS = 40


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


PARTS = {"encoder": encoder}
