"""mamba-ssm's Triton kernels, run by Triton's interpreter on a CPU, against the plain scan and gated normalisation.

A script, since the interpreter is chosen when Triton is imported. Prints the largest relative difference of outputs and of
gradients.
"""

from __future__ import annotations

import contextlib
import os
from types import SimpleNamespace

os.environ["TRITON_INTERPRET"] = "1"

import torch
from triton.runtime.autotuner import Autotuner

from relume.core.ops import foreign, rms_norm, ssd


def without_tuning(self, *args, **kwargs):
    self.best_config = self.configs[0]
    if self.best_config.pre_hook:
        self.best_config.pre_hook({**dict(zip(self.arg_names, args, strict=False)), **kwargs})
    return self.fn.run(*args, **kwargs, **self.best_config.all_kwargs())


def main() -> None:
    Autotuner.run = without_tuning
    torch.cuda.device = lambda *_: contextlib.nullcontext()
    torch.cuda.get_device_properties = lambda *_: SimpleNamespace(multi_processor_count=1)
    shapes = [(1, 21, 4, 8), (1, 21, 4), (4,), (1, 21, 2, 16), (1, 21, 2, 16), (4,), (1, 4, 8, 16)]
    torch.manual_seed(0)
    drawn = [torch.rand(s) for s in shapes]
    drawn[2] = -drawn[2]
    grad = torch.randn(shapes[0])
    results = []
    ssd._mamba_takes = lambda x: True
    for run in (ssd._plain, ssd._fused):
        given = [t.clone().requires_grad_() for t in drawn]
        y, last = run(*given, 16)
        results.append([y, last, *torch.autograd.grad((y * grad).sum() + last.square().sum(), given)])
    fused = foreign.function("mamba_ssm.ops.triton.layernorm_gated", "rmsnorm_fn")
    for before in (True, False):
        x, z, weight, grad = torch.randn(3, 5, 24), torch.randn(3, 5, 24), torch.rand(24), torch.randn(3, 5, 24)
        for of, run in zip(results, (rms_norm.plain, lambda x, w, *more: fused(x, w, None, *more)), strict=True):
            given = [t.clone().requires_grad_() for t in (x, weight, z)]
            y = run(*given, 1e-5, 12, before)
            of += [y, *torch.autograd.grad((y * grad).sum(), given)]
    print(max(((a - b).abs().max() / a.abs().max()).item() for a, b in zip(*results, strict=True)))


if __name__ == "__main__":
    main()
