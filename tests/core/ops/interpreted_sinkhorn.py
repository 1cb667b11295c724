"""The Triton kernels of Sinkhorn's updates, run by Triton's interpreter on a CPU, against the plain versions.

A script, since the interpreter is chosen when Triton is imported. Prints the largest relative differences as JSON.
"""

from __future__ import annotations

import json
import os

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor

from relume.core.ops import launching, log_sinkhorn, sinkhorn, sinkhorn_triton
from relume.losses.ot import fused_gromov_wasserstein
from relume.losses.ot import sinkhorn as solved


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


def potentials(
    mode: str, logits: Tensor, a: Tensor, b: Tensor, rule: log_sinkhorn.PotentialRule, iterations: int
) -> list[Tensor]:
    """Both potentials after so many iterations, the kernel that they make, and its shift."""
    os.environ["RELUME_KERNELS"] = mode
    phi, gamma = torch.zeros_like(a), torch.full_like(b, 3.0)
    log_sinkhorn.update_potentials(logits, a, b, phi, gamma, iterations, rule)
    return [phi, gamma, *log_sinkhorn.absorbed(logits, phi, gamma)]


def in_logarithms(
    n: int, m: int, rule: log_sinkhorn.PotentialRule, iterations: int = 2, transposed: bool = False
) -> float:
    """The largest difference over the largest number, of those that are finite; the others must agree."""
    drawn = torch.Generator().manual_seed(n)
    logits = 5 * torch.randn(n, m, generator=drawn)
    a, b = (torch.rand(s, generator=drawn) + 0.1 for s in (n, m))
    if min(n, m) > 2:
        logits[0, 1], a[1], b[2], logits[2] = -torch.inf, 0.0, 0.0, -torch.inf
        logits[2] = -torch.inf if rule.relaxed else 0.0
    logits = logits.t().contiguous().t() if transposed else logits
    found = potentials("on", logits, a, b, rule, iterations)
    expected = potentials("off", logits.double(), a.double(), b.double(), rule, iterations)
    worst = 0.0
    for x, y in zip(found, expected, strict=True):
        finite = y.isfinite() & (y.abs() < 1e38)
        assert torch.equal(finite, x.isfinite() & (x.abs() < 1e38))
        assert torch.equal(x[~finite].clamp(-1e38, 1e38), y[~finite].float().clamp(-1e38, 1e38))
        worst = (
            max(worst, float((x[finite] - y[finite]).abs().max() / y[finite].abs().max())) if finite.any() else worst
        )
    return worst


def descents() -> dict[str, float]:
    """Plans of whole problems with kernels, against those in float64 without."""
    drawn = torch.Generator().manual_seed(1)
    cost = torch.rand(6, 9, generator=drawn)
    first, second = (torch.cdist(p, p) for p in (torch.rand(k, 2, generator=drawn) for k in (6, 9)))
    tensors, said = (cost, first, second), {}
    for name, call in {
        "log": lambda c, *_: solved(c, epsilon=0.05, max_iters=20, tol=0.0, method="log"),
        "unbalanced": lambda c, *_: solved(c, epsilon=0.1, rho=0.5, max_iters=20, tol=0.0),
        "stopped": lambda c, *_: solved(c, epsilon=0.1, max_iters=40, tol=1e-4, check_every=5),
        "fused": lambda *t: fused_gromov_wasserstein(
            *t, alpha=0.4, epsilon=0.05, outer_iters=3, inner_iters=20, tol=0.0
        ),
    }.items():
        os.environ["RELUME_KERNELS"] = "off"
        expected = call(*(t.double() for t in tensors))
        os.environ["RELUME_KERNELS"] = "on"
        found = call(*tensors)
        assert found.iters == expected.iters and found.method == expected.method
        said[name] = float((found.plan - expected.plan).abs().max() / expected.plan.max())
    return said


def main() -> None:
    os.environ["RELUME_KERNELS"] = "on"
    said: dict[str, object] = {}
    whole = [difference(n, m, k) for n, m, k in ((5, 9, 3), (1, 7, 2), (6, 1, 2), (16, 33, 0))]
    sinkhorn_triton.WHOLE = 0  # the same by two launches for each iteration
    split = [difference(n, m, k) for n, m, k in ((5, 9, 3), (70, 130, 2), (1, 7, 2), (6, 1, 2))]
    said["scalings"] = max(*whole, *split)
    rules = (
        log_sinkhorn.PotentialRule(),
        log_sinkhorn.PotentialRule(0.7, 1.0, True),
        log_sinkhorn.PotentialRule(0.7, 0.7, True),
    )
    sizes = ((5, 9), (70, 600), (1, 7), (6, 1))
    said["potentials"] = max(in_logarithms(n, m, rule) for n, m in sizes for rule in rules)
    said["transposed"] = in_logarithms(7, 70, rules[0], transposed=True)
    launching.LAUNCHED.clear()
    said["nothing"] = in_logarithms(4, 5, rules[0], iterations=0)
    said["launches"] = dict(launching.LAUNCHED)
    said["plans"] = descents()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
