"""One rule for all fused kernels: used where they run, are right and are faster, unless ``RELUME_KERNELS`` says otherwise.

`core.ops.modes` has the words of ``RELUME_KERNELS``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import UserError
from . import self_test
from .modes import FORCED, NAMES, interpreted, mode_of
from .shapes import check_devices

F = TypeVar("F", bound=Callable[..., Any])
DECISIONS: dict[str, str] = {}
"""Reason, for every op that ran in this process, why its fused kernel did not; empty for one that did."""
FOREIGN: dict[str, str] = {}
"""Owner of the kernel of those, where it was not ours."""


def use_kernel(
    op: str, obstacle: Callable[[], str | None], x: Tensor | None = None, shape: tuple[int, ...] | None = None
) -> bool:
    """Whether `op` shall run its fused kernel.

    Args:
        op: name of the op, a key of `NAMES`.
        obstacle: function that gives the reason why the kernel cannot run here, or None if it can; asked only when it matters.
        x: a tensor that it shall run on: before the first of a dtype and a device, `core.ops.self_test` tries the op there;
            under ``auto`` a GPU's `core.ops.crossover` tells whether it is faster.
        shape: shape of what the op works on, where that is not `x`.

    Raises:
        UserError: ``RELUME_KERNELS`` is ``on`` and there is an obstacle, or it is none of the known words.
    """
    if torch.compiler.is_exporting():  # what an exported file's readers do not have; and obstacles limit sizes
        return False
    mode = mode_of(op)
    words = NAMES.get(op, op)
    reason = obstacle() if mode != "off" else "RELUME_KERNELS is off"
    if op not in FORCED:  # else it is being tried, which decides nothing
        if reason is None and x is not None:
            reason = _fault(op, x.dtype, x.device)
            if reason is None and mode == "auto" and x.is_cuda and not torch.compiler.is_compiling():
                from . import crossover

                reason = crossover.slower(op, tuple(shape or x.shape), x)
        DECISIONS[words] = reason or ""
    if mode == "off":
        return False
    if reason and mode == "on":
        raise UserError(f"RELUME_KERNELS=on, but the fused {words} cannot run: {reason}")
    return reason is None


def note(op: str, whose: str) -> None:
    """Note that `op` runs the kernel of another package."""
    DECISIONS[NAMES[op]] = ""
    FOREIGN[NAMES[op]] = whose


def decisions() -> str:
    """In words, which kernels run, and why others do not; empty where no op with kernels has run."""
    said = []
    for op, reason in DECISIONS.items():
        fused = f"fused, {FOREIGN[op]}" if op in FOREIGN else "fused"
        said.append(f"{op}: plain PyTorch ({reason})" if reason else f"{op}: {fused}")
    return "; ".join(said)


def constant_to_compiler(function: F) -> F:
    """Decorator: what ``torch.compiler.assume_constant_result`` does, which would import the compiler: that takes seconds."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant_to_compiler
def _fault(op: str, dtype: torch.dtype, device: torch.device) -> str | None:
    return self_test.fault(op, dtype, device)


def compiler_obstacle(op: str) -> str | None:
    """Why a kernel between pointwise neighbours is not used under ``torch.compile``, or None: also where it is insisted on."""
    return (
        "torch.compile fuses it with its neighbours" if torch.compiler.is_compiling() and mode_of(op) != "on" else None
    )


def device_obstacle(op: str, **tensors: Tensor | None) -> str | None:
    """Why no kernel of ours can run on these arguments, or None: device, dtype and Triton, the same for all ops.

    Raises:
        UserError: they are on different devices.
    """
    check_devices(NAMES[op], **tensors)
    given = {name: t for name, t in tensors.items() if t is not None}
    first, x = next(iter(given.items()))
    if x.device.type != "cuda":
        if x.device.type != "cpu" or not interpreted():
            return f"it needs a GPU, {first} is on {x.device.type}"
        if mode_of(op) != "on":
            return "the interpreter is for tests: it runs under RELUME_KERNELS=on alone"
    for name, t in given.items():
        if t.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            return f"it computes in float32, {name} is {str(t.dtype).removeprefix('torch.')}"
    return None if has_triton() else "Triton is not installed"


def float32_obstacle(op: str, **tensors: Tensor) -> str | None:
    """`device_obstacle` of an op that takes float32 alone.

    Raises:
        UserError: the tensors are on different devices.
    """
    for name, t in tensors.items():
        if t.dtype != torch.float32:
            return f"it computes in float32, {name} is {str(t.dtype).removeprefix('torch.')}"
    return device_obstacle(op, **tensors)


_HAS_TRITON = importlib.util.find_spec("triton") is not None


def has_triton() -> bool:
    """Whether Triton is installed; it is not imported."""
    return _HAS_TRITON
