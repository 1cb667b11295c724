"""archs/spectroformer.py: equal to the original in value and gradient; any size; mixed precision; stable numerics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from originals import assert_same_as_original
from reference_underwater import Spectroformer as Plain
from torch import Tensor, nn

from relume.archs import build_network
from relume.archs.blocks import GatedFeedForward
from relume.archs.spectroformer import AKC, DFU, FDFP, HFSUB, MQCA, MQCT, SSFB, DownSample, named_norm

SMALL = {"dim": 16, "num_blocks": [2, 3, 3, 4], "num_refinement_blocks": 4, "num_heads": [1, 2, 4, 8]}
TINY = {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "num_heads": [1, 1, 2, 4]}
BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "mod_paper_akc4": lambda: AKC(4),
    "mod_paper_akc64": lambda: AKC(64),
    "mod_paper_akc128": lambda: AKC(128),
    "mod_paper_dfu": lambda: DFU(8, 4),
    "mod_paper_dfu_nonpow2": lambda: DFU(8, 4),
    "mod_paper_downsample": lambda: DownSample(8, 16),
    "mod_paper_fdfp": lambda: FDFP(8),
    "mod_paper_fdfp_odd": lambda: FDFP(8),
    "mod_paper_gdfn": lambda: GatedFeedForward(8, 2.66),
    "mod_paper_hfsub": lambda: HFSUB(8, 4),
    "mod_paper_layernorm": lambda: named_norm(8),
    "mod_paper_mqca": lambda: MQCA(8, 2),
    "mod_paper_mqct": lambda: MQCT(8, 2),
    "mod_paper_ssfb": lambda: SSFB(8),
}


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


@pytest.mark.parametrize("name", ["spectroformer_tiny", "spectroformer_tiny_nonpow2", "spectroformer_small", *BLOCKS])
def test_equal_to_the_original_in_value_and_gradient(
    name: str, golden: Callable[[str], Path], recipe: Callable[[str], ModuleType]
) -> None:
    case = recipe("underwater/golden_recipe.py").load_case(golden(f"underwater/arch_{name}.pt"))
    assert_same_as_original(BLOCKS[name]() if name in BLOCKS else build(case["config"]), case)


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


def test_blocks_compile_without_breaks() -> None:
    blocks = formula_filled(nn.Sequential(MQCT(8, 2), HFSUB(8, 4)))
    x, y = (picture(1, 3, 8, 12).repeat(1, 3, 1, 1)[:, :8].clone().requires_grad_() for _ in range(2))
    a, b = torch.compile(blocks, backend="aot_eager", fullgraph=True)(x), blocks(y)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    a.square().sum().backward()
    b.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-3, atol=1e-4)


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
