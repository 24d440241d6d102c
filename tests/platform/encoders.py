"""Audio encoders of networks that nobody here made, small enough to be made in a moment."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.audio_encoder import ENCODER_MANIFEST, LogMelInput, WaveformInput, network_of
from models.mel import ENCODER, MelConfig
from offline.audio_encoder.seal import seal

KERNEL, STRIDE = 64, 160


def write_network(
    path: Path, nodes: list, *, takes: list[int | str], gives: list[int | str], weights: dict[str, np.ndarray]
) -> None:
    """An ONNX file with one input `x` and one output `y`, both float32."""
    graph = helper.make_graph(
        nodes, "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, takes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, gives)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def filters(dim: int, *, seed: int = 0) -> np.ndarray:
    """(dim, KERNEL): what write_filterbank's network correlates a waveform with."""
    return np.random.default_rng(seed).standard_normal((dim, KERNEL)).astype(np.float32)


def write_filterbank(
    folder: Path, *, dim: int, sample_rate: int = 16_000, window_s: float = 30.0, unit_norm: bool = True, seed: int = 0
) -> Path:
    """An encoder that takes the waveform: how strongly each of `dim` random filters answers, on average."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = round(window_s * sample_rate)
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axis"], ["channel"]),
        helper.make_node("Conv", ["channel", "filters"], ["answers"], strides=[STRIDE]),
        helper.make_node("Abs", ["answers"], ["strengths"]),
        helper.make_node("ReduceMean", ["strengths"], ["y"], axes=[2], keepdims=0),
    ]
    weights = {"axis": np.array([1], np.int64), "filters": filters(dim, seed=seed)[:, None]}
    write_network(folder / network_of(ENCODER_MANIFEST), nodes, takes=["n", samples], gives=["n", dim], weights=weights)
    seal(
        folder, name="filterbank", licence="of the tests", takes=WaveformInput(sample_rate=sample_rate),
        window_s=window_s, unit_norm=unit_norm, training={},
    )  # fmt: skip
    return folder


def filterbank(waveform: np.ndarray, dim: int, *, seed: int = 0) -> np.ndarray:
    """(dim,) what its network computes of a window."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, KERNEL)[::STRIDE]
    return np.abs(frames.astype(np.float64) @ filters(dim, seed=seed).T).mean(axis=0)


def write_mean_mel(
    folder: Path, *, mel: MelConfig = ENCODER, frames: int, window_s: float = 30.0, unit_norm: bool = True
) -> Path:
    """An encoder that takes a log-mel: its mean over time, a number for each band."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)]
    shapes = {"takes": [1, frames, mel.n_mels], "gives": [1, mel.n_mels]}
    write_network(folder / network_of(ENCODER_MANIFEST), nodes, weights={}, **shapes)
    seal(
        folder, name="mean mel", licence="of the tests", takes=LogMelInput(mel=mel, frames=frames), window_s=window_s,
        unit_norm=unit_norm, training={},
    )  # fmt: skip
    return folder
