"""The Triton kernels of the layer norm, run by Triton's interpreter on a CPU, against the plain version.

A script, since the interpreter is chosen when Triton is imported. Prints the largest relative difference of outputs and of
gradients over kinds of norm, numbers of channels and numbers of pixels.
"""

from __future__ import annotations

import itertools
import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

from relume.core.ops import layer_norm_triton
from relume.core.ops.layer_norm import _plain

layer_norm_triton.TILE, layer_norm_triton.STEPS = 2, 2  # several tiles and programs, of few pixels


def main() -> None:
    worst = 0.0
    for channels, per_image, centred, has_offset in itertools.product((6, 16), *[(False, True)] * 3):
        if centred and per_image and not has_offset:
            continue  # the plain version has no such norm
        torch.manual_seed(0)
        shape = (2, channels) if per_image else (channels,)
        drawn = [torch.randn(2, 5, 7, channels) + 0.5, 1 + 0.3 * torch.randn(shape), torch.randn(shape)]
        weight = torch.randn(2, 5, 7, channels)
        results = []
        for fused in (False, True):
            given = [t.clone().requires_grad_() for t in drawn[: 3 if has_offset else 2]]
            arguments = [*given, *[None] * (3 - len(given)), 1e-5, centred]
            y = layer_norm_triton.fused(*arguments, torch.float32)[0] if fused else _plain(*arguments)
            results.append([y, *torch.autograd.grad((y * weight).sum(), given)])
        for a, b in zip(*results, strict=True):
            worst = max(worst, ((a - b).abs().max() / a.abs().max()).item())
    x = torch.randn(1, 3, 3, 6).bfloat16()
    half = layer_norm_triton.fused(x, torch.ones(6), torch.zeros(6), 1e-5, True, torch.bfloat16)[0]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, _plain(x, torch.ones(6), torch.zeros(6), 1e-5, True).bfloat16())
    print(worst)


if __name__ == "__main__":
    main()
