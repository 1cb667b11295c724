"""The layer norm of pixel-major maps against its formula, in value and gradient."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from filling import waves
from interpreting import interpreted
from torch import Tensor

from relume.core.errors import UserError
from relume.core.ops.layer_norm import layer_norm

EPS = 1e-3


def formula(x: Tensor, gain: Tensor, offset: Tensor | None, centred: bool) -> Tensor:
    gain, offset = (t if t is None or t.dim() == 1 else t[:, None, None] for t in (gain, offset))
    mean = x.mean(-1, keepdim=True)
    deviation = ((x - mean) ** 2).mean(-1, keepdim=True).add(EPS).sqrt()
    y = (x - mean if centred else x) / deviation * gain
    return y if offset is None else y + offset


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_equals_the_formula_in_value_and_gradient(batch: int, per_image: bool, centred: bool) -> None:
    shape = (batch, 6) if per_image else (6,)
    inputs = [waves("x", (batch, 4, 5, 6)) + 0.3, 1 + 0.5 * waves("gain", shape), waves("offset", shape)]
    inputs = [t.requires_grad_() for t in inputs]
    found, expected = layer_norm(*inputs, EPS, centred), formula(*inputs, centred)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weight = waves("w", tuple(found.shape))
    gradients = [torch.autograd.grad((y * weight).sum(), inputs) for y in (found, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("centred", [False, True])
def test_needs_no_offset(centred: bool) -> None:
    x, gain = waves("x", (2, 3, 4, 5)), 1 + 0.5 * waves("gain", (5,))
    torch.testing.assert_close(layer_norm(x, gain, None, EPS, centred), formula(x, gain, None, centred))


@pytest.mark.parametrize("per_image", [False, True])
def test_half_precision_is_computed_in_float32(per_image: bool) -> None:
    shape = (2, 8) if per_image else (8,)
    x, gain, offset = waves("x", (2, 3, 4, 8)).bfloat16(), 1 + waves("gain", shape), waves("offset", shape)
    found = layer_norm(x, gain.float(), offset.float(), EPS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), formula(x.double(), gain, offset, True), rtol=1e-5, atol=1e-5)


def test_real_kernels_in_the_interpreter() -> None:
    if not importlib.util.find_spec("triton"):
        pytest.skip("needs Triton")
    result = interpreted("interpreted_layer_norm.py")
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1e-5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_kernels_on_a_gpu_equal_the_plain_version(
    per_image: bool, centred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (3, 96) if per_image else (96,)
    drawn = [waves("x", (3, 40, 50, 96)) + 0.3, 1 + 0.5 * waves("gain", shape), waves("offset", shape)]
    weight, results = waves("w", (3, 40, 50, 96)).float().cuda(), []
    for mode in ("on", "off"):
        monkeypatch.setenv("RELUME_KERNELS", mode)
        inputs = [t.detach().float().cuda().requires_grad_() for t in drawn]
        y = layer_norm(*inputs, EPS, centred)
        results.append([y, *torch.autograd.grad((y * weight).sum(), inputs)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


def test_the_kernels_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELUME_KERNELS", "on")
    with pytest.raises(UserError, match="RELUME_KERNELS=on, but the fused layer norm cannot run: it needs a GPU"):
        layer_norm(torch.ones(1, 2, 2, 4), torch.ones(4), None, EPS)
