"""The Triton kernels of the selective scan, run by Triton's interpreter on a CPU, against the plain version.

A script, since the interpreter is chosen when Triton is imported. Prints the largest relative difference of outputs and of
gradients.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

from relume.core.ops import selective_scan_triton
from relume.core.ops.selective_scan_chunks import scan_chunks


def difference(length: int, groups: int, softplus: bool, decay: float, skip: bool, small: bool = False) -> float:
    """Both versions, of a random case with 4 channels and 3 states."""
    g = torch.Generator().manual_seed(length)
    shapes = [(2, 4, length), (2, 4, length), (4, 3), *[(2, groups, 3, length)] * 2, (4,), (4,)]
    drawn = [torch.randn(s, generator=g) for s in shapes]
    drawn[2] = -decay * drawn[2].exp()
    drawn[1] = drawn[1] - 15 if small else drawn[1] if softplus else drawn[1].abs()
    if not softplus:
        drawn[6] = drawn[6].abs()
    weights, of_last = torch.randn(2, 4, length, generator=g), torch.randn(2, 4, 3, generator=g)
    results = []
    for run in (scan_chunks, selective_scan_triton.fused):
        given = [t.clone().requires_grad_() for t in drawn]
        y, last, *_ = run(*(given if skip else [*given[:5], None, None]), softplus)
        used = given if skip else given[:5]
        results.append([y, last, *torch.autograd.grad((y * weights).sum() + (last * of_last).sum(), used)])
    assert all(t.isfinite().all() for t in results[1])
    return max(float(((a - b).abs().max() / a.abs().max()).detach()) for a, b in zip(*results, strict=True))


def main() -> None:
    selective_scan_triton.TILE = 64  # 16 steps
    cases = [
        difference(37, 2, True, 1.0, True),
        difference(16, 1, False, 1.0, False),
        difference(1, 4, True, 1.0, True),
        difference(33, 1, True, 200.0, True),
        difference(20, 2, True, 1.0, True, small=True),
    ]
    print(max(cases))


if __name__ == "__main__":
    main()
