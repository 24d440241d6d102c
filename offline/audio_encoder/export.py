"""Writing a trained audio encoder: ONNX and manifest, as models.audio_encoder reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from models.audio_encoder import ENCODER_MANIFEST, AudioEncoder, LogMelInput, load_audio_encoder, network_of
from models.errors import SettingsError
from models.mel import ENCODER, MelConfig, log_mel
from offline.audio_encoder.network import AudioNetwork
from offline.audio_encoder.seal import seal
from offline.files import new_folder, write_json
from offline.onnx_export import write_onnx

TOLERANCE = 1e-5
"""Largest difference between ONNX Runtime's and PyTorch's embeddings."""


def export(
    network: AudioNetwork,
    *,
    out: Path,
    name: str,
    licence: str,
    mel: MelConfig = ENCODER,
    window_s: float = 30.0,
    training: dict[str, Any],
    beside: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write an encoder's folder; one that is there is replaced.

    Args:
        network: trained; it is moved to the CPU and into eval mode.
        out: the folder.
        name: as in EncoderManifest, like what follows.
        licence: likewise.
        mel: the spectrogram that it was trained on.
        window_s: likewise.
        training: likewise.
        beside: what further JSON files of the folder hold, by their names.

    Raises:
        SettingsError: ONNX Runtime does not give what PyTorch does.
    """
    network = network.cpu().eval()
    frames = len(log_mel(np.zeros(round(window_s * mel.sample_rate), np.float32), mel))
    with new_folder(out) as folder:
        example = [torch.zeros(1, frames, mel.n_mels)]
        path = folder / network_of(ENCODER_MANIFEST)
        write_onnx(network, example, path, inputs=["log_mel"], output="embedding")
        for name_beside, content in beside.items():
            write_json(folder / name_beside, content)
        takes = LogMelInput(mel=mel, frames=frames)
        seal(folder, name=name, licence=licence, takes=takes, window_s=window_s, training=training)
        _check(network, load_audio_encoder(folder), mel)


def _check(network: AudioNetwork, encoder: AudioEncoder, mel: MelConfig) -> None:
    """Raise SettingsError where ONNX Runtime's embeddings are not PyTorch's."""
    rng = np.random.default_rng(0)
    samples = encoder.manifest.samples
    fading = np.geomspace(1e-5, 0.5, samples).astype(np.float32)
    waveforms = [rng.standard_normal(samples).astype(np.float32) * level for level in (fading, fading[::-1], 0.1)]
    log_mels = np.stack([log_mel(waveform, mel) for waveform in waveforms])
    with torch.inference_mode():
        of_torch = network(torch.from_numpy(log_mels)).numpy()
    if (apart := float(np.abs(encoder.of_log_mels([*log_mels]) - of_torch).max())) > TOLERANCE:
        raise SettingsError(f"ONNX Runtime's embeddings differ from PyTorch's by {apart:.1e}; report this as a bug")
