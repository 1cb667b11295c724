"""HybridVFI against the original's numbers, part by part and whole; and what it promises besides."""

from __future__ import annotations

import contextlib
import json
import zlib

import numpy as np
import pytest
import reference_hybrid
import torch
import torch.nn.functional as F
from filling import fill, image, waves

from relume.archs import build_network
from relume.archs.vfi.attention import GatedWindowAttention, attend_in_windows, shift_masks
from relume.archs.vfi.blocks import CAB, ECAB, LGSBlock
from relume.archs.vfi.flow import ContextNet, FlowEstimator, IFBlock, RefineNet, backwarp
from relume.archs.vfi.hybrid import HybridVFI, time_map
from relume.archs.vfi.mhc import ParallelStreams, SummedStreams, sinkhorn
from relume.core.errors import UserError

MODELS = ["hybrid", "mamba2_only", "gated_attn_only", "hybrid_mhc", "hybrid_cab", "hybrid_phase2"]


def cases(path):
    """The stored cases, their inputs ready to get gradients (tensors may be shared between cases)."""
    found = torch.load(path, weights_only=True)["cases"]
    for case in found:
        case["input"] = {k: None if v is None else v.clone().requires_grad_() for k, v in case["input"].items()}
    return found


def differ(value, expected, least=1e-3):
    """Largest difference over largest value, or over `least` if that is more: some gradients are sums that cancel."""
    if isinstance(expected, dict):  # a sample of a large gradient, and its norm
        sampled = value.flatten()[:: expected["stride"]]
        norm = abs(float(value.detach().norm()) - expected["l2"]) / max(expected["l2"], least)
        return max(differ(sampled, expected["values"], least), norm)
    difference = (value.detach() - expected).abs().max()
    return float(difference / expected.abs().max().clamp_min(least))


def check_gradients(module, inputs, expected, tolerance, least=1e-3):
    found = {**{k: v.grad for k, v in inputs.items() if v is not None}}
    found |= {k: p.grad for k, p in module.named_parameters()}
    for name, gradient in expected.items():
        assert differ(found[name], gradient, least) < tolerance, name


def procedural(name, shape):
    """The rule by which the stored cases fill weights that they do not store."""
    generator = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    r = torch.from_numpy(generator.standard_normal(shape).astype("float32"))
    leaf = name.split(".")[-1]
    special = {"A_log": torch.log(1 + 15 * torch.sigmoid(r)), "dt_bias": -3 + 0.5 * r, "D": 1 + 0.1 * r}
    if leaf in special:
        return special[leaf]
    if leaf.startswith("H_"):
        return r
    if r.dim() == 1 and leaf == "weight":
        return 1 + 0.1 * r if "norm" in name else 0.25 + 0.05 * r
    return 0.02 * r if r.dim() == 1 else r / (r.numel() / r.shape[0]) ** 0.5


def fill_procedurally(network):
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.copy_(procedural(name, tuple(p.shape)))
    return network


def network_of(case):
    config = {k: v for k, v in case["config"].items() if k not in ("loss", "salt", "weights")}
    network = build_network({"type": "HybridVFI", **config}).eval()
    if case.get("state_dict"):
        network.load_state_dict(case["state_dict"])
        assert list(network.state_dict()) == list(case["state_dict"])
        return network
    return fill_procedurally(network)


