"""The Triton kernels of the census distance, run by Triton's interpreter on a CPU, against the plain version.

A script, since the interpreter is chosen when Triton is imported. Prints the largest relative difference of values and of
gradients.
"""

from __future__ import annotations

import functools
import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

from relume.core.ops import census, census_triton

census_triton.PIXELS = 32  # several programs, of few pixels


def main() -> None:
    worst = 0.0
    for shape, patch in (((2, 9, 11), 7), ((1, 2, 3), 5), ((3, 8, 4), 3)):
        torch.manual_seed(0)
        pred, target, weight = torch.rand(shape), torch.rand(shape), torch.randn(shape)
        results = []
        fused = functools.partial(census_triton.fused, sign=census.SOFT_SIGN, count=census.SOFT_COUNT)
        for function in (census._Census.apply, fused):
            x = pred.clone().requires_grad_()
            y = function(x, target, patch)
            results.append([y, *torch.autograd.grad((y * weight).sum(), x)])
        for a, b in zip(*results, strict=True):
            worst = max(worst, ((a - b).abs().max() / a.abs().max()).item())
    print(worst)


if __name__ == "__main__":
    main()
