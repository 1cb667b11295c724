"""Sinkhorn's scalings of a positive matrix to given row and column sums: a loop in PyTorch, and the same in Triton.

One iteration is ``v = b / (K^T u)``, then ``u = a / (K v)``. In PyTorch it takes four launches; fused (`sinkhorn_triton`) it
takes two, or, where K fits into the registers of one multiprocessor, one launch does all iterations. Neither waits for the
device, so that either can be part of a CUDA graph.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..errors import UserError
from .dispatch import device_obstacle, use_kernel
from .self_test import case
from .shapes import check_shapes


def scale_to_marginals(kernel: Tensor, a: Tensor, b: Tensor, u: Tensor, v: Tensor, iterations: int) -> None:
    """Update the scalings u and v in place; diag(u) K diag(v) then has the row sums a, and nearly the column sums b.

    Sums that underflow count as the smallest normal number of the dtype, so that an empty row or column stays empty if its
    marginal is 0.

    Args:
        kernel: K, (n, m), nonnegative, contiguous.
        a: row sums, (n,).
        b: column sums, (m,).
        u: scalings of the rows to start from, (n,).
        v: scalings of the columns, (m,); without influence unless `iterations` is 0.
        iterations: number of iterations.

    Raises:
        UserError: shapes do not go together, or kernels are forced on and cannot run.
    """
    if kernel.dim() != 2:
        raise UserError(f"scale_to_marginals: kernel must be (n, m); it is {tuple(kernel.shape)}")
    n, m = ((s,) for s in kernel.shape)
    check_shapes("scale_to_marginals", f"kernel {tuple(kernel.shape)}", a=(a, n), b=(b, m), u=(u, n), v=(v, m))
    if use_kernel("sinkhorn", functools.partial(obstacle, kernel, a, b, u, v), kernel):
        from .sinkhorn_triton import scale_fused

        scale_fused(kernel, a, b, u, v, iterations)
    else:
        scale_plain(kernel, a, b, u, v, iterations)


@case("sinkhorn", (5, 7), (5,), (7,), sized=lambda side, m: ((side**2, m), (side**2,), (m,)))
def _case(kernel: Tensor, a: Tensor, b: Tensor) -> Tensor:
    u, v = torch.ones_like(a), torch.ones_like(b)
    with torch.no_grad():
        scale_to_marginals(kernel, a, b, u, v, 2)
    return torch.cat([u, v]).detach()


def scale_plain(kernel: Tensor, a: Tensor, b: Tensor, u: Tensor, v: Tensor, iterations: int) -> None:
    """`scale_to_marginals`, shapes included, by matrix-vector products of PyTorch."""
    transposed = kernel.t()
    row, column = torch.empty_like(a), torch.empty_like(b)
    # Added rather than compared: the product can begin at it, which saves a pass over the vector.
    tiny_row, tiny_column = (torch.full_like(w, torch.finfo(w.dtype).tiny) for w in (a, b))
    for _ in range(iterations):
        torch.div(b, torch.addmv(tiny_column, transposed, u, out=column), out=v)
        torch.div(a, torch.addmv(tiny_row, kernel, v, out=row), out=u)


def obstacle(kernel: Tensor, a: Tensor, b: Tensor, u: Tensor, v: Tensor) -> str | None:
    """Why the Triton version cannot run on these, or None if it can; shapes are those of `scale_to_marginals`."""
    named = {"kernel": kernel, "a": a, "b": b, "u": u, "v": v}
    for name, t in named.items():
        if t.dtype != torch.float32:
            return f"it computes in float32, {name} is {str(t.dtype).removeprefix('torch.')}"
        if not t.is_contiguous():
            return f"it takes contiguous tensors, {name} has strides {t.stride()}"
    return device_obstacle("sinkhorn", **named)
