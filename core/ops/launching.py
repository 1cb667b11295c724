"""What every kernel of ours shares: how it is launched, counted, and made an operator of PyTorch. Importing this needs Triton.

Rules: the axis that grows with the data is axis 0 of a grid, offsets from it are 64-bit; sums are in float32; the gradients of
parameters are partial sums of programs, added up in a fixed order, so that results repeat bit for bit.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from ..errors import UserError
from . import operators
from .modes import NAMES, interpreted

LAUNCHED: Counter[str] = Counter()
"""How often each kernel was launched in this process, by module and name."""
GRID_LIMITS = 2**31 - 1, 65_535, 65_535
"""Programs along each axis of a grid."""


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, warps: int = 4, stages: int = 2, **constants: Any) -> None:
    """Run `kernel` on the device of its first tensor; nothing for an empty grid.

    Raises:
        UserError: the grid is larger than GPUs take.
    """
    if 0 in grid:
        return
    if any(programs > most for programs, most in zip(grid, GRID_LIMITS, strict=False)):
        raise UserError(
            f"{kernel.__name__}: a GPU starts up to {' x '.join(map(str, GRID_LIMITS))} programs, this takes "
            f"{' x '.join(map(str, grid))}; RELUME_KERNELS=off does without it"
        )
    first = next(a for a in args if isinstance(a, Tensor))
    LAUNCHED[f"{kernel.fn.__module__.rsplit('.', 1)[-1]}.{kernel.__name__}"] += 1
    guard = torch.cuda.device(first.device) if first.is_cuda else contextlib.nullcontext()
    with guard:
        kernel[grid](*args, **constants, num_warps=warps, num_stages=stages, enable_fp_fusion=True)


def tile(elements: int) -> int:
    """Elements of a program's tile: in the interpreter, whose cost is that of programs, 32 times as many."""
    return elements * 32 if interpreted() else elements


def tile_steps(most: int, tiles: int) -> int:
    """Tiles that a program goes through: in the interpreter, which spares none, no more than there are."""
    return max(1, min(most, tiles)) if interpreted() else most


def block(n: int, least: int = 16, most: int = 1 << 30) -> int:
    """The smallest power of two that holds `n`, within limits."""
    return int(max(least, min(triton.next_power_of_2(n), most)))


def operator(
    name: str,
    forward: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any],
    fake_backward: Callable[..., Any],
    setup: Callable[..., None],
    gradients: Callable[..., Any],
    lowered: bool = False,
) -> Any:
    """`core.ops.operators.custom_operator` for a key of `core.ops.modes.NAMES`."""
    refusal = (
        f"the fused {NAMES[name]} can be differentiated once; RELUME_KERNELS={name}=off uses plain PyTorch instead"
    )
    return operators.custom_operator(name, forward, fake, backward, fake_backward, setup, gradients, refusal, lowered)
