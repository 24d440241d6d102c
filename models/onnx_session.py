"""ONNX Runtime as every network here uses it."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any


def open_session(model: str | Path | bytes, *, optimise: bool = True) -> Any:
    """An InferenceSession with one thread, so that a process per core keeps all cores busy.

    Args:
        model: path or bytes of an ONNX file.
        optimise: False leaves the graph as it is, but for constants.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it writes and sends at import, unless told not to before
    ort: Any = import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_ENABLE_BASIC
    return ort.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
    )
