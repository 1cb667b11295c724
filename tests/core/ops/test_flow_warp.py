"""core/ops/flow_warp.py: gradients that its kernels add up, and where torchvision's own code would end the process."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from interpreting import interpreted
from torchvision.ops import deform_conv2d

from relume.core.ops.flow_warp import modulated_deform_conv


def arguments() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    x, offset, mask = torch.rand(1, 4, 8, 8), torch.randn(1, 36, 8, 8), torch.rand(1, 18, 8, 8)
    return x, offset, mask, torch.randn(3, 4, 3, 3), torch.randn(3)


def test_it_is_the_convolution_of_torchvision() -> None:
    x, offset, mask, weight, bias = arguments()
    expected = deform_conv2d(x, offset, weight, bias, 1, 1, 1, mask)
    assert torch.equal(modulated_deform_conv(x, offset, mask, weight, bias, 1, 1), expected)


@pytest.mark.parametrize("place", [7, 22])
def test_an_offset_that_is_no_number_gives_no_number_and_ends_nothing(place: int) -> None:
    given = arguments()
    x, offset, mask, weight, bias = given
    offset[0, place, 3, 5] = torch.nan
    for tensor in given:
        tensor.requires_grad_()
    y = modulated_deform_conv(x, offset, mask, weight, bias, 1, 1)
    lost = torch.zeros(8, 8, dtype=torch.bool)
    lost[3, 5] = True
    assert torch.equal(y.isnan().any(1)[0], lost)
    y.sum().backward()
    assert weight.grad is not None and weight.grad.isnan().any()


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs Triton")
def test_gradients_add_up_and_what_is_no_number_stays_none() -> None:
    result = interpreted("interpreted_flow_warp.py")
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert max(said.pop("crowded")) < 1e-6
    assert said.pop("nan") == said.pop("inf") == [True, True]
    assert said.pop("far") == [0.0] * 3 and said.pop("none") == 0.0
    assert list(said.values()) == [[3, True]] * 2
