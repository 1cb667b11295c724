"""Root-mean-square normalisation with a SiLU gate, as Mamba-2 has it before its last projection."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from . import foreign
from .dispatch import device_obstacle, note, use_kernel
from .modes import mode_of
from .precision import at_least_float32
from .self_test import case

WIDEST = 8192
"""Most channels of a group that the fused kernels take."""


@case("rms_norm", (2, 9, 24), (24,), (2, 9, 24), sized=lambda side, c: ((1, side**2, c), (c,), (1, side**2, c)))
def rmsnorm_gated(
    x: Tensor,
    weight: Tensor,
    z: Tensor | None = None,
    eps: float = 1e-5,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> Tensor:
    """``rms_norm(x) * weight * SiLU(z)``, or ``rms_norm(x * SiLU(z)) * weight``; in float32 inside.

    Args:
        x: (..., D).
        weight: (D).
        z: gate, (..., D), or None for none.
        eps: constant added to the mean square.
        group_size: channels that are normalised together; all when None.
        norm_before_gate: which of the two.

    Raises:
        UserError: shapes do not go together, or kernels are forced on and cannot run.
    """
    width = x.shape[-1]
    size = group_size or width
    if weight.shape != (width,) or width % size or (z is not None and z.shape != x.shape):
        shapes = f"x {tuple(x.shape)}, weight {tuple(weight.shape)}, z {None if z is None else tuple(z.shape)}"
        raise UserError(
            f"rmsnorm_gated: weight must have x's channels, z its shape, and group_size divide them; "
            f"they are {shapes}, group_size {size}"
        )
    theirs = _mambas(x)
    if theirs is not None:
        gated: Tensor = theirs(x, weight, None, z, eps, size, norm_before_gate)
        return gated
    if use_kernel("rms_norm", functools.partial(_obstacle, x, weight, z, size), x):
        from .rms_norm_triton import fused

        result: Tensor = fused(x, weight, z, eps, size, norm_before_gate)[0]
        return result
    return plain(x, weight, z, eps, size, norm_before_gate)


def _mambas(x: Tensor) -> Callable[..., Tensor] | None:
    """mamba-ssm's kernel, where it is installed and ours is not asked for: a Triton kernel that GPUs have run."""
    if not x.is_cuda or mode_of("rms_norm") != "auto" or x.dtype == torch.float64 or x.shape[-1] > WIDEST:
        return None
    if torch.compiler.is_compiling():  # which fuses ours
        return None
    found = foreign.function_or_none("mamba_ssm.ops.triton.layernorm_gated", "rmsnorm_fn")
    if found is not None:
        note("rms_norm", "mamba-ssm's")
    return found


def plain(x: Tensor, weight: Tensor, z: Tensor | None, eps: float, size: int, norm_before_gate: bool) -> Tensor:
    """`rmsnorm_gated`, shapes included, in PyTorch."""
    dtype = x.dtype
    x = at_least_float32(x)
    gate = None if z is None else F.silu(z.to(x.dtype))
    if gate is not None and not norm_before_gate:
        x = x * gate
    y = F.rms_norm(x.unflatten(-1, (-1, size)), (size,), eps=eps).flatten(-2) * weight.to(x.dtype)
    return (y if gate is None or not norm_before_gate else y * gate).to(dtype)


def _obstacle(x: Tensor, weight: Tensor, z: Tensor | None, size: int) -> str | None:
    """Why the fused kernels cannot run, or None."""
    if size > WIDEST:
        return f"it takes up to {WIDEST} channels in a group, there are {size}"
    return device_obstacle("rms_norm", x=x, weight=weight, z=z)
