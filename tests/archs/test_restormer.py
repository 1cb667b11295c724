"""Restormer against the original's numbers, against the formulas written plainly, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import reference_diffir as reference
import torch
from filling import fill, image, waves
from torch import nn

from relume.archs import build_network
from relume.core.errors import UserError

TINY = {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 2, 2, 4]}


def gradients(network: nn.Module, inputs: list[torch.Tensor], *, cotangent: str = "w") -> list[torch.Tensor]:
    """Output, then gradients of a fixed projection of it: of the inputs and of every parameter."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    y = network(*inputs)
    grads = torch.autograd.grad((y * waves(cotangent, tuple(y.shape))).sum(), [*inputs, *network.parameters()])
    return [y.detach(), *grads]


def test_golden(golden: Callable[[str], Path], recipe: Callable[[str], ModuleType]) -> None:
    case = recipe("underwater/golden_recipe.py").load_case(golden("underwater/arch_restormer_tiny.pt"))
    network = build_network({"type": "Restormer", **case["config"]})
    assert list(network.state_dict()) == [name for name, _ in case["state_spec"]]
    assert sum(p.numel() for p in network.parameters()) == case["param_count"]
    network.load_state_dict(case["state_dict"], strict=True)
    x = case["inputs"][0].requires_grad_()
    y = network(x)
    torch.testing.assert_close(y, case["outputs"][0], rtol=0, atol=case["suggested_atol"])
    (y * case["cotangents"][0]).sum().backward()
    torch.testing.assert_close(x.grad, case["input_grads"][0], rtol=0, atol=case["suggested_grad_atol"])
    for name, p in network.named_parameters():
        norm = case["param_grad_norms"][name]
        tolerance = case["param_grad_norm_atol"] + case["param_grad_norm_rtol"] * norm
        assert p.grad.norm().item() == pytest.approx(norm, rel=0, abs=tolerance), name


def test_default_has_the_original_size() -> None:
    with torch.device("meta"):
        network = build_network({"type": "Restormer"})
    assert sum(p.numel() for p in network.parameters()) == 26_126_644


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bias": True, "ffn_expansion_factor": 2.3, "num_blocks": [2, 1, 2, 1]},
        {"LayerNorm_type": "BiasFree", "heads": [2, 1, 4, 8]},
        {"bias": True, "LayerNorm_type": "BiasFree", "num_refinement_blocks": 2},
        {"dual_pixel_task": True, "inp_channels": 6},
        {"dual_pixel_task": True, "bias": True, "inp_channels": 2, "out_channels": 4},
    ],
    ids=str,
)
def test_equals_the_formulas_in_value_and_gradient(settings: dict[str, Any]) -> None:
    options = {**TINY, **settings}
    ours = fill(build_network({"type": "Restormer", **options})).double()
    theirs = reference.Restormer(**options).double()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = image("x", 2, options.get("inp_channels", 3), 8, 16).double()
    for a, b in zip(gradients(ours, [x]), gradients(theirs, [x]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("norm", ["WithBias", "BiasFree"])
def test_checkpointing_changes_no_bit(norm: str) -> None:
    options = {"type": "Restormer", **TINY, "LayerNorm_type": norm}
    plain, frugal = fill(build_network(options)), fill(build_network({**options, "use_checkpoint": True}))
    x = image("x", 1, 3, 8, 16)
    for a, b in zip(gradients(plain, [x]), gradients(frugal, [x]), strict=True):
        assert torch.equal(a, b)


def test_more_channels_in_than_out_correct_the_first() -> None:
    network = fill(build_network({"type": "Restormer", **TINY, "inp_channels": 5}))
    nn.init.zeros_(network.output.weight)
    x = image("x", 1, 5, 8, 8)
    assert torch.equal(network(x), x[:, :3])


def test_fingerprint() -> None:
    with torch.no_grad():
        y = fill(build_network({"type": "Restormer", **TINY}))(image("x", 1, 3, 16, 24))
    found = torch.stack([y[0, 0, 1, 2], y[0, 1, 5, 7], y[0, 2, -1, -1], y.mean(), y.std()])
    torch.testing.assert_close(found, torch.tensor([2.18963, 0.11968, 0.89168, 0.49078, 0.63633]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"num_blocks": [1, 1]}, "num_blocks needs 4 entries"),
        ({"heads": [1, 2, 3, 4]}, r"heads\[2\] is 3, which does not divide that level's 32 channels"),
        ({"inp_channels": 1}, r"inp_channels \(1\) must not be smaller than out_channels \(3\)"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        build_network({"type": "Restormer", **TINY, **settings})
