"""archs/agssf.py: equal to the four originals; what they compute in vain can be dropped or brought to life."""

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
from torch import Tensor, nn

from relume.archs import build_network
from relume.archs.agssf import MDTA, SFCA, AGSSFBlock, FourierUp, PhaseGate, UpS
from relume.core.errors import UserError

Golden = Callable[[str], Path]
Recipe = Callable[[str], ModuleType]
VARIANTS = {"agssf1": "agssf1", "agssf_official": "official", "spectro_model": "model", "without_ca": "without_ca"}
COUNTS = {"agssf1": 2_530_193, "official": 2_511_081, "model": 2_530_193, "without_ca": 2_430_709}
CASES = [
    f"{stem}_{size}"
    for stem in VARIANTS
    for size in ("short", "default", "nonpow2")
    if size != "nonpow2" or "ag" in stem
]
BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "mod_agssf1_block": lambda: AGSSFBlock(8, 2.66, MDTA(8, 2, "dead")),
    "mod_agssf1_mdta": lambda: MDTA(8, 2, "dead"),
    "mod_agssf1_sfca": lambda: SFCA(8, official=False),
    "mod_agssf1_ups": lambda: UpS(8),
    "mod_agssf1_upsample_keep": lambda: FourierUp(8, channel_red=False),
    "mod_agssf1_upsample_reduce": lambda: FourierUp(8),
    "mod_agssf_official_mdta": lambda: MDTA(8, 2, "dead"),
    "mod_agssf_official_sfca": lambda: SFCA(8, official=True),
    "mod_spectro_model_mdta": lambda: MDTA(8, 2, "active"),
    "mod_spectro_model_sfca": lambda: SFCA(8, official=False, gate="spatial"),
}
DEAD_IN_BLOCKS = (".q1X1_1.weight", ".q1X1_2.weight")
TINY = {"num_blocks": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "channels": [4, 8, 16, 32], "num_refinement": 1}


def build(variant: str, **options: Any) -> nn.Module:
    return build_network({"type": "SpectroformerAGSSF", "variant": variant, **options})


@pytest.mark.parametrize("name", CASES)
def test_networks_equal_the_originals(name: str, golden: Golden, recipe: Recipe) -> None:
    case = recipe("underwater/golden_recipe.py").load_case(golden(f"underwater/arch_{name}.pt"))
    network = build(VARIANTS[name.rpartition("_")[0]], **case["config"])
    assert_same_as_original(network, case)
    assert sum(p.numel() for p in network.live_parameters()) == case["live_param_count"]


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_equal_the_originals(name: str, golden: Golden, recipe: Recipe) -> None:
    case = recipe("underwater/golden_recipe.py").load_case(golden(f"underwater/arch_{name}.pt"))
    block = BLOCKS[name]()
    for key, p in block.named_parameters():  # the network freezes what a block alone does not know to be dead
        p.requires_grad_(key not in case["params_without_grad"])
    assert_same_as_original(block, case)


@pytest.mark.parametrize("variant", COUNTS)
def test_parameters_of_the_published_configurations(variant: str, golden: Golden) -> None:
    network = build(variant)
    assert sum(p.numel() for p in network.parameters()) == COUNTS[variant]
    stem = next(k for k, v in VARIANTS.items() if v == variant)
    manifest = json.loads(golden("underwater/state_dict_manifest.json").read_text())
    published = dict(manifest[f"{stem}_default"]["state_dict"])
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == published


@pytest.mark.parametrize("variant", COUNTS)
@pytest.mark.parametrize("size", [(16, 40), (24, 24)])
def test_equal_to_the_plain_formulas(variant: str, size: tuple[int, int]) -> None:
    options = {"num_blocks": [1, 1, 1, 1], "num_refinement": 1, "expansion_factor": 2.0}
    ours = fill(build(variant, **options)).double()
    plain = reference.AGSSF(**options, variant=variant).double()
    plain.load_state_dict(ours.state_dict())
    x, y = (image("x", 2, 3, *size).double().requires_grad_() for _ in range(2))
    a, b = ours(x), plain(y)
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    direction = waves("d", tuple(a.shape))
    (a * direction).sum().backward()
    (b * direction).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-6, atol=1e-8)


def test_other_widths() -> None:
    network = fill(build("official", **TINY))
    y = network(image("x", 1, 3, 16, 24))
    assert y.shape == (1, 3, 16, 24)
    y.sum().backward()
    assert all(p.grad is not None for p in network.live_parameters())


@pytest.mark.parametrize("variant", COUNTS)
def test_dropping_dead_parameters_changes_nothing_but_their_number(variant: str) -> None:
    full, lean = fill(build(variant, **TINY)), build(variant, **TINY, drop_dead=True)
    lean.load_state_dict(full.state_dict(), strict=True)
    x = image("x", 1, 3, 16, 24)
    assert torch.equal(full(x), lean(x))
    live = sum(p.numel() for p in full.live_parameters())
    assert sum(p.numel() for p in lean.parameters()) == live < sum(p.numel() for p in full.parameters())
    lean.load_state_dict(lean.state_dict(), strict=True)
    wrong = {**full.state_dict(), "attention.7.weight": torch.zeros(1)}
    with pytest.raises(RuntimeError, match=r"attention\.7"):
        lean.load_state_dict(wrong)


