"""Causal depthwise 1-D convolution, optionally with SiLU, at the speed of memory on a CPU too.

It is computed on the channels-last view, where PyTorch's depthwise 2-D kernels are fast, except that of the weights' gradient,
which is a few sums instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..errors import UserError
from . import foreign
from .dispatch import device_obstacle, note, use_kernel
from .modes import mode_of
from .self_test import case
from .shapes import check_shapes

CACHED = 1 << 17
"""Elements of the input that the gradient of the weights treats at once on a CPU."""


WIDEST = 16
"""Most taps that the fused kernels take."""


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    activation: Literal["silu", "swish"] | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """``y[:, d, t] = act(bias[d] + sum_k weight[d, k] x[:, d, t - K + 1 + k])``; differentiable once.

    Args:
        x: (B, D, L).
        weight: (D, K).
        bias: (D) or None.
        initial_states: what precedes x, (B, D, K - 1); zeros when None.
        return_final_states: also return the last K - 1 inputs, to go on from.
        activation: ``silu`` (also called ``swish``) or None.

    Returns:
        y, (B, D, L) in the dtype of x, laid out as the transpose of a contiguous (B, L, D); with `return_final_states` a pair
        of it and (B, D, K - 1).

    Raises:
        UserError: another activation, or shapes that do not go together.
    """
    # Refuse what does not go together.
    if activation not in (None, "silu", "swish"):
        raise UserError(f"causal_conv1d: activation cannot be '{activation}'. Accepted: silu, swish, None.")
    if x.dim() != 3 or weight.dim() != 2 or x.shape[1] != weight.shape[0]:
        raise UserError(
            f"causal_conv1d: input (batch, channels, length) and weight (channels, width) do not go together: "
            f"{tuple(x.shape)} and {tuple(weight.shape)}"
        )
    batch, channels, taps = x.shape[0], *weight.shape
    initial = (initial_states, (batch, channels, taps - 1))
    check_shapes("causal_conv1d", f"x {tuple(x.shape)}", bias=(bias, (channels,)), initial_states=initial)
    weight = weight.to(x.dtype)
    bias = None if bias is None else bias.to(x.dtype)
    before = None if initial_states is None else initial_states.to(x.dtype).transpose(1, 2)
    rows = x.transpose(1, 2)
    # The package of Mamba's authors, then our kernel, then PyTorch.
    theirs = _packages(x, weight, before, return_final_states)
    if theirs is not None:
        result: Tensor = theirs(_aligned(x), weight, bias, activation=activation)
        return result
    obstacle = functools.partial(_obstacle, rows, weight, bias=bias, initial_states=before)
    if use_kernel("causal_conv1d", obstacle, rows):
        from .causal_conv1d_triton import fused as run
    else:
        run = _CausalConv.apply
    y: Tensor = run(rows, weight, bias, before, activation is not None).transpose(1, 2)
    # The inputs that the next part of the sequence begins with.
    if not return_final_states:
        return y
    width = weight.shape[1] - 1
    return y, _after(rows, before, width)[:, x.shape[2] :].transpose(1, 2)


@case("causal_conv1d", (2, 24, 17), (24, 4), (24,), sized=lambda side, c: ((1, c, side**2), (c, 4), (c,)))
def _case(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    return causal_conv1d(x, weight, bias, activation="silu")


def _packages(x: Tensor, weight: Tensor, before: Tensor | None, states: bool) -> Callable[..., Tensor] | None:
    """The kernel of the package causal-conv1d, which mamba-ssm uses, where it is installed, takes these tensors, and ours is
    not asked for: of 2 to 4 taps, from the beginning of a sequence."""
    if not x.is_cuda or mode_of("causal_conv1d") != "auto" or not 2 <= weight.shape[1] <= 4:
        return None
    if torch.compiler.is_compiling() or before is not None or states or x.dtype == torch.float64 or x.shape[1] % 8:
        return None
    found = foreign.function_or_none("causal_conv1d", "causal_conv1d_fn")
    if found is not None:
        note("causal_conv1d", "causal-conv1d's")
    return found


def _aligned(x: Tensor) -> Tensor:
    """The same (B, D, L) as that kernel reads it: one step after the other, or channels together, from multiples of 8 on."""
    if x.stride(2) == 1 or (x.stride(1) == 1 and x.stride(0) % 8 == x.stride(2) % 8 == 0):
        return x
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def _obstacle(x: Tensor, weight: Tensor, **others: Tensor | None) -> str | None:
    """Why the fused kernels cannot run, or None."""
    if weight.shape[1] > WIDEST:
        return f"it takes up to {WIDEST} taps, there are {weight.shape[1]}"
    return device_obstacle("causal_conv1d", x=x, weight=weight, **others)


def _after(x: Tensor, before: Tensor | None, width: int) -> Tensor:
    """(B, L, D) preceded by `width` earlier steps, zeros if there are none: (B, width + L, D)."""
    return torch.cat([_zeros(x, width) if before is None else before, x], 1)


def _zeros(x: Tensor, steps: int) -> Tensor:
    return x.new_zeros(x.shape[0], steps, x.shape[2])


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(B, L + K - 1, D), (D, K) -> (B, L, D)."""
    y = F.conv2d(x.transpose(1, 2)[:, :, None], weight[:, None, None], bias, groups=len(weight))
    return y[:, :, 0].transpose(1, 2)


class _CausalConv(Function):
    """The convolution of (B, L, D). It keeps its inputs; what goes into SiLU is computed again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, before: Tensor | None, silu: bool) -> Tensor:
        ctx.save_for_backward(x, weight, bias, before)
        ctx.silu = silu
        with torch.autocast(x.device.type, enabled=False):
            y = _convolve(_after(x, before, weight.shape[1] - 1), weight, bias)
        return F.silu(y, inplace=True) if silu else y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, before = ctx.saved_tensors
        length, width = x.shape[1], weight.shape[1]
        with torch.autocast(x.device.type, enabled=False):
            inputs = _after(x, before, width - 1)
            grad = torch.ops.aten.silu_backward(grad, _convolve(inputs, weight, bias)) if ctx.silu else grad
            earlier = [] if before is None else [_zeros(grad, width - 1)]
            grad_inputs = _convolve(torch.cat([*earlier, grad, _zeros(grad, width - 1)], 1), weight.flip(1), None)
        grad_weight = torch.zeros(weight.shape[::-1], dtype=weight.dtype, device=weight.device)
        step = max(CACHED // (x.shape[0] * x.shape[2]), 1) if x.device.type == "cpu" else length
        for start in range(0, length, step):
            part = grad[:, start : start + step]
            for k in range(width):
                grad_weight[k] += (part * inputs[:, start + k : start + k + part.shape[1]]).sum((0, 1))
        return (
            grad_inputs[:, grad_inputs.shape[1] - length :],
            grad_weight.t(),
            None if bias is None else grad.sum((0, 1)),
            None if before is None else grad_inputs[:, : width - 1],
            None,
        )
