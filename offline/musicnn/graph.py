"""The musicnn network as a standard ONNX graph, rewritten to need a third of the arithmetic.

The network is Pons & Serra, musicnn: Pre-trained convolutional neural networks for music audio tagging,
LBD of ISMIR 2019, as musicnn 0.1.0 builds it (models.py):

    log-mel [187, 96] -> batch norm
      -> timbral: 7 x 38 and 7 x 67 kernels, temporal: 128, 64 and 32 x 1 kernels (time x frequency),
         each: convolution, ReLU, batch norm, maximum over frequency              -> front end [561, 187]
      -> three 7-tap convolutions in time with ReLU and batch norm, residual      -> 3 x [64, 187]
      -> maximum and mean over time of all 753                                    -> max_pool, mean_pool
      -> batch norm, dense, ReLU, batch norm                                      -> penultimate [200]
      -> dense, sigmoid                                                           -> tags [50]

What is rewritten, each step equal to the original in exact arithmetic:

1. Convolutions in time go by Toom-Cook (offline.musicnn.toom_cook): m outputs from m + r - 1 products instead of m * r.
   Kernels longer than r are cut into blocks of r taps whose products add up before the inverse transform.
2. ReLU and batch norm of the front end come after the maximum over frequency, on a hundredth of the values.
   Both are monotone, so the maximum commutes with them; where the batch norm's factor is negative
   they fall instead of rise, and the kernel changes sign so that its maximum is the wanted minimum.
3. The batch norm in front of the first dense layer is folded into its weights. (The first batch norm of all
   cannot be folded into the kernels: the convolutions pad its output with zeros, not its input.)

Accuracy and speed of tiles and chunks were measured on real music in float32: larger tiles are a little
faster, and lose digits of max_pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.mel import MUSICNN, PATCH_FRAMES
from models.musicnn import OUTPUTS
from offline.musicnn.toom_cook import toom_cook

Weights = Mapping[str, NDArray[np.float32]]
Float64 = NDArray[np.float64]

OPSET, IR_VERSION = 17, 8  # the oldest that say all of this: any ONNX Runtime since 1.12 reads them
BANDS = MUSICNN.n_mels
BATCH_NORM_EPSILON = 1e-3
MID_TAPS = 7

# For each branch of the front end, in the order of the checkpoint's conv2d, conv2d_1, ...: Toom-Cook's (m, r), and
# how many tiles of m frames are worked on at a time, so that what lies between two nodes stays near the caches.
FRONT_TILES = (((6, 7), 4), ((6, 7), 8), ((6, 6), 8), ((6, 6), 8), ((4, 4), 12))
MID_TILE = (4, MID_TAPS)


def build(weights: Weights) -> onnx.ModelProto:
    """The network of one published checkpoint; equal weights give equal bytes.

    Args:
        weights: the checkpoint's variables by name (conv2d_2/kernel, batch_normalization_9/gamma, ...).

    Returns:
        Input log_mel [n, 187, 96]; outputs tags [n, 50], max_pool [n, 753], mean_pool [n, 753] and
        penultimate [n, 200], all float32. It is quickest at n = 1.
    """
    graph = _Graph()
    image = _normalised_image(graph, weights)
    front = _front_end(graph, image, weights)
    layers = [front, *_mid_end(graph, front, weights)]
    pools = {
        name: graph.node("Concat", *(graph.node(kind, layer, axes=[2], keepdims=0) for layer in layers), axis=1)
        for name, kind in (("max_pool", "ReduceMax"), ("mean_pool", "ReduceMean"))
    }
    penultimate = _penultimate(graph, pools, weights)
    kernel, bias = (graph.constant(weights[f"dense_1/{part}"]) for part in ("kernel", "bias"))
    tags = _sigmoid(graph, graph.node("Gemm", penultimate, kernel, bias))
    return graph.model({"tags": tags, **pools, "penultimate": penultimate})


class _Graph:
    """Nodes and constants in the making; each method returns the name of the tensor it adds."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[bytes, onnx.TensorProto] = {}

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, values: Any, kind: type[np.generic] = np.float32) -> str:
        array = np.ascontiguousarray(values, kind)
        key = repr((array.dtype.str, array.shape)).encode() + array.tobytes()
        tensor = numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        return self._constants.setdefault(key, tensor).name

    def integers(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def reshape(self, tensor: str, *shape: int) -> str:
        return self.node("Reshape", tensor, self.integers(*shape))

    def slice(self, tensor: str, start: int, stop: int, *, axis: int) -> str:
        return self.node("Slice", tensor, *(self.integers(number) for number in (start, stop, axis)))

    def affine(self, tensor: str, factor: Any, offset: Any) -> str:
        return self.node("Add", self.node("Mul", tensor, self.constant(factor)), self.constant(offset))

    def model(self, outputs: Mapping[str, str]) -> onnx.ModelProto:
        for name, tensor in outputs.items():
            self._nodes.append(helper.make_node("Identity", [tensor], [name]))

        def value(name: str, *shape: int) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])

        graph = helper.make_graph(
            self._nodes,
            "musicnn",
            [value("log_mel", PATCH_FRAMES, BANDS)],
            [value(name, OUTPUTS[name]) for name in outputs],
            list(self._constants.values()),
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="tastewave")
        onnx.checker.check_model(model, full_check=True)
        return model