# --------------------------------------------------------------------------------------------------- originals: the parts
def test_gated_attention_of_the_original(golden):
    for case in cases(golden("vfi/gated_window_attention.pt")):
        options = {k: v for k, v in case["config"].items() if k != "window_size"}
        attention = GatedWindowAttention(**options)
        attention.load_state_dict(case["state_dict"])
        x = case["input"]["x"]
        mask = case["input"]["mask"]  # of the windows of one image
        y = attention(x, None if mask is None else mask.repeat(len(x) // len(mask), 1, 1)[:, None])
        assert differ(y, case["output"]["y"]) < 1e-6
        y.backward(case["grad_output"]["y"])
        check_gradients(attention, {"input": x}, case["grad"], 1e-5)


def test_channel_attention_of_the_original(golden):
    for case in cases(golden("vfi/ecab_cab.pt")):
        block = (ECAB if case["config"]["kind"] == "ecab" else CAB)(case["config"]["channels"])
        block.load_state_dict(case["state_dict"])
        x = case["input"]["x"]
        y = block(x)
        assert differ(y, case["output"]["y"]) < 1e-6
        y.backward(case["grad_output"]["y"])
        check_gradients(block, {"input": x}, case["grad"], 1e-5)


def test_hyper_connections_of_the_originals(golden):
    for case in cases(golden("vfi/mhc.pt")):
        name, config, given = case["name"], case["config"], case["input"]
        if name.startswith("sinkhorn_knopps"):
            assert differ(sinkhorn(given["log_alpha"], config["iters"], (-2, -1)), case["output"]["H"]) < 1e-6
        elif name.startswith("sinkhorn"):
            H = sinkhorn(given["logits"] / config["tau"], config["num_iters"])
            H.backward(case["grad_output"]["H"])
            assert differ(H, case["output"]["H"]) < 1e-6
            assert differ(given["logits"].grad, case["grad"]["logits"]) < 1e-5
        else:
            module, y = connected(config, case["state_dict"], given)
            assert differ(y, case["output"]["y"]) < 1e-6
            y.backward(case["grad_output"]["y"])
            check_gradients(module, given, case["grad"], 1e-5, least=0.1)  # mixing cancels: some are 0 but for rounding


def connected(config, state, given):
    """A connection with its weights, and its output."""
    if "num_streams" in config:
        legacy = SummedStreams(config["num_streams"], config["layer_index"], config["mhc_num_iters"], config["mhc_tau"])
        legacy.load_state_dict(state)
        return legacy, legacy(list(given.values()), lambda t: 2 * torch.tanh(t))
    count = config["num_residual_streams"]
    module = ParallelStreams(config["dim"], count, config["layer_index"], config["sinkhorn_iters"])
    module.load_state_dict(state)
    x = given["residuals"].unflatten(0, (-1, count)).movedim(1, 2)
    return module, module(x, torch.tanh).movedim(2, 1).flatten(0, 1)


def test_block_of_the_original(golden):
    for case in cases(golden("vfi/lgs_block.pt")):
        config = dict(case["config"])
        size = config.pop("H"), config.pop("W")
        mamba = {k.removeprefix("mamba_"): config.pop(k) for k in list(config) if k.startswith("mamba_")}
        mixing = "legacy" if config.pop("use_mhc", False) else "plain"
        block = LGSBlock(**config, mixing=mixing, mamba=mamba).eval()
        block.load_state_dict(case["state_dict"])
        x = case["input"]["x"]
        y = block(x, *size)
        assert differ(y, case["output"]["y"]) < 1e-6
        y.backward(case["grad_output"]["y"])
        # D has one number per head, a sum of thousands of both signs: what is stored is itself 1e-6 off.
        loose = {k: v for k, v in case["grad"].items() if k == "mamba.D"}
        check_gradients(block, {"input": x}, {k: v for k, v in case["grad"].items() if k not in loose}, 1e-5)
        for expected in loose.values():
            torch.testing.assert_close(block.mamba.D.grad, expected, rtol=1e-4, atol=1e-5)


def test_warp_of_the_original(golden):
    for case in cases(golden("vfi/backwarp.pt")):
        x, flow = case["input"]["x"], case["input"]["flow"]
        y = backwarp(x, flow)
        assert differ(y, case["output"]["y"]) < 1e-6
        y.backward(case["grad_output"]["y"])
        assert differ(x.grad, case["grad"]["x"]) < 1e-5
        assert differ(flow.grad, case["grad"]["flow"]) < 1e-5


def run_flow_part(case):
    """The module that a case of flow_refine.pt is about, and its outputs."""
    name, config, given = case["name"], case["config"], case["input"]
    if name.startswith("ifblock"):
        module = IFBlock(config["in_planes"], config["c"])
    elif name.startswith("estimator"):
        module = FlowEstimator(config["c"])
    else:
        module = ContextNet(config["c"]) if name == "contextnet" else RefineNet(config["c"], 2 * config["use_context"])
    module.load_state_dict(case["state_dict"])
    if name.startswith("ifblock"):
        return module, module(given["x"], given["flow"], config["scale"])
    if name.startswith("estimator"):
        time = torch.full_like(given["img0"][:, :1], config["timestep"])
        return module, module(given["img0"], given["img1"], time)[:2]
    if name == "contextnet":
        return module, module(given["x"], given["flow"])
    pyramids = [
        [given[f"{kind}{level}"] for level in range(3)] for kind in ("feat", "ctx0_", "ctx1_") if f"{kind}0" in given
    ]
    return module, module(pyramids[0], pyramids[1:])


def test_flow_and_synthesis_of_the_original(golden):
    for case in cases(golden("vfi/flow_refine.pt")):
        module, outputs = run_flow_part(case)
        for y, expected in zip(outputs, case["output"].values(), strict=True):
            assert differ(y, expected) < 1e-6, case["name"]
        if "grad" in case:
            sum((y * g).sum() for y, g in zip(outputs, case["grad_output"].values(), strict=True)).backward()
            check_gradients(module, case["input"], case["grad"], 1e-5)


# -------------------------------------------------------------------------------------------------- originals: the whole
@pytest.mark.parametrize("name", MODELS)
def test_model_of_the_original(name, golden):
    for case in cases(golden(f"vfi/model_{name}.pt")):
        network, expected = network_of(case), case["output"]
        assert sum(p.numel() for p in network.parameters()) == case["params"]
        x = case["input"]["x"]
        pred, flow = network(x)
        loss = (pred - case["input"]["gt"]).abs().mean()
        loss.backward()
        assert differ(pred, expected["pred"]) < 2e-5
        assert differ(loss, expected["loss"]) < 1e-5
        assert (flow is None) == ("flow" not in expected)
        if flow is not None:
            assert differ(flow, expected["flow"]) < 1e-5
        check_gradients(network, {"input": x}, case["grad"], 1e-3)
        with torch.no_grad():
            features = network.backbone(x[:, :3], x[:, 3:])
            for i, feature in enumerate(features):
                assert differ(feature, expected[f"feat{i}"]) < 1e-5
            if "pred_t0.25" in expected:
                assert differ(network(x, 0.25)[0], expected["pred_t0.25"]) < 2e-5
        frames = case["input"]["inference"].chunk(2, 1)
        for key, options in {
            "inference": {},
            "inference_fast_tta": {"fast_TTA": True},
            "inference_tta8": {"TTA": True},
        }.items():
            if key in expected:
                assert differ(network.inference(*frames, **options), expected[key]) < 2e-5


@pytest.mark.parametrize("index", range(5))
@torch.no_grad()
def test_full_size_of_the_original(index, golden):
    case = cases(golden("vfi/model_full_procedural.pt"))[index]
    network, expected = network_of(case), case["output"]
    assert sum(p.numel() for p in network.parameters()) == case["params"]
    x = case["input"]["x"]
    pred, flow = network(x)
    assert differ(pred, expected["pred"]) < 5e-5
    if flow is not None:
        assert differ(flow, expected["flow"]) < 1e-5
    features = network.backbone(x[:, :3], x[:, 3:])
    assert differ(features[2].mean((2, 3)), expected["feat2_mean_over_space"]) < 1e-5


def test_parameter_names_and_shapes_of_the_original(golden):
    options = {
        "hybrid": {},
        "hybrid_mhc": {"use_mhc": True},
        "hybrid_cab": {"use_ecab": False},
        "mamba2_only": {"backbone_mode": "mamba2_only"},
        "gated_attn_only": {"backbone_mode": "gated_attn_only"},
        "hybrid_phase2": {"use_flow": True},
    }
    manifest = json.loads(golden("vfi/state_dict_manifest.json").read_text())
    assert sorted(options) == sorted(manifest)
    for name, expected in manifest.items():
        state = HybridVFI(**options[name]).state_dict()
        assert {k: list(v.shape) for k, v in state.items()} == expected["state_dict"]
        assert list(state) == list(expected["state_dict"])
        assert sum(v.numel() for v in state.values()) == expected["params"]


# ------------------------------------------------------------------------------------------------------ without originals
SMALL = {
    "F": 8,
    "window_size": 2,
    "depths": [1, 1, 2],
    "mamba": {"d_state": 8, "headdim": 8},
    "flow_c": [4, 4, 4],
}


def small(**options):
    """A network of few channels and blocks, filled by formulas."""
    return fill(HybridVFI(**{**SMALL, **options})).eval()


FORMS = {
    "hybrid": ({}, (0.5328527, 0.2122278)),
    "mamba2_only": ({"backbone_mode": "mamba2_only"}, (0.4644437, 0.3936397)),
    "gated_attn_only": ({"backbone_mode": "gated_attn_only", "use_ecab": False}, (0.5096931, 0.09919062)),
    "mhc": ({"use_mhc": True}, (0.4717217, 0.4576546)),
    "streams": ({"use_mhc": True, "mhc_form": "streams"}, (0.5541214, 0.3231042)),
    "flow": ({"use_flow": True}, (0.487251, 0.1978046)),
}


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_fingerprint(form):
    options, expected = FORMS[form]
    pred, flow = small(**options)(image("x", 1, 6, 16, 32), 0.3)
    assert [pred.mean().item(), pred.std().item()] == pytest.approx(expected, rel=1e-4)
    assert (flow is not None) == (form == "flow")


@pytest.mark.parametrize("options", [{}, {"use_flow": True}])
@torch.no_grad()
def test_any_size(options):
    network = small(window_size=3, **options)
    x = image("x", 1, 6, 19, 50)
    pred, flow = network(x)
    assert pred.shape == (1, 3, 19, 50)
    assert flow is None or flow.shape == (1, 4, 19, 50)
    assert network.size_multiple == network.least_multiple == (48 if options else 12)
    tiny = image("y", 2, 6, 1, 7)
    assert network(tiny)[0].shape == network.inference(*tiny.chunk(2, 1)).shape == (2, 3, 1, 7)
    assert small().size_multiple == 32


@torch.no_grad()
def test_timestep_may_be_a_number_or_one_per_sample_or_a_map():
    network = small(use_flow=True)
    x = image("x", 2, 6, 16, 24)
    alone = [network(x[i : i + 1], t)[0] for i, t in enumerate((0.25, 0.7))]
    assert not torch.allclose(alone[0], network(x[:1], 0.7)[0], atol=1e-4)
    times = torch.tensor([0.25, 0.7])
    for timestep in (times, times[:, None], times.view(2, 1, 1, 1), times.view(2, 1, 1, 1).expand(2, 1, 16, 24)):
        torch.testing.assert_close(network(x, timestep)[0], torch.cat(alone), rtol=1e-4, atol=1e-5)
    padded = time_map(torch.linspace(0, 1, 6).view(1, 1, 2, 3), torch.zeros(2, 6, 4, 4), 2, 3)
    assert torch.equal(padded[1, 0, 3], torch.tensor([0.6, 0.8, 1.0, 1.0]))


@torch.no_grad()
def test_augmented_inference_is_the_mean_over_symmetries():
    network = small(backbone_mode="gated_attn_only")
    x = image("x", 1, 6, 32, 64)
    turns = []
    for k in range(4):
        for mirror in (False, True):
            seen = torch.rot90(x.flip(3) if mirror else x, k, (2, 3))
            back = torch.rot90(network(seen)[0], -k, (2, 3))
            turns.append(back.flip(3) if mirror else back)
    torch.testing.assert_close(network.inference(*x.chunk(2, 1), TTA=True), torch.stack(turns).mean(0))
    fast = network.inference(*x.chunk(2, 1), fast_TTA=True)
    torch.testing.assert_close(fast, (turns[0] + turns[1]) / 2)


@torch.no_grad()
def test_inference_at_half_size():
    network = small(backbone_mode="gated_attn_only")
    x = image("x", 1, 6, 64, 128)
    half = F.interpolate(x, scale_factor=0.5, mode="bilinear")
    expected = F.interpolate(network(half)[0], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(network.inference(*x.chunk(2, 1), scale=0.5), expected)


def test_shifted_windows_equal_attention_under_one_large_mask():
    """Every pixel of the unshifted image sees those of its window that are its neighbours in the image."""
    size, shift, height, width = 4, 2, 12, 8
    attention = fill(GatedWindowAttention(6, 2)).double()
    x = waves("x", (2, height, width, 6))
    y = attend_in_windows(attention, x, size, shift, shift_masks(size, shift).double())

    def region(n):
        """Window along one axis for every place, with what the shift wraps around in a window of its own."""
        place = torch.arange(n)
        moved = (place - shift) % n
        return moved // size * 2 + ((moved // size == n // size - 1) & (place < shift)).long()

    regions = (region(height)[:, None] * 100 + region(width)).flatten()
    q, k, v = attention.qkv(x.flatten(1, 2)).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=regions[:, None] == regions)
    gated = out.transpose(1, 2) * torch.sigmoid(attention.gate(x.flatten(1, 2)))[..., None]
    torch.testing.assert_close(y, attention.proj(gated.flatten(2)).view_as(y))


def test_backwarp_by_whole_pixels():
    x = image("x", 1, 2, 5, 6)
    flow = torch.zeros(1, 2, 5, 6)
    flow[:, 0], flow[:, 1] = 2, -1
    rows, columns = (torch.arange(5) - 1).clamp(0), (torch.arange(6) + 2).clamp(max=5)
    torch.testing.assert_close(backwarp(x, flow), x[:, :, rows][..., columns])


@torch.no_grad()
def test_legacy_connections_cancel_and_streams_do_not():
    streams = [waves(str(i), (1, 4, 3)).float() for i in range(3)]
    legacy = SummedStreams(3)
    legacy.H_res_logits.mul_(0)
    branch = torch.tanh
    entering = (torch.softmax(legacy.H_pre_logits, -1)[0][:, None, None, None] * torch.stack(streams)).sum(0)
    torch.testing.assert_close(legacy(streams, branch), sum(streams) + branch(entering), rtol=1e-6, atol=1e-6)
    parallel = ParallelStreams(3, 2, first=1)
    x = torch.stack(streams[:2], 2)
    H = sinkhorn(torch.eye(2), 20, (-2, -1))
    entering = torch.sigmoid(torch.tensor(0.0)) * streams[0] + torch.sigmoid(torch.tensor(1.0)) * streams[1]
    expected = H.T @ x + (2 * torch.sigmoid(torch.tensor(1.0)) * branch(entering))[:, :, None]
    torch.testing.assert_close(parallel(x, branch), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("use_mhc", [False, True])
def test_stochastic_depth_drops_branches_and_keeps_the_image(use_mhc):
    torch.manual_seed(0)
    mixing = "legacy" if use_mhc else "plain"
    block = fill(LGSBlock(8, 2, 2, drop_path=0.999, mixing=mixing, mamba={"d_state": 4, "headdim": 8}))
    x = waves("x", (2, 16, 8)).float()
    torch.testing.assert_close(block.train()(x, 4, 4), x, rtol=0, atol=1e-5)
    assert not torch.allclose(block.eval()(x, 4, 4), x, atol=1e-2)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_every_parameter(form):
    torch.manual_seed(0)
    network = HybridVFI(**SMALL, **FORMS[form][0])
    with torch.no_grad():  # dynamic parts of connections start at 0, where their scales have no gradient
        for p in network.parameters():
            p.add_(0.02 * torch.randn_like(p))
    network(image("x", 1, 6, 32, 32))[0].square().mean().backward()
    unreached = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # The original's mixing cancels in the sum of streams: these get a gradient of 0, or what rounding makes of it.
    assert [k for k in unreached if "mhc.H_res" not in k and "mhc.H_post" not in k] == []


def test_scan_stays_in_float32_under_autocast(monkeypatch):
    network = small(backbone_mode="mamba2_only")
    seen = []
    for module in network.modules():
        if isinstance(module, LGSBlock):
            module.mamba.register_forward_hook(lambda m, i, o: seen.append((i[0].dtype, o.dtype)))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        network(image("x", 1, 6, 8, 8))
    assert seen == [(torch.float32, torch.float32)] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": [2, 2]}, "depths needs 3 numbers"),
        ({"num_heads": [2, 5, 8]}, r"num_heads\[1\] is 5"),
        ({"mamba": {"d_sate": 8}}, "Did you mean 'd_state'"),
        ({"F": 24}, "whole heads"),
        ({"F": 8}, "whole heads of headdim 64"),
        ({"flow_c": [8, 8], "use_flow": True}, "flow_c needs 3"),
        ({"backbone_mode": "hybird"}, "Did you mean 'hybrid'"),
        ({"mhc_form": "steams"}, "Did you mean 'streams'"),
        ({"depths": [1, -1, 1]}, "depths must be at least 0"),
        ({"num_heads": [0, 4, 8]}, "num_heads must be at least 1"),
        ({"flow_c": [8, 1, 8], "use_flow": True}, "flow_c must be at least 2"),
        ({"mlp_ratios": [4, 0, 4]}, "expansion factor of 0"),
        ({"mamba": {"d_conv": 0}}, "d_conv must be a whole number"),
        ({"F": 2, "num_heads": [1, 1, 1], "use_ecab": False, "mamba": {"headdim": 4}}, "F of at least 4"),
    ],
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(UserError, match=message) as e:
        build_network({"type": "HybridVFI", **options})
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("options", [{"use_mhc": True}, {"use_mhc": True, "mhc_form": "streams"}, {"use_flow": True}])
def test_double_precision_is_kept_throughout(options):
    """A derivative by central differences, which float32 anywhere would leave with an error of 1e-3."""
    torch.manual_seed(0)
    network = HybridVFI(**SMALL, drop_path=0, **options).double()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    x = image("x", 1, 6, 16, 16).double().requires_grad_()
    direction = torch.randn_like(x)

    def loss(offset):
        return network(x + offset * direction)[0].square().mean()

    (grad,) = torch.autograd.grad(loss(0), x)
    with torch.no_grad():
        slope = (loss(1e-7) - loss(-1e-7)) / 2e-7
    assert abs(float((grad * direction).sum() / slope) - 1) < 1e-5


@pytest.mark.parametrize("shape", [(3,), (2, 1, 8, 8), (2, 3, 1, 1)])
def test_a_timestep_of_another_shape_is_one_line(shape):
    network = small(use_flow=True)
    with pytest.raises(UserError, match=r"timestep must be a number, one for each of 2 samples, or \(2, 1, 13, 7\)"):
        network(image("x", 2, 6, 13, 7), torch.full(shape, 0.5))


def test_the_plain_form_that_it_is_measured_against_is_the_same_network():
    network = small(depths=[1, 2, 0], drop_path=0.0)
    frames = image("x", 1, 6, 32, 32)
    results = []
    for form in (contextlib.nullcontext(), reference_hybrid.plain(chunk=64)):
        with form:
            y = network(frames)[0]
        results.append(
            [y.detach(), *torch.autograd.grad(y.square().sum(), network.backbone.parameters(), allow_unused=True)]
        )
    for mine, plain in zip(*results, strict=True):
        assert mine is plain is None or differ(mine, plain) < 2e-5
