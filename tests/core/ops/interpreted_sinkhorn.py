"""The Triton kernels of Sinkhorn's update, run by Triton's interpreter on a CPU, against the plain version.

A script, since the interpreter is chosen when Triton is imported. Prints the largest relative difference of the scalings.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

from relume.core.ops import sinkhorn, sinkhorn_triton


def difference(n: int, m: int, iterations: int) -> float:
    """Both versions from the same start, one row and one column without mass."""
    drawn = torch.Generator().manual_seed(n)
    kernel, a, b, start = (torch.rand(s, generator=drawn) + 0.1 for s in ((n, m), (n,), (m,), (n,)))
    if min(n, m) > 2:
        kernel[1], a[1], kernel[:, 2], b[2] = 0, 0, 0, 0
    results = []
    for scale in (sinkhorn.scale_plain, sinkhorn.scale_to_marginals):
        u, v = start.clone(), torch.full_like(b, 3.0)
        scale(kernel, a / a.sum(), b / b.sum(), u, v, iterations)
        results.append(torch.cat([u, v]))
    assert results[1].isfinite().all()
    return float(((results[0] - results[1]).abs() / results[0].abs().clamp_min(1e-30)).max())


def main() -> None:
    os.environ["RELUME_KERNELS"] = "on"
    whole = [difference(n, m, k) for n, m, k in ((5, 9, 3), (1, 7, 2), (6, 1, 2), (16, 33, 0))]
    sinkhorn_triton.WHOLE = 0  # the same by two launches for each iteration
    print(max([*whole, *(difference(n, m, k) for n, m, k in ((5, 9, 3), (70, 130, 2), (1, 7, 2), (6, 1, 2)))]))


if __name__ == "__main__":
    main()
