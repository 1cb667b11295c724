"""What every registered architecture must be able to do, on a tiny configuration of it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from filling import image, waves
from torch import Tensor, nn
from waits import counted

from relume.archs import ARCHS, build_network
from relume.core.inference.network import channels_innermost
from relume.core.inference.tiling import Inference, size_multiple

Inputs = Callable[[int, int], tuple[Tensor, ...]]


def one_image(height: int, width: int) -> tuple[Tensor, ...]:
    return (image("x", 2, 3, height, width),)


def image_and_target(height: int, width: int) -> tuple[Tensor, ...]:
    return image("x", 2, 3, height, width), image("gt", 2, 3, height, width)


def image_and_prior(height: int, width: int) -> tuple[Tensor, ...]:
    return image("x", 2, 3, height, width), waves("z", (2, 256)).float()


def two_frames(height: int, width: int) -> tuple[Tensor, ...]:
    return (image("x", 2, 6, height, width),)


def two_images(height: int, width: int) -> tuple[Tensor, ...]:
    return image("x", 2, 3, height, width), image("y", 2, 3, height, width)


def clip(height: int, width: int) -> tuple[Tensor, ...]:
    return (torch.stack([image(f"x{i}", 1, 3, height, width) for i in range(5)], 1),)


def seven_frames(height: int, width: int) -> tuple[Tensor, ...]:
    """A quarter of the size: these networks have one width, which is not small."""
    return (torch.stack([image(f"x{i}", 1, 3, height // 4, width // 4) for i in range(7)], 1),)


@dataclass(frozen=True)
class Tiny:
    """How to build and call an architecture in a fraction of a second.

    Args:
        options: constructor arguments.
        training_inputs: arguments of ``forward`` in training mode, for a height and a width.
        inputs: in evaluation mode; the same when None.
        unused: endings of the names of parameters that the architecture keeps for its original's checkpoints only.
        any_size: whether it maps an image of any size to an image of `scale` times that size.
    """

    options: dict[str, Any] = field(default_factory=dict)
    training_inputs: Inputs = one_image
    inputs: Inputs | None = None
    unused: tuple[str, ...] = ()
    any_size: bool = True


LEVELS = {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 1, 2, 2]}
NARROW = {"num_blocks": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "num_refinement": 1, "drop_dead": True}
NAF = {"width": 4, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}
MAMBA_V2 = {
    "embed_dim": 6,
    "d_state": 2,
    "depths": [2],
    "num_heads": [2],
    "window_size": 8,
    "inner_rank": 2,
    "num_tokens": 4,
    "route": "argmax",
}
TINY: dict[str, Tiny] = {
    "Baseline": Tiny(NAF),
    "BaselineLocal": Tiny({**NAF, "train_size": [1, 3, 8, 8]}),
    "BasicVSR": Tiny({"num_feat": 4, "num_block": 1}, clip, any_size=False),
    "BasicVSRPlusPlus": Tiny({"mid_channels": 16, "num_blocks": 1}, clip, any_size=False),
    "DiffIRS1": Tiny({**LEVELS, "n_encoder_res": 1}, image_and_target),
    "DiffIRS2": Tiny({**LEVELS, "n_encoder_res": 1}, image_and_prior, one_image),
    "DRSformer": Tiny({"dim": 4, "num_blocks": [1, 1, 1, 1], "heads": [1, 1, 2, 2]}),
    "DUF": Tiny({"num_layer": 16, "scale": 1}, seven_frames, any_size=False),
    "ECBSR": Tiny(
        {
            **{"num_in_ch": 3, "num_out_ch": 3, "num_block": 1, "num_channel": 4, "with_idt": True},
            **{"act_type": "prelu", "scale": 2},
        }
    ),
    "EDSR": Tiny({"num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2}),
    "EDVR": Tiny(
        {
            **{"num_feat": 4, "deformable_groups": 2, "num_extract_block": 1, "num_reconstruct_block": 1},
            **{"num_frame": 5, "hr_in": True, "with_predeblur": True},
        },
        clip,
        any_size=False,
    ),
    "HINet": Tiny({"wf": 4, "depth": 3}),
    "HybridVFI": Tiny(
        {
            "F": 8,
            "window_size": 4,
            "depths": [1, 2, 1],
            "mamba": {"d_state": 8, "headdim": 8},
            "use_flow": True,
            "flow_c": [4, 4, 4],
            "drop_path": 0.0,
        },
        two_frames,
        any_size=False,
    ),
    "IconVSR": Tiny({"num_feat": 8, "num_block": 1}, clip, any_size=False),
    "MambaIR": Tiny(
        {"embed_dim": 30, "depths": [1], "d_state": 2, "mlp_ratio": 0.5, "drop_path_rate": 0.0, "upscale": 1}
    ),
    "MambaIRUNet": Tiny({"dim": 32, "num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0, "mlp_ratio": 0.25}),
    "MambaIRv2": Tiny({**MAMBA_V2, "upscale": 2, "upsampler": "pixelshuffle"}),
    "MambaIRv2Light": Tiny({**MAMBA_V2, "upscale": 3, "upsampler": "pixelshuffledirect"}),
    "MSRResNet": Tiny({"num_feat": 4, "num_block": 1, "upscale": 3}),
    "NAFNet": Tiny(NAF),
    "NAFNetLocal": Tiny({**NAF, "train_size": [1, 3, 8, 8], "fast_imp": True}),
    "NAFSSR": Tiny({"up_scale": 2, "width": 4, "num_blks": 1}, two_frames),
    "OneStepGenerator": Tiny(
        {
            "img_resolution": 16,
            "model_channels": 8,
            "channel_mult": [1, 2],
            "num_blocks": 1,
            "attn_resolutions": [8],
            "dropout": 0.0,  # its mask depends on the memory format
        },
        any_size=False,
    ),
    "Phaseformer": Tiny({**NARROW, "channels": [8, 16, 32, 64], "phase_gate": "spatial"}),
    "RCAN": Tiny({"num_in_ch": 3, "num_out_ch": 3, "num_feat": 16, "num_group": 1, "num_block": 1, "upscale": 2}),
    "RIDNet": Tiny({"in_channels": 3, "mid_channels": 16, "out_channels": 3, "num_block": 1, "img_range": 1.0}),
    "RRDBNet": Tiny({"num_in_ch": 3, "num_out_ch": 3, "scale": 2, "num_feat": 4, "num_block": 1, "num_grow_ch": 2}),
    "Restormer": Tiny(LEVELS),
    "Spectroformer": Tiny(
        {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "num_heads": [1, 1, 2, 2]},
    ),
    "SRFormer": Tiny(
        {
            **{"embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": 4, "img_size": 8, "mlp_ratio": 1},
            **{"upscale": 2, "upsampler": "pixelshuffledirect", "drop_path_rate": 0.0},
        }
    ),
    "SRVGGNetCompact": Tiny({"num_feat": 4, "num_conv": 1, "upscale": 2}),
    "SpyNet": Tiny({}, two_images, any_size=False),
    "SpectroformerAGSSF": Tiny({**NARROW, "channels": [8, 16, 32, 64], "phase_gate": "spatial"}),
    "TOFlow": Tiny({}, seven_frames, any_size=False),
}
"""One entry for each name in ARCHS, discriminators aside."""

NAMES = [
    name
    for name in ARCHS.names()
    if ARCHS.get(name).__module__.startswith("relume.archs.")
    and not ARCHS.get(name).__module__.startswith("relume.archs.discriminators.")  # which map images to logits
]


def tiny(name: str) -> Tiny:
    if name not in TINY:
        pytest.fail(f"{name} has no tiny configuration: add one to TINY in {__file__}")
    return TINY[name]


def build(name: str, **options: Any) -> nn.Module:
    """The tiny network, away from its initialisation, where some start as the identity; with other options, if given."""
    torch.manual_seed(0)
    network = build_network({"type": name, **tiny(name).options, **options})
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.02 * torch.randn_like(p))
    return network


def tensors(value: Any) -> list[Tensor]:
    """Every tensor in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [t for item in items for t in tensors(item)]


