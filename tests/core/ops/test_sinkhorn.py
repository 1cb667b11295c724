"""Sinkhorn's update: the plain version by its formula, the dispatch, and Triton's version in its interpreter."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from filling import waves
from interpreting import interpreted

from relume.core.errors import UserError
from relume.core.ops import sinkhorn


def test_one_iteration_by_its_formula() -> None:
    kernel, a, b = waves("K", (4, 6)).exp(), waves("a", (4,)).exp(), waves("b", (6,)).exp()
    u, v = waves("u", (4,)).exp(), torch.full_like(b, torch.nan)
    expected_v = b / (kernel.t() @ u)
    expected_u = a / (kernel @ expected_v)
    sinkhorn.scale_to_marginals(kernel, a, b, u, v, 1)
    torch.testing.assert_close(v, expected_v)
    torch.testing.assert_close(u, expected_u)


def test_empty_rows_and_columns_stay_empty() -> None:
    kernel, a, b = torch.ones(3, 3), torch.tensor([0.5, 0.0, 0.5]), torch.tensor([0.5, 0.5, 0.0])
    kernel[1], kernel[:, 2] = 0, 0
    u, v = torch.ones(3), torch.ones(3)
    sinkhorn.scale_to_marginals(kernel, a, b, u, v, 5)
    assert u[1] == v[2] == 0
    torch.testing.assert_close((u[:, None] * kernel * v).sum(1), a)


def test_insisting_on_the_kernel_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELUME_KERNELS", "on")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match="the fused Sinkhorn update cannot run: it needs a GPU, kernel is on cpu"):
        sinkhorn.scale_to_marginals(torch.ones(2, 2), *(torch.ones(2) for _ in range(4)), 1)
    rest = [torch.ones(2) for _ in range(4)]
    assert sinkhorn.obstacle(torch.ones(2, 2).double(), *rest) == "it computes in float32, kernel is float64"
    said = sinkhorn.obstacle(torch.ones(2, 3).t()[:2], *rest)
    assert said == "it takes contiguous tensors, kernel has strides (1, 3)"


def test_triton_in_the_interpreter() -> None:
    if not importlib.util.find_spec("triton"):
        pytest.skip("needs triton")
    result = interpreted("interpreted_sinkhorn.py")
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert max(said["scalings"], said["transposed"], said["nothing"]) < 1e-5
    assert said["potentials"] < 3e-5
    assert max(said["plans"].values()) < 1e-4
    assert said["launches"] == {"log_sinkhorn_triton.absorb": 1}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("size", [(32, 2048), (256, 2048), (7, 100)])
def test_triton_on_a_gpu(size: tuple[int, int]) -> None:
    kernel, a, b = (waves("K", s).exp().float().cuda() for s in (size, size[:1], size[1:]))
    found, expected = ([torch.ones_like(a), torch.ones_like(b)] for _ in range(2))
    sinkhorn.scale_to_marginals(kernel, a, b, *found, 20)
    sinkhorn.scale_plain(kernel, a, b, *expected, 20)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
