"""Triton kernels of `charbonnier.charbonnier_sums`: both images are read once forward, and once backward, and no map is kept.

Forward one launch and one that adds partial sums, 2 maps, in place of five launches and 9; backward one launch, 2 maps read and
one written, in place of six and 14. Limit: bytes; of a patch the launches.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import launch, operator, tile
from .planes import alike

TILE = 1024
"""Elements that a program holds at once."""
STEPS = 8
"""Tiles that a program goes through."""


@triton.jit
def _sums(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, y, partial, elements, blocks, offset, TILE: tl.constexpr, STEPS: tl.constexpr,  # noqa: ANN001
):  # fmt: skip
    image = (tl.program_id(0) // blocks).to(tl.int64)
    program = (tl.program_id(0) % blocks).to(tl.int64)
    total = tl.zeros((TILE,), tl.float32)
    for step in range(STEPS):
        at = (program * STEPS + step) * TILE + tl.arange(0, TILE)
        here = at < elements
        d = tl.load(x + image * elements + at, mask=here, other=0.0)
        d -= tl.load(y + image * elements + at, mask=here, other=0.0)
        total += tl.where(here, tl.sqrt(d * d + offset), 0.0)
    tl.store(partial + image * blocks + program, tl.sum(total, 0))


@triton.jit
def _slopes(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, x, y, of_x, elements, blocks, offset, TILE: tl.constexpr, STEPS: tl.constexpr,  # noqa: ANN001
):  # fmt: skip
    image = (tl.program_id(0) // blocks).to(tl.int64)
    program = (tl.program_id(0) % blocks).to(tl.int64)
    g = tl.load(grad + image)
    for step in range(STEPS):
        at = (program * STEPS + step) * TILE + tl.arange(0, TILE)
        here = at < elements
        d = tl.load(x + image * elements + at, mask=here, other=0.0)
        d -= tl.load(y + image * elements + at, mask=here, other=0.0)
        tl.store(of_x + image * elements + at, g * d / tl.sqrt(d * d + offset), mask=here)


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """Images, elements of one, and programs of one."""
    elements = x.numel() // len(x) if len(x) else 0
    return len(x), elements, triton.cdiv(elements, tile(TILE) * STEPS)


def _fake(x: Tensor, y: Tensor, offset: float) -> Tensor:
    return torch.empty(len(x), device=x.device)


def _run(x: Tensor, y: Tensor, offset: float) -> Tensor:
    x, y = alike(x, y)
    images, elements, blocks = _sizes(x)
    partial = torch.empty(images, blocks, device=x.device)
    launch(_sums, (images * blocks,), x, y, partial, elements, blocks, offset, TILE=tile(TILE), STEPS=STEPS)
    return partial.sum(1)


def _fake_backward(grad: Tensor, x: Tensor, y: Tensor, offset: float) -> Tensor:
    return torch.empty_like(x)


def _run_backward(grad: Tensor, x: Tensor, y: Tensor, offset: float) -> Tensor:
    x, y = alike(x, y)
    images, elements, blocks = _sizes(x)
    of_x = torch.empty_like(x)
    launch(
        _slopes, (images * blocks,), grad.contiguous(), x, y, of_x, elements, blocks, offset, TILE=tile(TILE), STEPS=STEPS
    )  # fmt: skip
    return of_x


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.offset = inputs[2]


def _gradients(ctx: Any, backward: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    of_x = backward(grad, *ctx.saved_tensors, ctx.offset)
    return of_x, -of_x if ctx.needs_input_grad[1] else None, None


fused = operator("charbonnier", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``fused(x, y, offset)`` of float32: the sum over each image of ``sqrt((x - y)^2 + offset)``, (B)."""
