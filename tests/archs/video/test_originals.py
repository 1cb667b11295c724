"""Networks for video against golden tensors of their originals, in value and gradient."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from zoo_cases import assert_same_as_original, cases, near

from relume.archs import build_network
from relume.core.errors import UserError
from relume.core.ops.flow_warp import flow_warp
from relume.core.runtime.checkpoint import load_weights


def test_flow_warp(golden: Callable[[str], Path]) -> None:
    for case in cases(golden("zoo/flow_warp.pt")):
        x, flow = (case["inputs"][k].clone().requires_grad_() for k in ("x", "flow"))
        y = flow_warp(x, flow, **case["config"])
        near(y, case["output"], case["rtol"], case["name"])
        (y * case["cotangent"]).sum().backward()
        for t, expected in zip((x, flow), case["grads"].values(), strict=True):
            near(t.grad if t.grad is not None else torch.zeros_like(t), expected, case["grad_rtol"], case["name"])


@pytest.mark.parametrize("name", ["spynet", "basicvsr", "edvr"])
def test_value_and_gradient(name: str, golden: Callable[[str], Path]) -> None:
    for case in cases(golden(f"zoo/{name}.pt")):
        if "'temporal_padding': 2" in case["name"] and not os.environ.get("RELUME_SLOW_TESTS"):
            continue  # its twin has other key frames
        # Of values near a kink of the leaky ReLU some fall on its other side where sums are made in another order.
        case = {**case, "grad_rtol": 10 * case["grad_rtol"]} if name == "basicvsr" else case
        if "coarse" in case["inputs"]:
            if not os.environ.get("RELUME_SLOW_TESTS"):
                continue  # a minute
            x = F.interpolate(case["inputs"]["coarse"], size=tuple(case["input_size"]), mode="bilinear")
            case = {**case, "inputs": {"x": x.unsqueeze(0)}}
        try:
            assert_same_as_original(case)
        except AssertionError as e:
            raise AssertionError(f"{case['name']} ({case['mode']}): {e}") from e


@pytest.mark.parametrize(
    ("opt", "count"),
    [
        ({"type": "SpyNet"}, 1_440_300),
        ({"type": "BasicVSR", "num_block": 30}, 6_291_311),
        ({"type": "IconVSR", "num_block": 30}, 8_694_991),
        ({"type": "BasicVSRPlusPlus"}, 7_322_927),
        ({"type": "EDVR"}, 3_300_131),
        ({"type": "EDVR", "num_feat": 128, "num_reconstruct_block": 40}, 20_633_827),
    ],
    ids=lambda v: v["type"] if isinstance(v, dict) else "",
)
def test_published_parameter_counts(opt: dict, count: int) -> None:
    with torch.device("meta"):
        network = build_network(opt)
    assert sum(p.numel() for p in network.parameters()) == count


TINY = {
    "BasicVSR": {"num_feat": 4, "num_block": 1},
    "BasicVSRPlusPlus": {"mid_channels": 16, "num_blocks": 1},
    "IconVSR": {"num_feat": 8, "num_block": 1},
}


def moved(opt: dict) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_network(opt)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.02 * torch.randn_like(p))
    return network


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("name", ["BasicVSR", "BasicVSRPlusPlus"])
def test_short_clips_of_small_frames(name: str, frames: int) -> None:
    network = moved({"type": name, **TINY[name]}).eval()
    y = network(torch.rand(1, frames, 3, 17, 33))
    assert y.shape == (1, frames, 3, 68, 132)
    assert y.isfinite().all()


def test_what_cannot_be_run_is_refused() -> None:
    with pytest.raises(UserError, match="a clip of 4 frames; temporal_padding 2 needs 5"):
        build_network({"type": "IconVSR", **TINY["IconVSR"]})(torch.rand(1, 4, 3, 32, 32))
    with pytest.raises(UserError, match="num_frame: 4 frames have none in the middle"):
        build_network({"type": "EDVR", "num_frame": 4})
    with pytest.raises(UserError, match="takes clips"):
        build_network({"type": "BasicVSR", **TINY["BasicVSR"]})(torch.rand(1, 3, 32, 32))
    with pytest.raises(UserError, match="num_frame is 5, and the clip has 3"):
        build_network({"type": "EDVR", "num_feat": 8})(torch.rand(1, 3, 3, 16, 16))


@pytest.mark.parametrize("name", list(TINY))
def test_recomputed_steps_change_nothing(name: str) -> None:
    clip = torch.rand(1, 5, 3, 16, 16)
    gradients = []
    for again in (False, True):
        network = moved({"type": name, **TINY[name], "checkpoint_activations": again})
        network(clip).square().mean().backward()
        gradients.append({k: p.grad for k, p in network.named_parameters()})
    for k, g in gradients[0].items():
        torch.testing.assert_close(g, gradients[1][k], rtol=1e-4, atol=1e-7, msg=k)


@pytest.mark.parametrize("name", ["BasicVSR", "BasicVSRPlusPlus"])
def test_weights_of_mmedit(name: str, tmp_path: Path) -> None:
    network = moved({"type": name, **TINY[name]}).eval()
    theirs = {"step_counter": torch.zeros(1)}
    for k, v in network.state_dict().items():
        k = re.sub(r"^upconv(\d)\.", r"upsample\1.upsample_conv.", k)
        k = re.sub(r"^(back|for)ward_trunk\.", r"\1ward_resblocks.", k)
        k = re.sub(r"(basic_module\.\d\.basic_module)\.(\d)\.", lambda m: f"{m[1]}.{int(m[2]) // 2}.conv.", k)
        theirs[f"generator.{k}"] = v
        theirs[f"generator_ema.{k}"] = v + 1
    torch.save({"state_dict": theirs, "meta": {}}, tmp_path / "basicvsr.pth")
    other = build_network({"type": name, **TINY[name]}).eval()
    load_weights(other, tmp_path / "basicvsr.pth")
    clip = torch.rand(1, 2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(other(clip), network(clip))


def test_features_kept_away_and_reversed_clips_change_nothing() -> None:
    options = {"type": "BasicVSRPlusPlus", **TINY["BasicVSRPlusPlus"]}
    network = moved(options).eval()
    clip = torch.rand(1, 2, 3, 16, 16)
    mirrored = torch.cat([clip, clip.flip(1)], 1)
    with torch.no_grad():
        expected = network(mirrored)
        network.cpu_cache_length = 1
        assert torch.equal(network(mirrored), expected)
        assert torch.allclose(expected[:, :2], expected[:, 2:].flip(1), atol=0.2)
        assert torch.equal(network.flows(mirrored)[0], network.flows(mirrored)[1].flip(1))
        nearly = mirrored.clone()
        nearly[:, -1] += 1e-6
        assert not torch.equal(network.flows(nearly)[0], network.flows(nearly)[1].flip(1))
