"""The state-space scan of Mamba-2 ("SSD"; Dao and Gu, "Transformers are SSMs", ICML 2024) for any length, on any device.

`ssd` runs Triton kernels on CUDA: mamba-ssm's where the package imports, else our own (`ssd_triton`); `ssd_chunks` everywhere
else. In float32 they agree to about 1e-6 of the largest value, 1e-5 under strong decay. `core.ops.dispatch` says how to choose.

mamba-ssm's installer compiles CUDA code that nothing here uses, or downloads it by a guessed name, and importing the package
takes more than its kernels do. This installs the kernels::

    MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE pip install --no-build-isolation 'relume[mamba]'
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from . import foreign
from .dispatch import device_obstacle, use_kernel
from .self_test import case
from .shapes import check_shapes
from .ssd_chunks import scan_chunks
from .ssd_matrices import scan_matrices
from .ssd_operator import scan_operator

CHUNK = 64
"""Steps per chunk of the plain version: its cost is flat around there for the usual N and P."""

WIDEST = 128
"""Most channels, and states, of a head that the fused kernels take."""


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int | None = None,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """``h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T``, ``y_t = h_t C_t + D x_t``, per head, in time and memory linear in L.

    Heads share B and C in groups: heads 0 .. H/G - 1 use group 0, and so on. Computed in float32 (float64 for float64
    inputs) whatever the inputs and autocast, but for mamba-ssm's kernels, which take x, B and C in bfloat16 if all three are
    (as under AMP), and sum in float32; gradients of every tensor argument.

    Args:
        x: (B, L, H, P), L >= 1.
        dt: step sizes, (B, L, H), before `dt_bias`, softplus and `dt_limit`; after them not negative.
        A: (H), negative for decay.
        B: what steps write, (B, L, G, N); H a multiple of G.
        C: what steps read, (B, L, G, N).
        chunk_size: steps treated at once, at least 1, which changes the speed and not the result; a choice of ours when None.
            The plain version rounds it down to a power of two.
        D: (H) or (H, P).
        z: gate, (B, L, H, P): y is multiplied by SiLU(z).
        dt_bias: (H), added to dt.
        initial_states: h_0, (B, H, P, N); zero when None.
        dt_softplus: whether softplus follows the bias.
        dt_limit: smallest and largest dt after that.
        return_final_states: also return h_L.

    Returns:
        y, (B, L, H, P) in the dtype of x; with `return_final_states` a pair of it and h_L, (B, H, P, N), in float32 or float64.

    Raises:
        UserError: shapes do not go together, limits or chunks are none, or kernels are forced on and cannot run.
    """
    _check(x, dt, A, B, C)
    _check_options(x, B.shape[3], D, z, dt_bias, initial_states, dt_limit, chunk_size)
    rest = {"dt": dt, "A": A, "C": C, "D": D, "z": z, "dt_bias": dt_bias, "initial_states": initial_states}
    tried = None if _mamba_takes(x) else x  # ours are tried before they are used
    run = _fused if use_kernel("ssd", functools.partial(_obstacle, x, B, **rest), tried) else _plain
    if run is _fused and torch.compiler.is_compiling() and _mamba_takes(x):
        run = torch.compiler.disable(run)  # mamba-ssm's is no operator that the compiler knows
    with torch.autocast(x.device.type, enabled=False):
        exact = functools.reduce(torch.promote_types, (t.dtype for t in (x, dt, A, B, C)), torch.float32)
        dt = dt.to(exact) if dt_bias is None else dt.to(exact) + dt_bias.to(exact)
        dt = F.softplus(dt) if dt_softplus else dt
        if tuple(dt_limit) != (0.0, float("inf")):
            dt = dt.clamp(*dt_limit)
        skip, initial = (None if t is None else t.to(exact) for t in (D, initial_states))
        short = run is _fused and {x.dtype, B.dtype, C.dtype} == {torch.bfloat16} and _mamba_takes(x)
        signals = (x, B, C) if short else (x.to(exact), B.to(exact), C.to(exact))
        y, final = run(signals[0], dt, A.to(exact), *signals[1:], skip, initial, chunk_size)
        y = y if z is None else y.to(exact) * F.silu(z.to(exact))
    y = y.to(x.dtype)
    return (y, final) if return_final_states else y


def _sized(side: int, width: int) -> tuple[tuple[int, ...], ...]:
    step = (1, side**2, 1)
    return (*step, width), step, (1,), (*step, width), (*step, width), (1,)


@case("ssd", (1, 70, 2, 16), (1, 70, 2), (2,), (1, 70, 1, 16), (1, 70, 1, 16), (2,), sized=_sized)
def _case(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    return ssd(x, dt, -A, B, C, D=D)


def _check(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> None:
    if x.dim() != 4 or 0 in x.shape:
        raise UserError(f"ssd: x must be (batch, length, heads, channels), none of them 0; it is {tuple(x.shape)}")
    batch, length, heads, _ = x.shape
    if dt.shape != (batch, length, heads) or A.shape != (heads,):
        raise UserError(
            f"ssd: for x {tuple(x.shape)} dt must be {(batch, length, heads)} and A {(heads,)}; "
            f"they are {tuple(dt.shape)} and {tuple(A.shape)}"
        )
    if B.shape != C.shape or B.dim() != 4 or B.shape[:2] != x.shape[:2] or heads % B.shape[2]:
        raise UserError(
            f"ssd: B and C must be ({batch}, {length}, groups, states) with groups that divide {heads} heads; "
            f"they are {tuple(B.shape)} and {tuple(C.shape)}"
        )


def _check_options(
    x: Tensor,
    size: int,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial: Tensor | None,
    limit: tuple[float, float],
    chunk_size: int | None,
) -> None:
    batch, _, heads, width = x.shape
    check_shapes(
        "ssd",
        f"x {tuple(x.shape)}",
        D=(D, (heads,), (heads, width)),
        z=(z, tuple(x.shape)),
        dt_bias=(dt_bias, (heads,)),
        initial_states=(initial, (batch, heads, width, size)),
    )
    if chunk_size is not None and chunk_size < 1:
        raise UserError(f"ssd: chunk_size must be at least 1; it is {chunk_size}")
    if not limit[0] <= limit[1]:
        raise UserError(f"ssd: dt_limit must be the smallest and the largest step; it is {tuple(limit)}")


def _plain(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial: Tensor | None,
    chunk_size: int | None,
) -> tuple[Tensor, Tensor]:
    batch, length, heads, width = x.shape
    groups, size = B.shape[2:]
    exported = torch.compiler.is_exporting()  # to be read where Relume's operators are not
    chunk = CHUNK if exported else chunk_of(chunk_size, length)
    if initial is None:
        state = x.new_zeros(batch, groups, size, heads // groups, width)
    else:
        state = initial.unflatten(1, (groups, -1)).permute(0, 1, 4, 2, 3)
    D = D[:, None] if D is not None and D.dim() == 1 else D
    scan = scan_matrices if exported else scan_operator if torch.compiler.is_compiling() else scan_chunks
    y, state = scan(x, dt, A, B, C, D, state, chunk)
    return y, state.permute(0, 1, 3, 4, 2).flatten(1, 2)


def chunk_of(chunk_size: int | None, length: int) -> int:
    """Steps per chunk of the plain version, a power of two, for a sequence of some length."""
    return min(1 << ((chunk_size or CHUNK).bit_length() - 1), 1 << (length - 1).bit_length())


# ------------------------------------------------------------------------------------------------------------- kernels
def _fused(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial: Tensor | None,
    chunk_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Softplus and limits were applied before: mamba-ssm's softplus, log(exp(x) + 1), loses small steps."""
    theirs = kernel() if _mamba_takes(x) else None
    if theirs is not None:
        return theirs(x, dt, A, B, C, chunk_size or 256, D=D, initial_states=initial, return_final_states=True)
    from .ssd_triton import fused

    y, final, *_ = fused(x, dt, A, B, C, D, initial)
    return y, final


def _obstacle(x: Tensor, B: Tensor, **others: Tensor | None) -> str | None:
    """Why no kernels can take these tensors, or None."""
    if _mamba_takes(x) and x.dtype != torch.float64:
        return None
    if max(x.shape[3], B.shape[3]) > WIDEST:
        return f"it takes up to {WIDEST} channels and states of a head, there are {x.shape[3]} and {B.shape[3]}"
    return device_obstacle("ssd", x=x, B=B, **others)


def _mamba_takes(x: Tensor) -> bool:
    """Whether mamba-ssm's kernels, which were measured, run instead of ours."""
    return x.is_cuda and kernel() is not None


def kernel() -> Callable[..., tuple[Tensor, Tensor]] | None:
    """mamba-ssm's ``mamba_chunk_scan_combined``, imported when first wanted, or None where it cannot be; shapes as in `ssd`."""
    return foreign.function_or_none("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined")
