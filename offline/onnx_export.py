"""PyTorch modules as ONNX files that say nothing of the machine that they were made on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn


def write_onnx(
    module: nn.Module,
    example: Sequence[Tensor],
    path: Path,
    *,
    inputs: Sequence[str],
    output: str,
    first_dim: str | None = None,
) -> None:
    """Write a module as ONNX.

    Args:
        module: in eval mode, on the CPU.
        example: what it takes.
        path: of the file.
        inputs: a name for each of them.
        output: a name for what it gives.
        first_dim: what the first dimension of every input counts, where it may have any size; sizes are those of the
            example where None.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):  # of the exporter's own imports
        torch.onnx.export(
            module, tuple(example), path, dynamo=True, external_data=False, verbose=False,
            input_names=list(inputs), output_names=[output],
            dynamic_shapes=({0: torch.export.Dim(first_dim)},) * len(example) if first_dim else None,
        )  # fmt: skip
    _forget_where_it_was_made(path)


def _forget_where_it_was_made(path: Path) -> None:
    """Drop what torch writes beside each node: stack traces, with the paths of this machine."""
    model = onnx.load(path)
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.value_info,
                 *model.graph.input, *model.graph.output, *model.functions):  # fmt: skip
        del part.metadata_props[:]
        part.ClearField("doc_string")
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
            node.ClearField("doc_string")
    onnx.save(model, path)