def _batch_norm(weights: Weights, index: int) -> tuple[Float64, Float64]:
    """The batch norm's factor and offset for each channel: (x - mean) / sqrt(variance + epsilon) * gamma + beta."""
    name = f"batch_normalization_{index}" if index else "batch_normalization"
    gamma, beta, mean, variance = (
        weights[f"{name}/{part}"].astype(np.float64) for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    factor = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
    return factor, beta - mean * factor


def _convolution(weights: Weights, index: int) -> tuple[Float64, Float64]:
    """Kernel and bias; kernels are stored as (time, frequency, inputs, outputs)."""
    name = f"conv2d_{index}" if index else "conv2d"
    return weights[f"{name}/kernel"].astype(np.float64), weights[f"{name}/bias"].astype(np.float64)


def _normalised_image(graph: _Graph, weights: Weights) -> str:
    """The input after its batch norm, [n, 1, frames, bands]."""
    factor, offset = _batch_norm(weights, 0)
    return graph.node("Unsqueeze", graph.affine("log_mel", factor, offset), graph.integers(1))


def _front_end(graph: _Graph, image: str, weights: Weights) -> str:
    """The timbral and temporal branches, [n, channels, frames]."""
    maxima: list[str] = []
    signs, biases, factors, offsets = [], [], [], []
    for branch, (tile, chunk) in enumerate(FRONT_TILES):
        kernel, bias = _convolution(weights, branch)
        factor, offset = _batch_norm(weights, branch + 1)
        sign = np.where(factor < 0.0, -1.0, 1.0)
        kernel = kernel[:, :, 0].transpose(2, 0, 1) * sign[:, None, None]
        maxima.append(_highest_in_frequency(graph, image, kernel, tile=tile, chunk=chunk))
        for values, value in zip((signs, biases, factors, offsets), (sign, bias, factor, offset), strict=True):
            values.append(value)
    sign, bias, factor, offset = (np.concatenate(values)[:, None] for values in (signs, biases, factors, offsets))
    rectified = graph.node("Relu", graph.affine(graph.node("Concat", *maxima, axis=1), sign, bias))
    return graph.affine(rectified, factor, offset)


def _highest_in_frequency(graph: _Graph, image: str, kernel: Float64, *, tile: tuple[int, int], chunk: int) -> str:
    """Maximum over frequency of a convolution padded to as many frames, [n, channels, frames].

    Padding as TensorFlow's "same": one frame more after than before where the taps are even in number.

    Args:
        graph: takes the nodes.
        image: [n, 1, frames, bands].
        kernel: (channels, taps, width).
        tile: Toom-Cook's (m, r). Kernels of more than r taps need m == r: then the input tile of a kernel's second
            block is that of the first block one tile later, and one transform of the data serves all blocks.
        chunk: tiles worked on at a time.
    """
    m, r = tile
    algorithm = toom_cook(m, r)
    products = m + r - 1
    channels, taps, width = kernel.shape
    blocks, tiles = -(-taps // r), -(-PATCH_FRAMES // m)
    # B^T (input tiles of m + r - 1 frames, m apart): [n, products, input tiles, bands]
    input_tiles = tiles + blocks - 1
    before = (taps - 1) // 2
    after = (input_tiles - 1) * m + products - before - PATCH_FRAMES
    data = graph.node(
        "Conv", image, graph.constant(algorithm.data[:, None, :, None]),
        kernel_shape=[products, 1], strides=[m, 1], pads=[before, 0, after, 0],
    )  # fmt: skip
    # G (blocks of r taps): one group of a convolution for each product
    kernel = np.pad(kernel, ((0, 0), (0, blocks * r - taps), (0, 0))).reshape(channels, blocks, r, width)
    kernel = _transform(algorithm.kernel, kernel, axis=2)
    group_kernels = graph.constant(kernel.reshape(products * channels, 1, blocks, width))
    positions = BANDS - width + 1
    maxima: list[str] = []
    for first in range(0, tiles, chunk):
        count = min(chunk, tiles - first)
        part = graph.slice(data, first, first + count + blocks - 1, axis=2)
        multiplied = graph.node("Conv", part, group_kernels, group=products, kernel_shape=[blocks, width])
        multiplied = graph.reshape(multiplied, 0, products, channels * count * positions)
        outputs = graph.node("MatMul", graph.constant(algorithm.output), multiplied)  # A^T
        outputs = graph.reshape(outputs, 0, m, channels, count, positions)
        maxima.append(graph.node("ReduceMax", outputs, axes=[4], keepdims=0))
    return _frames(graph, graph.node("Concat", *maxima, axis=3), channels=channels)


def _mid_end(graph: _Graph, front: str, weights: Weights) -> list[str]:
    """The three layers [n, 64, frames] behind the front end; the second and third add to the one before."""
    layers: list[str] = []
    for index in (5, 6, 7):
        kernel, bias = _convolution(weights, index)
        kernel = kernel[:, :, 0].transpose(2, 1, 0)  # (outputs, inputs, taps)
        if index == 5:  # 561 inputs: worth a transform
            layer = graph.node("Add", _wide_convolution(graph, front, kernel), graph.constant(bias[:, None]))
        else:
            layer = graph.node("Conv", layers[-1], graph.constant(kernel), graph.constant(bias), pads=[3, 3])
        factor, offset = (value[:, None] for value in _batch_norm(weights, index + 1))
        layer = graph.affine(graph.node("Relu", layer), factor, offset)
        layers.append(layer if index == 5 else graph.node("Add", layer, layers[-1]))
    return layers


def _wide_convolution(graph: _Graph, signal: str, kernel: Float64) -> str:
    """Convolution in time of [n, inputs, frames] by (outputs, inputs, taps), zero-padded: [n, outputs, frames]."""
    m, r = MID_TILE
    algorithm = toom_cook(m, r)
    products, outputs, tiles = m + r - 1, kernel.shape[0], -(-PATCH_FRAMES // m)
    before = (r - 1) // 2
    after = (tiles - 1) * m + products - before - PATCH_FRAMES
    data = graph.node(
        "Conv", graph.node("Unsqueeze", signal, graph.integers(1)), graph.constant(algorithm.data[:, None, None, :]),
        kernel_shape=[1, products], strides=[1, m], pads=[0, before, 0, after],
    )  # fmt: skip
    multiplied = graph.node("MatMul", graph.constant(_transform(algorithm.kernel, kernel, axis=2)), data)
    multiplied = graph.reshape(multiplied, 0, products, outputs * tiles)
    tiled = graph.node("MatMul", graph.constant(algorithm.output), multiplied)
    return _frames(graph, graph.reshape(tiled, 0, m, outputs, tiles), channels=outputs)


def _transform(matrix: Float64, values: Float64, *, axis: int) -> Float64:
    """A matrix (k, size of axis) applied along the axis, which becomes axis 0; the same bits on every machine."""
    values = np.moveaxis(values, axis, 0)
    return np.stack([sum(factor * value for factor, value in zip(row, values, strict=True)) for row in matrix])


def _frames(graph: _Graph, tiled: str, *, channels: int) -> str:
    """[n, m, channels, tiles] -> [n, channels, frames]: frame t is output t % m of tile t // m."""
    frames = graph.reshape(graph.node("Transpose", tiled, perm=[0, 2, 3, 1]), 0, channels, -1)
    return graph.slice(frames, 0, PATCH_FRAMES, axis=2)


def _penultimate(graph: _Graph, pools: Mapping[str, str], weights: Weights) -> str:
    """The dense layer over max_pool and mean_pool, [n, 200].

    The published network flattens [753, 2]: its inputs alternate between maximum and mean.
    """
    factor, offset = _batch_norm(weights, 9)
    kernel = weights["dense/kernel"].astype(np.float64)
    bias = weights["dense/bias"] + (offset[:, None] * kernel).sum(axis=0)
    kernel = factor[:, None] * kernel
    kernel = np.concatenate([kernel[0::2], kernel[1::2]])
    pooled = graph.node("Concat", pools["max_pool"], pools["mean_pool"], axis=1)
    dense = graph.node("Gemm", pooled, graph.constant(kernel), graph.constant(bias))
    return graph.affine(graph.node("Relu", dense), *_batch_norm(weights, 10))


def _sigmoid(graph: _Graph, logits: str) -> str:
    """1 / (1 + exp(-x)): ONNX Runtime's own Sigmoid is a fit with an absolute error, too much for rare tags."""
    falling = graph.node("Exp", graph.node("Neg", logits))
    return graph.node("Reciprocal", graph.node("Add", falling, graph.constant(1.0)))
