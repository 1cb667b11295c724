"""archs/phaseformer.py: equal to the original in both outputs and all gradients; any size; stable numerics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import reference_underwater as reference
import torch
from filling import fill, image, waves
from originals import assert_same_as_original
from torch import nn

from relume.archs import build_network
from relume.archs.agssf import AGSSFBlock, FeedForward, PhaseGate, PixelDown, PixelUp
from relume.archs.phaseformer import PhaseMDTA
from relume.core.errors import UserError

Golden = Callable[[str], Path]
Recipe = Callable[[str], ModuleType]
BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "mod_phase_block": lambda: AGSSFBlock(8, 2.66, PhaseMDTA(8, 2)),
    "mod_phase_downsample": lambda: PixelDown(8),
    "mod_phase_eca16": lambda: PhaseGate(16, "legacy"),
    "mod_phase_eca64": lambda: PhaseGate(64, "legacy"),
    "mod_phase_gdfn": lambda: FeedForward(8, 2.66),
    "mod_phase_mdta": lambda: PhaseMDTA(8, 2),
    "mod_phase_upsample": lambda: PixelUp(8),
}
TINY = {"num_blocks": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "channels": [4, 8, 16, 32], "num_refinement": 1}


def build(**options: Any) -> nn.Module:
    return build_network({"type": "Phaseformer", **options})


@pytest.mark.parametrize("name", ["phaseformer_short", "phaseformer_nonpow2", "phaseformer_default", *BLOCKS])
def test_equal_to_the_original(name: str, golden: Golden, recipe: Recipe) -> None:
    case = recipe("underwater/golden_recipe.py").load_case(golden(f"underwater/arch_{name}.pt"))
    network = BLOCKS[name]() if name in BLOCKS else build(**case["config"])
    assert_same_as_original(network, case)


def test_parameters_of_the_published_configuration(golden: Golden) -> None:
    network = build()
    assert sum(p.numel() for p in network.parameters()) == 1_783_800
    assert sum(p.numel() for p in network.live_parameters()) == 1_779_189
    manifest = json.loads(golden("underwater/state_dict_manifest.json").read_text())
    published = dict(manifest["phaseformer_default"]["state_dict"])
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == published


@pytest.mark.parametrize("size", [(16, 40), (24, 24)])
def test_equal_to_the_plain_formulas(size: tuple[int, int]) -> None:
    ours, plain = (
        fill(build(**TINY, expansion_factor=2.0)).double(),
        reference.Phaseformer(**TINY, expansion_factor=2.0),
    )
    plain.double().load_state_dict(ours.state_dict())
    x, y = (image("x", 2, 3, *size).double().requires_grad_() for _ in range(2))
    for a, b in zip(ours(x), plain(y), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
        direction = waves("d", tuple(a.shape))
        (a * direction).sum().backward(retain_graph=True)
        (b * direction).sum().backward(retain_graph=True)
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-6, atol=1e-8)


def test_any_size_and_twice_that() -> None:
    network = fill(build(**TINY))
    for size in ((33, 41), (8, 13), (16, 24)):
        low, high = network(image("x", 1, 3, *size))
        assert low.shape == (1, 3, *size)
        assert high.shape == (1, 3, 2 * size[0], 2 * size[1])
        assert torch.isfinite(high).all()


def test_dropping_dead_parameters_changes_nothing_but_their_number() -> None:
    full, lean = fill(build(**TINY)), build(**TINY, drop_dead=True)
    lean.load_state_dict(full.state_dict(), strict=True)
    x = image("x", 1, 3, 16, 24)
    assert all(torch.equal(a, b) for a, b in zip(full(x), lean(x), strict=True))
    dropped = set(full.state_dict()) - set(lean.state_dict())
    assert dropped == {"attention.3.conv.weight", "ups2.body.0.weight"}
    sum(y.mean() for y in full(x)).backward()
    assert all((p.grad is None) == (name in dropped) for name, p in full.named_parameters())


def test_a_little_noise_changes_little_at_any_size() -> None:
    torch.manual_seed(0)
    network = build()
    x = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        for a, b in zip(network(x), network(x + 1e-6 * torch.randn(x.shape)), strict=True):
            assert (a - b).abs().max() < 1e-4


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_black_and_flat_pictures_have_finite_gradients(value: float) -> None:
    x = torch.full((1, 3, 16, 16), value, requires_grad=True)
    network = fill(build(**TINY))
    sum(y.square().mean() for y in network(x)).backward()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in network.live_parameters())


def test_a_gate_that_sees_the_channels_means() -> None:
    x = image("x", 1, 3, 16, 24)
    legacy, spatial = (fill(build(**TINY, phase_gate=kind)) for kind in ("legacy", "spatial"))
    assert not torch.allclose(legacy(x)[0], spatial(x)[0], atol=1e-4)


def test_impossible_widths_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="each twice the previous"):
        build(channels=[16, 32, 64])


def test_a_block_compiles_without_breaks() -> None:
    block = fill(BLOCKS["mod_phase_block"]())
    x, y = (image("x", 1, 8, 8, 12).requires_grad_() for _ in range(2))
    a, b = torch.compile(block, backend="aot_eager", fullgraph=True)(x), block(y)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    a.square().sum().backward()
    b.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-3, atol=1e-4)


def test_fingerprint() -> None:
    outputs = [y.double() for y in fill(build(**TINY))(image("x", 1, 3, 16, 24))]
    found = torch.stack([torch.stack([y.mean(), y.std(), y[0, 1, 5, 6]]) for y in outputs])
    torch.testing.assert_close(found, torch.tensor(FINGERPRINT).double(), rtol=1e-3, atol=1e-4)


FINGERPRINT = [[-0.00026, 1.01918, -2.01575], [-0.00332, 0.29719, -0.04613]]
"""Mean, standard deviation and one pixel of both outputs, once they were equal to the original's."""