def run(network: nn.Module, name: str, height: int = 32, width: int = 40) -> list[Tensor]:
    """Outputs in the network's current mode; networks that draw noise draw the same each time."""
    inputs = tiny(name).training_inputs if network.training else tiny(name).inputs or tiny(name).training_inputs
    torch.manual_seed(1)
    return tensors(network(*inputs(height, width)))


def backward(outputs: list[Tensor]) -> None:
    torch.stack([y.float().square().mean() for y in outputs]).sum().backward()


def trained(network: nn.Module, name: str) -> dict[str, Tensor]:
    """Gradients of the parameters that are trained, by name."""
    gradients = {
        k: p.grad for k, p in network.named_parameters() if p.requires_grad and not k.endswith(tiny(name).unused)
    }
    without = [k for k, g in gradients.items() if g is None]
    assert not without, f"no gradient reaches {without}"
    return gradients


@pytest.mark.parametrize("name", NAMES)
def test_trains(name: str) -> None:
    network = build(name).train()
    with counted() as waits:
        outputs = run(network, name)
        backward(outputs)
    assert not waits, "a GPU would be waited for"
    assert outputs
    assert all(y.isfinite().all() for y in outputs)
    gradients = trained(network, name)
    assert all(g.isfinite().all() for g in gradients.values())
    assert any(g.any() for g in gradients.values())


