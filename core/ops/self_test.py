"""A small call of an op with kernels and without, in value and gradient, before kernels are first used in a dtype on a device.

Every op registers its own call, by `case`. What is wrong is known for the rest of the process. `core.ops.dispatch` then does
without these kernels, after one warning, or stops where they are insisted on. A kernel that cannot be compiled or launched
fails here as well.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from .modes import FORCED, NAMES, mode_of

log = logging.getLogger("relume")
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Relative error, of norms, that is no fault: rounding, of TensorFloat-32 for the products around a kernel in float32."""
FAULTS: dict[tuple[str, torch.dtype, torch.device], str | None] = {}
"""What was found by op, dtype and device; None where nothing was wrong."""
CASES: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {}
"""Cases of the operators whose modules are imported: a function that differentiates in all of its tensors, and their shapes."""
SIZED: dict[str, Callable[[int, int], tuple[tuple[int, ...], ...]]] = {}
"""Shapes for an operator's same function where what it works on has side^2 rows of some width, for `core.ops.crossover`."""
Call = TypeVar("Call", bound=Callable[..., Any])
_LOCK = threading.RLock()


def case(
    op: str, *shapes: tuple[int, ...], sized: Callable[[int, int], tuple[tuple[int, ...], ...]]
) -> Callable[[Call], Call]:
    """Register a function, which differentiates in all of its tensors, and their shapes as the case of `op`.

    Args:
        op: a key of `core.ops.modes.NAMES`.
        shapes: shapes of a small call.
        sized: ``sized(side, width)`` gives those of a call on side^2 rows of `width`.
    """

    def register(function: Call) -> Call:
        CASES[op], SIZED[op] = (function, shapes), sized
        return function

    return register


def heads(channels: int, most: int) -> int:
    """The fewest heads of at most so many of the channels."""
    return next(h for h in range(1, channels + 1) if channels % h == 0 and channels <= h * most)


def fault(op: str, dtype: torch.dtype, device: torch.device) -> str | None:
    """What is wrong with the kernels of `op`, in a few words, or None; tried when first asked.

    Nothing is tried, and nothing noted, while a CUDA graph is captured: an op was called before, to warm up.
    """
    if (op, dtype, device) in FAULTS:
        return FAULTS[op, dtype, device]
    if op not in CASES or (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
        return None
    with _LOCK:
        found = FAULTS[op, dtype, device] = _tried(op, dtype, device)
    if found and mode_of(op) != "on":
        log.warning("The fused %s is not used on %s in this run: %s.", NAMES[op], device, found)
    return found


def _tried(op: str, dtype: torch.dtype, device: torch.device) -> str | None:
    from .launching import LAUNCHED

    launched = LAUNCHED.copy()
    name = str(dtype).removeprefix("torch.")
    function, shapes = CASES[op]
    given = drawn(shapes, torch.device("cpu"), dtype)
    try:
        expected = called(op, "off", function, [t.double() for t in given])
        found = called(op, "on", function, [t.to(device) for t in given])
    except Exception as e:  # of a compiler, a driver or a kernel: there is no common class
        return f"its self-test in {name} {failure(e)}"
    finally:
        LAUNCHED.clear()
        LAUNCHED.update(launched)
    wrong = difference([t.cpu() for t in found], expected, dtype)
    return f"its self-test in {name} found {wrong}" if wrong else None


def failure(error: Exception) -> str:
    """That a call failed, and how, in one line."""
    said = str(error).strip().splitlines() or [""]
    return f"failed, {type(error).__name__}: {said[0]}"


def difference(found: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> str | None:
    """What is wrong by more than `TOLERANCE` among a value and its gradients, of any shape, or None."""
    pairs = [(a.double(), b.double()) for a, b in zip(found, expected, strict=True)]
    errors = [float((a - b).norm() / (b.norm() + 1e-12)) for a, b in pairs]
    worst = max(errors)
    if worst <= TOLERANCE[dtype]:  # which nan is not
        return None
    return f"a {'value' if errors.index(worst) == 0 else 'gradient'} that is wrong by {worst:.1%}"


def drawn(shapes: Sequence[tuple[int, ...]], device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Tensors of these shapes in (0.1, 1.1), the same every time; no generator of the run is used."""
    generator = torch.Generator(device).manual_seed(0)
    return [(torch.rand(s, generator=generator, device=device) + 0.1).to(dtype) for s in shapes]


def called(
    op: str, mode: str, function: Callable[..., Any], given: list[Tensor], gradients: bool = True
) -> list[Tensor]:
    """The result, of any shape, and the gradients of a weighted sum of it, with kernels (``on``) or without (``off``)."""
    FORCED[op] = mode
    hooks = torch.autograd.graph.saved_tensors_hooks(_same, _same)  # around us there may be a checkpoint, which counts
    try:
        device = given[0].device.type
        with (
            torch.inference_mode(False),
            torch.set_grad_enabled(gradients),
            torch.autocast(device, enabled=False),
            hooks,
        ):
            given = [t.clone().requires_grad_(gradients) for t in given]
            y = function(*given)
            if not y.requires_grad:
                return [y]
            weight = torch.linspace(-1, 1, y.numel(), device=y.device, dtype=y.dtype).view(y.shape)
            of = torch.autograd.grad((y * weight).sum(), given, allow_unused=True)
            return [y.detach(), *(g for g in of if g is not None)]
    finally:
        del FORCED[op]


def _same(t: Tensor) -> Tensor:
    return t
