"""archs/spectroformer.py: equal to the original in value and gradient; any size; mixed precision; stable numerics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from reference_underwater import Spectroformer as Plain
from torch import Tensor, nn

from relume.archs import build_network

SMALL = {"dim": 16, "num_blocks": [2, 3, 3, 4], "num_refinement_blocks": 4, "num_heads": [1, 2, 4, 8]}
TINY = {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "num_heads": [1, 1, 2, 4]}
CASES = ["tiny", "tiny_nonpow2", "small"]


def build(config: dict[str, Any]) -> nn.Module:
    return build_network({"type": "Spectroformer", **config})


def formula_filled(net: nn.Module) -> nn.Module:
    """Parameters by a formula, the same on every machine and for every version of torch."""
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            wave = torch.sin(torch.arange(p.numel(), dtype=torch.float64) * 0.7 + i)
            gain = 1.0 + 0.1 * wave if p.dim() == 1 else wave / max(p[0].numel(), 1) ** 0.5
            p.copy_(gain.reshape(p.shape))
    return net


def picture(*shape: int) -> Tensor:
    rows = torch.linspace(0, 3, shape[2])[:, None]
    columns = torch.linspace(0, 5, shape[3])[None, :]
    planes = [0.5 + 0.3 * torch.sin(rows * (c + 1) + columns) + 0.1 * torch.cos(7 * columns - c) for c in range(3)]
    return torch.stack(planes).expand(shape).clone()


@pytest.mark.parametrize("case", CASES)
def test_equal_to_the_original_in_value_and_gradient(
    case: str, golden: Callable[[str], Path], recipe: Callable[[str], ModuleType]
) -> None:
    stored = recipe("underwater/golden_recipe.py").load_case(golden(f"underwater/arch_spectroformer_{case}.pt"))
    net = build(stored["config"])
    net.load_state_dict(stored["state_dict"], strict=True)
    inputs = [x.clone().requires_grad_() for x in stored["inputs"]]
    output = net(*inputs)
    assert (output - stored["outputs"][0]).abs().max() <= stored["suggested_atol"]
    scalar = (output * stored["cotangents"][0]).sum()
    scalar.backward()
    for x, expected in zip(inputs, stored["input_grads"], strict=True):
        assert (x.grad - expected).abs().max() <= stored["suggested_grad_atol"]
    norms = dict(net.named_parameters())
    for name, expected_norm in stored["param_grad_norms"].items():
        allowed = stored["param_grad_norm_atol"] + stored["param_grad_norm_rtol"] * expected_norm
        assert abs(float(norms[name].grad.norm()) - expected_norm) <= allowed, name
    assert sum(p.numel() for p in net.parameters()) == stored["param_count"]


def test_names_shapes_and_count_of_the_published_configuration(golden: Callable[[str], Path]) -> None:
    net = build(SMALL)
    assert sum(p.numel() for p in net.parameters()) == 2_992_892
    manifest = json.loads(golden("underwater/state_dict_manifest.json").read_text())
    published = manifest["spectroformer_small"]["state_dict"]
    assert [[k, list(v.shape)] for k, v in net.state_dict().items()] == published


@pytest.mark.parametrize("size", [(16, 24), (40, 40), (24, 56)])
def test_equal_to_the_plain_formulas_at_other_sizes_and_settings(size: tuple[int, int]) -> None:
    config = {**TINY, "ffn_expansion_factor": 2.0, "bias": True}
    ours, plain = build(config), Plain(**config)
    plain.load_state_dict(formula_filled(ours).state_dict())
    x, y = (picture(2, 3, *size).requires_grad_() for _ in range(2))
    a, b = ours(x), plain(y)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)
    weight = torch.linspace(-1, 1, a.numel()).reshape(a.shape)
    (a * weight).mean().backward()
    (b * weight).mean().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-3, atol=1e-7)
    theirs = dict(plain.named_parameters())
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, theirs[name].grad, rtol=5e-3, atol=2e-6, msg=name)


@pytest.mark.parametrize("size", [(33, 41), (8, 13), (50, 36)])
def test_sizes_that_are_no_multiple_of_8(size: tuple[int, int]) -> None:
    net = formula_filled(build(TINY))
    output = net(picture(1, 3, *size))
    assert output.shape == (1, 3, *size) and torch.isfinite(output).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_stays_finite_and_close(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = build(TINY)
    x = torch.rand(1, 3, 48, 40)
    exact = net(x)
    with torch.autocast("cpu", dtype=dtype):
        rough = net(x)
        loss = rough.float().square().mean()
    loss.backward()
    assert (rough.float() - exact).abs().mean() < 0.05 * exact.std()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_a_little_noise_changes_little_at_any_size() -> None:
    torch.manual_seed(0)
    net = build(TINY)
    x = torch.rand(1, 3, 96, 96)
    noise = 1e-6 * torch.randn(x.shape)
    assert (net(x) - net(x + noise)).abs().max() < 1e-4


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_flat_and_black_pictures_have_finite_gradients(value: float) -> None:
    net = formula_filled(build(TINY))
    x = torch.full((1, 3, 16, 16), value, requires_grad=True)
    net(x).square().mean().backward()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_checkpointing_changes_nothing() -> None:
    plain, saving = build(TINY), build({**TINY, "use_checkpoint": True})
    saving.load_state_dict(formula_filled(plain).state_dict())
    x = picture(1, 3, 16, 16)
    outputs = []
    for net in (plain, saving):
        output = net(x)
        output.square().mean().backward()
        outputs.append(output)
    torch.testing.assert_close(*outputs, rtol=0, atol=0)
    for p, q in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-8)


def test_fingerprint() -> None:
    output = formula_filled(build(TINY))(picture(1, 3, 16, 16))
    assert output.double().mean().item() == pytest.approx(FINGERPRINT[0], rel=1e-4)
    assert output.double().std().item() == pytest.approx(FINGERPRINT[1], rel=1e-4)
    assert output[0, 1, 5, 6].item() == pytest.approx(FINGERPRINT[2], rel=1e-3)


FINGERPRINT = (0.49039, 0.37902, 0.44070)
"""Mean, standard deviation and one pixel of the output, once it was equal to the original's."""
