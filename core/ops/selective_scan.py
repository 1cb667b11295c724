"""The selective scan of Mamba (Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023).

`selective_scan` has mamba-ssm's arguments. It runs mamba-ssm's CUDA kernel where that is installed, else a kernel in Triton
(`selective_scan_triton`) on GPUs, else `selective_scan_chunks`, in PyTorch. `core.ops.dispatch` says how to choose.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .dispatch import constant_to_compiler, device_obstacle, use_kernel
from .selective_scan_chunks import scan_chunks
from .selective_scan_loop import scan_loop
from .selective_scan_operator import scan_operator
from .self_test import case
from .shapes import check_shapes

MOST_STATES = 256
"""States per channel that the kernels take."""

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, bool], tuple[Tensor, Tensor]]


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """``h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t``, ``y_t = C_t h_t + D u_t``, for every channel; h_{-1} = 0.

    Channels share B and C in groups: channels 0 .. d/G - 1 use group 0, and so on. Computed in float32 (float64 for float64
    inputs) whatever the inputs and autocast; gradients of every tensor argument, once. Memory is linear in L: the PyTorch
    version keeps the inputs and a state for every 32 or more steps.

    Args:
        u: (b, d, L), L >= 1.
        delta: step sizes, (b, d, L), before `delta_bias` and softplus.
        A: (d, n), negative for decay.
        B: what steps write, (b, n, L), (b, G, n, L) with G a divisor of d, or (d, n) for the same at all times.
        C: what steps read, in any of the shapes of B.
        D: (d), or None for none.
        z: gate, (b, d, L): y is multiplied by SiLU(z).
        delta_bias: (d), added to delta.
        delta_softplus: whether softplus follows the bias.
        return_last_state: also return h_L.

    Returns:
        y, (b, d, L) in the dtype of u; with `return_last_state` a pair of it and h_L, (b, d, n), in float32 or float64.

    Raises:
        UserError: shapes do not go together, or kernels are forced on and cannot run.
    """
    B, C = _checked(u, delta, A, B, C, D, z, delta_bias)
    rest = {"delta": delta, "D": D, "z": z, "delta_bias": delta_bias}
    tried = None if u.is_cuda and _has_mamba() else u  # ours are tried before they are used
    run: Scan = (
        _fused if use_kernel("selective_scan", functools.partial(_obstacle, u, A, B, C, **rest), tried) else scan_chunks
    )
    if run is scan_chunks and torch.compiler.is_exporting():  # to be read where there are no functions of Relume's
        run = scan_loop
    elif run is scan_chunks and torch.compiler.is_compiling():
        run = scan_operator
    elif tried is None and torch.compiler.is_compiling():  # no operator that the compiler knows
        run = torch.compiler.disable(run)
    with torch.autocast(u.device.type, enabled=False):
        exact = functools.reduce(torch.promote_types, (t.dtype for t in (u, delta, A, B, C)), torch.float32)
        skip, bias = (None if t is None else t.to(exact) for t in (D, delta_bias))
        args = (u.to(exact), delta.to(exact), A.to(exact), B.to(exact), C.to(exact))
        y, last = run(*args, skip, bias, delta_softplus)
        y = y if z is None else y * F.silu(z.to(exact))
    y = y.to(u.dtype)
    return (y, last) if return_last_state else y


def _sized(side: int, length: int) -> tuple[tuple[int, ...], ...]:
    d, signal = side**2, (1, 1, 16, length)
    return (1, d, length), (1, d, length), (d, 16), signal, signal, (d,)


@case("selective_scan", (1, 4, 19), (1, 4, 19), (4, 8), (1, 2, 8, 19), (1, 2, 8, 19), (4,), sized=_sized)
def _case(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    return selective_scan(u, delta, -A, B, C, D)


def _checked(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """B and C, those that change with time as (b, G, n, L) with the same G.

    Raises:
        UserError: shapes do not go together.
    """
    if u.dim() != 3 or 0 in u.shape or A.dim() != 2 or A.is_complex():
        raise UserError(
            f"selective_scan: u must be (batch, channels, length), none of them 0, and A real, (channels, states); "
            f"they are {tuple(u.shape)} and {tuple(A.shape)}"
        )
    batch, channels, length = u.shape
    states = A.shape[1]
    # Shapes follow from u and A.
    whole, each = (batch, channels, length), (channels,)
    check_shapes(
        "selective_scan",
        f"u {whole}",
        delta=(delta, whole),
        A=(A, (channels, states)),
        D=(D, each),
        z=(z, whole),
        delta_bias=(delta_bias, each),
    )
    # B and C may be shared by all channels, by groups of them, or by all steps.
    for name, tensor in (("B", B), ("C", C)):
        grouped = (
            tensor.dim() == 4
            and not channels % tensor.shape[1]
            and (batch, states, length)
            == (
                tensor.shape[0],
                *tensor.shape[2:],
            )
        )
        if not grouped and tuple(tensor.shape) not in ((batch, states, length), (channels, states)):
            raise UserError(
                f"selective_scan: for u {whole} and {states} states {name} must be {(batch, states, length)}, "
                f"({batch}, groups, {states}, {length}) with groups that divide {channels}, or {(channels, states)}; "
                f"it is {tuple(tensor.shape)}"
            )
    # Groups of B and C are made equal in number.
    B, C = (t.unsqueeze(1) if t.dim() == 3 else t for t in (B, C))
    if B.dim() == C.dim() == 4 and B.shape[1] != C.shape[1]:
        groups = max(B.shape[1], C.shape[1])
        groups = groups if not groups % min(B.shape[1], C.shape[1]) else channels
        B, C = (t.repeat_interleave(groups // t.shape[1], 1) for t in (B, C))
    return B, C


# ------------------------------------------------------------------------------------------------------------- kernels
def _fused(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, bias: Tensor | None, softplus: bool
) -> tuple[Tensor, Tensor]:
    if u.is_cuda and _has_mamba():
        kernel = mamba_kernel()
        assert kernel is not None
        pair = kernel(u, delta, A, B, C, D, None, bias, softplus, True)
        return pair[0], pair[1]
    from .selective_scan_triton import fused

    y, last, _ = fused(u, delta, A, B, C, D, bias, softplus)
    return y, last


def _obstacle(u: Tensor, A: Tensor, B: Tensor, C: Tensor, **others: Tensor | None) -> str | None:
    """Why no kernel can run, or None."""
    given = {"u": u, "A": A, "B": B, "C": C, **others}
    for name, t in given.items():
        if t is not None and t.dtype == torch.float64:
            return f"it computes in float32, {name} is float64"
    if A.shape[1] > MOST_STATES:
        return f"its kernels take up to {MOST_STATES} states, there are {A.shape[1]}"
    if u.is_cuda and _has_mamba():
        return None
    if B.dim() == 2 or C.dim() == 2:
        return "its kernel in Triton takes B and C for every step, not one for all"
    if torch.are_deterministic_algorithms_enabled():
        return "its kernel in Triton sums gradients in no fixed order, and deterministic algorithms are asked for"
    return device_obstacle("selective_scan", **given)


@constant_to_compiler
def _has_mamba() -> bool:
    """Whether `mamba_kernel` finds one; the compiler does not follow imports."""
    return mamba_kernel() is not None


@functools.cache
def mamba_kernel() -> Callable[..., tuple[Tensor, Tensor]] | None:
    """mamba-ssm's ``selective_scan_fn``, or None where it cannot be imported; shapes are those of `selective_scan`."""
    try:
        module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        importlib.import_module("selective_scan_cuda")
    except Exception:  # a foreign package may fail to import in any way
        return None
    found: Callable[..., tuple[Tensor, Tensor]] = module.selective_scan_fn
    return found
