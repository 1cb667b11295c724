"""Networks as files that run without Relume: ONNX, torch.export's programs, and safetensors that say what they are.

An exported network has one input ``x`` and one output ``y``, (N, C, H, W) RGB float32 in [0, 1]: what `functions.Subject`
is. Padding to the network's multiple, the ``mean`` and ``std`` of its training, and the choice of one of several outputs
are inside.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError, first_line, require
from ..inference.tiling import size_multiple
from ..ops.real_fourier import real_arithmetic
from ..runtime import checkpoint, weights
from .functions import Subject, subject_of
from .onnx_model import OPSET, as_onnx, session_of
from .tracing import AXES, FIXED, HINTS, Differs, Hint, export_failure, freest, silence, traced

log = logging.getLogger("relume")

TOLERANCE = {"float32": 1e-3, "float16": 2e-2}
"""Largest difference that is accepted, of values in [0, 1], by the type that is computed in."""
SIZES = ((1, 64, 80), (2, 72, 64), (1, 51, 77))
"""Batch, height and width of the inputs that a file is verified with."""
INSTALL = "pip install 'relume[export]'"


@dataclass(frozen=True)
class Report:
    """What became of an export.

    Attributes:
        difference: the largest from what torch gives, of values in [0, 1].
        sizes: how many inputs that was found with.
        dynamic: axes of the input that may have any size.
        opset: opset of ONNX; None for other formats.
        scale: output size / input size.
    """

    difference: float
    sizes: int
    dynamic: tuple[str, ...]
    opset: int | None
    scale: int


def inputs_for(channels: int, free: tuple[str, ...], example: Tensor) -> list[Tensor]:
    """Three pictures (B, C, H, W) for verification, of different sizes and batches where those are `free`, else of the
    example's.
    """
    made = []
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in SIZES:
        shape = [
            batch if "batch" in free else 1,
            channels,
            height if "height" in free else example.shape[2],
            width if "width" in free else example.shape[3],
        ]
        made.append(torch.rand(shape, generator=generator))
    return made


def verified(
    run: Callable[[Tensor], Tensor], subject: Subject, pictures: list[Tensor], tolerance: float
) -> tuple[float, int]:
    """The largest difference of a file's results for pictures (B, C, H, W) from those of its model, and the scale.

    Raises:
        UserError: it is above `tolerance`, or the sizes differ.
    """
    worst, scale = 0.0, 1
    for picture in pictures:
        try:
            expected = subject.call(picture)
        except RuntimeError as e:
            raise UserError(f"the network takes no {tuple(picture.shape)} ({first_line(e)}); see --size") from e
        found = run(picture)
        if found.shape != expected.shape:
            raise UserError(f"gives {tuple(found.shape)} for {tuple(picture.shape)}, and torch {tuple(expected.shape)}")
        difference = float((found.float() - expected).abs().max())
        worst = max(worst, difference if difference == difference else float("inf"))
        scale = expected.shape[-1] // picture.shape[-1]
    if worst > tolerance:
        raise Differs(f"differs by {worst:.3g} from what torch gives, above --tolerance {tolerance:g}; not written")
    return worst, scale


def example_for(subject: Subject, size: tuple[int, int] | None = None) -> Tensor:
    """An input that the network takes, (B, C, H, W), of a (height, width)."""
    multiple = size_multiple(subject.network)
    height, width = size or subject.size or tuple(-(-n // multiple) * multiple for n in (64, 96))
    return torch.rand((2, subject.channels, height, width), generator=torch.Generator().manual_seed(1))


def to_onnx(
    subject: Subject, target: Path, half: bool, tolerance: float, size: tuple[int, int] | None = None
) -> Report:
    """Write an ONNX file that has been run by onnxruntime.

    Args:
        subject: what the file is to do.
        target: path of the file.
        half: compute in float16.
        tolerance: largest difference that is accepted.
        size: (height, width) where the network allows one only.

    Raises:
        UserError: the packages are missing, the network cannot be exported, or the file does not give the same.
    """
    require("onnxscript", f"writing {target}", INSTALL)
    onnx = require("onnx", f"writing {target}", INSTALL)
    onnxruntime = require("onnxruntime", f"verifying {target}", INSTALL)
    example = example_for(subject, size)
    function = subject.function(half)

    # Trace, convert and verify with as many free axes as possible.
    def attempt(hint: Hint) -> tuple[Any, tuple[str, ...], float, int]:
        with real_arithmetic():
            program, free = traced(function, example, hint)
        model = as_onnx(program)
        pictures = inputs_for(subject.channels, free, example)
        return model, free, *verified(session_of(model, onnx, onnxruntime), subject, pictures, tolerance)

    model, free, worst, scale = freest(attempt, HINTS if subject.size is None else FIXED)
    # What a reader of the file wants to know of it.
    metadata = {
        "architecture": type(subject.network).__name__,
        "color": "RGB",
        "range": "[0, 1]",
        "layout": "NCHW",
        "scale": str(scale),
        "size_multiple": "1",
        "dynamic": ", ".join(free) or "none",
        "fp16": str(half).lower(),
        **({"input": subject.given} if subject.given else {}),
        weights.ABOUT: json.dumps({**subject.description, "average": None}),
    }
    model.producer_name = "relume"
    onnx.helper.set_model_props(model, metadata)
    checkpoint.write_atomically(target, lambda f: f.write(model.SerializeToString()))
    return Report(worst, len(SIZES), free, OPSET, scale)


def to_program(
    subject: Subject,
    target: Path,
    tolerance: float,
    compiled: bool,
    size: tuple[int, int] | None = None,
) -> Report:
    """Write a program of torch.export, or with `compiled` a package of AOTInductor, that has been run.

    Raises:
        UserError: the network cannot be exported, or the file does not give the same.
    """
    example = example_for(subject, size)
    function = subject.function()
    with tempfile.TemporaryDirectory() as folder, silence(), torch.no_grad():
        file = Path(folder) / "model.pt2"

        def attempt(hint: Hint) -> tuple[tuple[str, ...], float, int]:
            program, free = traced(function, example, hint)
            try:
                run = packaged(program, file) if compiled else saved(program, file)
                return free, *verified(run, subject, inputs_for(subject.channels, free, example), tolerance)
            except UserError:
                raise
            except Exception as e:  # of compilers, and of guards on sizes
                raise UserError(f"the program cannot be run here: {export_failure(e)}") from e

        free, worst, scale = freest(attempt, HINTS if subject.size is None else FIXED)
        data = file.read_bytes()
    checkpoint.write_atomically(target, lambda f: f.write(data))
    return Report(worst, len(SIZES), free, None, scale)


def saved(program: Any, file: Path) -> Any:
    """A program in a file, as it is read back."""
    torch.export.save(program, str(file))
    return torch.export.load(str(file)).module()


def packaged(program: Any, file: Path) -> Any:
    """A program compiled into a file, as it is read back."""
    inductor: Any = torch._inductor
    inductor.aoti_compile_and_package(program, package_path=str(file))
    return inductor.aoti_load_package(str(file))


def to_safetensors(subject: Subject, target: Path, half: bool, tolerance: float) -> Report:
    """Write the weights with what they say of themselves as metadata, and read them back.

    Raises:
        UserError: what is read back does not give the same.
    """
    module = require("safetensors.torch", str(target))
    from ..load import load

    state = {k: v.detach().cpu().contiguous() for k, v in subject.network.state_dict().items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    state = {k: v.clone() for k, v in state.items()}  # of tied weights, each its own
    described = {weights.ABOUT: json.dumps({**subject.description, "average": None})}
    data = module.save(state, described)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        file.write_bytes(data)
        back = subject_of(load(str(file), device="cpu"))
        pictures = inputs_for(subject.channels, AXES, torch.empty(0))
        worst, scale = verified(back.call, subject, pictures, tolerance)
    checkpoint.write_atomically(target, lambda f: f.write(data))
    return Report(worst, len(pictures), AXES, None, scale)