@pytest.mark.parametrize("variant", COUNTS)
@pytest.mark.parametrize("query", ["dead", "active"])
def test_every_parameter_that_is_not_frozen_gets_a_gradient(variant: str, query: str) -> None:
    network = build(variant, **TINY, freq_query=query)
    network(image("x", 1, 3, 16, 24)).square().mean().backward()
    for name, p in network.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name
        assert not (name.endswith(DEAD_IN_BLOCKS) and query == "active" and p.grad is None)


def test_an_active_query_makes_the_ablation_the_fourth_network() -> None:
    model, ablation = fill(build("model", **TINY)), build("without_ca", **TINY, freq_query="active")
    ablation.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("attention.")})
    x = image("x", 1, 3, 16, 24)
    assert torch.equal(model(x), ablation(x))
    dead = build("model", **TINY, freq_query="dead")
    dead.load_state_dict(model.state_dict())
    assert not torch.allclose(model(x), dead(x), atol=1e-3)


def test_phase_gates() -> None:
    x = image("x", 2, 16, 8, 8)
    x[0, 3] *= -1
    legacy, spatial = (fill(PhaseGate(16, kind)) for kind in ("legacy", "spatial"))
    plain = reference.Gate(16)
    plain.load_state_dict(legacy.state_dict())
    torch.testing.assert_close(legacy(x), plain(x))
    assert (legacy.factors(x) - 0.5).abs().max() < 0.02
    pooled = torch.nn.functional.conv1d(x.mean((2, 3))[:, None], spatial.conv.weight, padding=1)[:, 0]
    torch.testing.assert_close(spatial(x), x * pooled.sigmoid()[:, :, None, None])
    networks = [fill(build("agssf1", **TINY, phase_gate=kind)) for kind in ("legacy", "spatial")]
    outputs = [network(image("y", 1, 3, 16, 16)) for network in networks]
    assert not torch.allclose(*outputs, atol=1e-4)


def test_any_size() -> None:
    network = fill(build("agssf1", **TINY))
    assert network.size_multiple == 8
    for size in ((33, 41), (8, 13), (5, 20)):
        y = network(image("x", 1, 3, *size))
        assert y.shape == (1, 3, *size)
        assert torch.isfinite(y).all()


@pytest.mark.parametrize("variant", COUNTS)
def test_a_little_noise_changes_little_at_any_size(variant: str) -> None:
    torch.manual_seed(0)
    network = build(variant)
    x = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        assert (network(x) - network(x + 1e-6 * torch.randn(x.shape))).abs().max() < 1e-4


@pytest.mark.parametrize("network", ["Spectroformer", "Phaseformer", "SpectroformerAGSSF"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_blocks": [1, 1, 1]}, "num_blocks needs 4 entries, one for each level; got [1, 1, 1]"),
        ({"num_blocks": [1, 1, 1, -2]}, "num_blocks[3] is negative: -2"),
        ({"num_heads": [1, 2, 4, 8, 8]}, "num_heads needs 4 entries, one for each level; got [1, 2, 4, 8, 8]"),
        ({"num_heads": [1, 3, 4, 8]}, "num_heads[1] is 3, which does not divide that level's 32 channels (16 times 2)"),
        ({"num_heads": [0, 2, 4, 8]}, "num_heads[0] is 0, which does not divide that level's 16 channels (16 times 1)"),
        ({"expansion": 0.01}, "an expansion factor of 0.01 leaves no channel of 16 in the feed-forward blocks"),
        ({"dim": 7}, "the first level must have an even number of channels; got 7"),
    ],
)
def test_impossible_levels_are_refused_in_one_line(network: str, options: dict[str, Any], message: str) -> None:
    options = {"dim": 16, **options}
    dim, expansion = options.pop("dim"), options.pop("expansion", 2.0)
    if network == "Spectroformer":
        options |= {"dim": dim, "ffn_expansion_factor": expansion}
    else:
        options |= {"channels": [dim * 2**level for level in range(4)], "expansion_factor": expansion}
    with pytest.raises(UserError) as refusal:
        build_network({"type": network, **options})
    assert str(refusal.value) == message


def test_channels_must_double() -> None:
    with pytest.raises(UserError, match=r"each twice the previous; got \[16, 32, 64, 96\]"):
        build("agssf1", channels=[16, 32, 64, 96])


def test_fingerprint() -> None:
    found: dict[str, Tensor] = {}
    for variant in COUNTS:
        y = fill(build(variant, **TINY))(image("x", 1, 3, 16, 24)).double()
        found[variant] = torch.stack([y.mean(), y.std(), y[0, 1, 5, 6]])
    for variant, expected in FINGERPRINTS.items():
        torch.testing.assert_close(found[variant], torch.tensor(expected).double(), rtol=1e-3, atol=1e-4)


FINGERPRINTS: dict[str, tuple[float, float, float]] = {
    "agssf1": (0.00545, 2.49522, -2.18714),
    "official": (0.00292, 2.05495, -0.26721),
    "model": (-0.00053, 0.97616, -0.26954),
    "without_ca": (-0.00282, 0.45065, 0.97476),
}
"""Mean, standard deviation and one pixel of each output, once they were equal to the originals'."""


def test_half_precision_stays_close_where_phases_are_taken() -> None:
    torch.manual_seed(0)
    net = build_network({"type": "SpectroformerAGSSF"}).eval()
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), size=(64, 64), mode="bicubic").clamp(0, 1)
    x = 0.8 * smooth + 0.2 * torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        exact = net(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = net(x)
    assert (rough.float() - exact).abs().mean() < 0.008, "1.6e-2 were the first upsamplings in half precision"
