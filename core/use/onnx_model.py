"""Programs of torch.export as ONNX models, and those as functions by onnxruntime."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, first_line
from .tracing import export_failure, silence

OPSET = 20
"""ONNX's opset: that in which DFT takes its axis as an input."""
RULES = (
    *("mul_by_1_rule", "add_0_rule"),  # which are applied to their operands in either order
    *("sub_0_rule", "div_by_1_rule", "dropout_zero_rule", "dropout_inference_rule"),
    *("two_reshapes_matmul_reshape_rule", "one_reshape_matmul_reshape_rule", "materialize_reshape_shape_rule"),
    *("cast_constant_of_shape_rule", "cast_constant_of_shape_without_value_rule", "cast_cast_rule", "no_op_cast_rule"),
    *("collapse_slice_rule", "collapse_slice2_rule", "no_op_expand_rule", "no_op_transpose_rule"),
    *("transpose_transpose_rule", "unsqueeze_unsqueeze_rule", "reshape_reshape_rule", "flatten_to_reshape_rule"),
    *("squeeze_reshape_1d_rule", "min_min_rule", "max_max_rule", "min_max_rule", "max_min_rule"),
    *("successive_clip_relu_rule", "successive_relu_clip_rule", "successive_relu_rule", "successive_clip_rule"),
    *("no_op_dynamic_scatter_nd_rule", "no_op_static_scatter_nd_rule"),
    *("normalize_pad_format_conv_rule", "fuse_pad_into_conv_rule"),
    *("fuse_batchnorm_into_conv_rule", "fuse_batchnorm_into_conv_transpose_rule", "fuse_batchnorm_into_gemm_rule"),
    *("remove_optional_bias_from_conv_rule", "remove_optional_bias_from_conv_transpose_rule"),
    "remove_optional_bias_from_gemm_rule",
)
"""Rules of onnxscript: those that torch's exporter applies by itself, but one. That looks for pairs of slices, at every node in
the whole graph, so that its time grows with the square of the nodes: minutes, and hours, for networks of some thousands."""
LAST = (
    *("LiftSubgraphInitializersToMainGraphPass", "DeduplicateInitializersPass", "CommonSubexpressionEliminationPass"),
    *("RemoveUnusedNodesPass", "RemoveUnusedFunctionsPass", "RemoveUnusedOpsetsPass", "OutputFixPass", "NameFixPass"),
)
"""Passes of onnx_ir that end it."""
ROUNDS = 2
"""How often constants are folded and rules applied, if there is still something to do."""


def as_onnx(program: Any) -> Any:
    """A program as an ONNX model.

    Raises:
        UserError: an operation cannot be said in ONNX; it is named.
    """
    try:
        with torch.no_grad(), silence():
            made = torch.onnx.export(
                program,
                input_names=["x"],
                output_names=["y"],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                optimize=False,
                custom_translation_table={torch.ops.aten.sort.stable: sorted_stably},
            )
            assert made is not None
            simplify(made.model)
        return made.model_proto
    except Exception as e:
        raise UserError(f"ONNX cannot hold it: {export_failure(e)}") from e


def simplify(model: Any) -> None:
    """Fold the constants of a model of onnx_ir, drop what does nothing, and say once what is said twice; in place."""
    passes: Any = importlib.import_module("onnx_ir.passes.common")
    rewriter: Any = importlib.import_module("onnxscript.rewriter")
    optimizer: Any = importlib.import_module("onnxscript.optimizer")
    known = importlib.import_module("onnxscript.rewriter.rules.common")
    found = [getattr(known, n) for n in RULES if hasattr(known, n)]
    rules = rewriter.RewritePass(rewriter.RewriteRuleSet([*found, *found[0].commute(), *found[1].commute()]))
    passes.InlinePass()(model)
    for _ in range(ROUNDS):
        folded = optimizer.fold_constants(model, onnx_shape_inference=True)
        rewritten = rules(model)
        passes.RemoveUnusedNodesPass()(model)
        if not (folded.modified or rewritten.modified):
            break
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for name in LAST:
        getattr(passes, name)()(model)


def sorted_stably(self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """``aten.sort.stable`` in ONNX, whose TopK takes the first of equal values first; the exporter has it without `stable`."""
    op: Any = importlib.import_module("onnxscript").opset20
    size = op.Reshape(op.Gather(op.Shape(self), op.Constant(value_ints=[dim])), op.Constant(value_ints=[1]))
    return op.TopK(self, size, axis=dim, largest=int(descending), sorted=1)


def session_of(model: Any, onnx: Any, onnxruntime: Any) -> Callable[[Tensor], Tensor]:
    """An ONNX model as a function of (B, C, H, W), by onnxruntime.

    Raises:
        UserError: it refuses the model, or later an input.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        onnx.save(model, str(file))
        try:
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as e:  # onnxruntime has a class for each of its codes
            raise UserError(f"onnxruntime cannot run it: {first_line(e)}") from e

    def run(picture: Tensor) -> Tensor:
        try:
            return torch.from_numpy(np.asarray(session.run(None, {"x": picture.numpy()})[0]))
        except Exception as e:
            raise UserError(f"onnxruntime cannot run it on {tuple(picture.shape)}: {first_line(e)}") from e

    return run