@pytest.mark.parametrize("name", NAMES)
def test_weights_load_strictly_into_another(name: str) -> None:
    options = {"type": name, **tiny(name).options}
    before = copy.deepcopy(options)
    network = build(name).eval()
    torch.manual_seed(5)
    other = build_network(options).eval()
    assert options == before
    other.load_state_dict(network.state_dict(), strict=True)
    with torch.no_grad():
        expected = run(network, name)
        for twin in (other, copy.deepcopy(network)):
            assert all(torch.equal(a, b) for a, b in zip(run(twin, name), expected, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_bf16_autocast_stays_near_float32(name: str) -> None:
    network = build(name).train()
    with torch.no_grad():
        expected = run(network, name)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = run(network, name)
    for y, exact in zip(outputs, expected, strict=True):
        assert (y.float() - exact).norm() <= 0.05 * exact.norm()
    backward(outputs)
    assert all(g.isfinite().all() for g in trained(network, name).values())


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_changes_nothing(name: str) -> None:
    network = build(name).train()
    expected = run(network, name)
    backward(expected)
    gradients = {k: g.clone() for k, g in trained(network, name).items()}
    network.zero_grad()
    channels_innermost(network)
    inputs = [
        x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
        for x in tiny(name).training_inputs(32, 40)
    ]
    torch.manual_seed(1)
    outputs = tensors(network(*inputs))
    for y, other in zip(outputs, expected, strict=True):
        torch.testing.assert_close(y, other, rtol=1e-3, atol=1e-4)
    backward(outputs)
    for k, g in trained(network, name).items():
        torch.testing.assert_close(g, gradients[k], rtol=1e-3, atol=1e-4, msg=lambda m, k=k: f"{k}: {m}")


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_any_size_comes_out_enlarged_by_scale(name: str) -> None:
    case = tiny(name)
    if not case.any_size:
        pytest.skip(f"{name} does not map images to images of a multiple of their size")
    network = build(name).eval()
    inputs = (case.inputs or case.training_inputs)(19, 27)
    result = Inference()(network, *inputs)
    first = tensors(result)[0]
    scale = getattr(network, "scale", 1)
    assert first.shape[-2:] == (19 * scale, 27 * scale)
    assert first.isfinite().all()
    if size_multiple(network) == 1:
        torch.testing.assert_close(first, tensors(network(*inputs))[0])


def test_the_table_has_no_leftovers() -> None:
    assert sorted(TINY) == NAMES, "TINY and ARCHS differ"


SYSTEMS = ("DiffIRS1", "DiffIRS2", "OneStepGenerator", "Phaseformer", "Spectroformer", "SpectroformerAGSSF")
ONE_GRAPH = [
    *[("HybridVFI", {"use_flow": flow}, training) for flow in (False, True) for training in (True, False)],
    *[(n, {}, training) for n in SYSTEMS for training in (True, False)],
    *[(n, {}, True) for n in NAMES if n not in ("HybridVFI", *SYSTEMS)],
]
"""Networks, options besides, and whether they are trained."""
SELECTED = ("HybridVFI", {"use_flow": True}, True)


@pytest.mark.filterwarnings("default")  # what torch's compiler warns of is its own business
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "options", "training"), ONE_GRAPH)
def test_compiles_as_one_graph(name: str, options: dict[str, Any], training: bool) -> None:
    """Every network, forward and backward, with the same values: no call leaves the graph."""
    if (name, options, training) != SELECTED and "RELUME_SLOW_TESTS" not in os.environ:
        pytest.skip("slow; set RELUME_SLOW_TESTS=1")
    torch.manual_seed(0)
    network = build_network({"type": name, **tiny(name).options, **options}).train(training)
    torch.compiler.reset()
    results = []
    for called in (network, torch.compile(network, backend="eager", fullgraph=True)):
        inputs = tiny(name).training_inputs if training else tiny(name).inputs or tiny(name).training_inputs
        torch.manual_seed(1)
        outputs = tensors(called(*inputs(16, 16)))
        network.zero_grad()
        backward(outputs)
        results.append([*outputs, *(p.grad for p in network.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6)
