"""Networks that option files of forks name, against their formulas, and against numbers that the originals gave.

`PINS` were computed by the originals' code (BasicSR 1.4.2; SRFormer's as spandrel_extra_arches 0.2.0 has it) with the weights
and images of `filling`: what the output and the gradient of the input are, each summed against waves.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from filling import fill, image, waves
from torch import Tensor

from relume.archs import build_network
from relume.archs.drsformer import FeatureCompensator, MixedScaleFeedForward, SparseAttention
from relume.core.errors import UserError

SRFORMER = {"type": "SRFormer", "embed_dim": 8, "mlp_ratio": 2, "window_size": 8, "drop_path_rate": 0.0}
PINNED: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "ecbsr": (
        {
            **{"type": "ECBSR", "num_in_ch": 3, "num_out_ch": 3, "num_block": 1, "num_channel": 4, "with_idt": True},
            **{"act_type": "prelu", "scale": 3},
        },
        (2, 3, 9, 12),
    ),
    "ecbsr y": (
        {
            **{"type": "ECBSR", "num_in_ch": 1, "num_out_ch": 1, "num_block": 1, "num_channel": 4, "with_idt": False},
            **{"act_type": "softplus", "scale": 2},
        },
        (2, 1, 9, 12),
    ),
    "ridnet": (
        {
            **{"type": "RIDNet", "in_channels": 3, "mid_channels": 16, "out_channels": 3, "num_block": 1},
            **{"img_range": 1.0, "rgb_std": [0.5, 1.0, 2.0]},
        },
        (2, 3, 9, 12),
    ),
    "duf": ({"type": "DUF", "num_layer": 16, "scale": 2}, (1, 7, 3, 4, 6)),
    "duf official": ({"type": "DUF", "num_layer": 16, "adapt_official_weights": True}, (1, 7, 3, 4, 6)),
    "toflow": ({"type": "TOFlow"}, (1, 7, 3, 16, 16)),
    "toflow official": ({"type": "TOFlow", "adapt_official_weights": True}, (1, 7, 3, 16, 16)),
    "srformer": (
        {
            **SRFORMER,
            **{"img_size": 20, "depths": [2, 1], "num_heads": [2, 4], "upscale": 2, "upsampler": "pixelshuffle"},
        },
        (2, 3, 13, 21),
    ),
    "srformer light": (
        {
            **SRFORMER,
            **{"depths": [2], "num_heads": [2], "upscale": 3, "upsampler": "pixelshuffledirect"},
            **{"resi_connection": "3conv", "in_chans": 1, "img_range": 255.0, "img_size": 16},
        },
        (1, 1, 16, 16),
    ),
    "srformer one window": (
        {
            **SRFORMER,
            **{"img_size": 8, "depths": [2], "num_heads": [2], "upscale": 4, "upsampler": "nearest+conv"},
            **{"patch_norm": False, "qkv_bias": False},
        },
        (1, 3, 8, 16),
    ),
}
PINS: dict[str, tuple[float, float]] = {
    "ecbsr": (-3045.280932208861, -4581.251008892497),
    "ecbsr y": (-3.530883409810592, -66.98351990753636),
    "ridnet": (-90.67772094578334, 111.36790362403745),
    "duf": (0.9248667848484908, 0.7858845407327462),
    "duf official": (-7.463190323819889, 0.16891409764785503),
    "toflow": (-172.30891697501195, -173.31414338398397),
    "toflow official": (-172.25586654928102, -164.06071699687422),
    "srformer": (-0.004626705161579092, 0.5169066084512551),
    "srformer light": (-6.0996295312576425, -6.90748628713539),
    "srformer one window": (-0.6213868870268192, -0.1067667994405671),
}


def summed(network: torch.nn.Module, shape: tuple[int, ...]) -> tuple[float, float]:
    """What the output is, summed against waves, and the gradient of that with respect to the input, likewise."""
    x = image("x", *shape).double().requires_grad_()
    y = network.double()(x)
    total = (y * waves("y", tuple(y.shape))).sum()
    (gradient,) = torch.autograd.grad(total, x)
    return total.item(), (gradient * waves("g", shape)).sum().item()


@pytest.mark.parametrize("name", PINNED)
def test_equals_the_original(name: str) -> None:
    opt, shape = PINNED[name]
    assert summed(fill(build_network(opt)).eval(), shape) == pytest.approx(PINS[name], rel=1e-6)


@pytest.mark.parametrize(
    ("opt", "count"),
    [
        ({"type": "DRSformer"}, 33.65e6),  # 33.7 M
        ({"type": "DUF"}, 5.82e6),
        ({"type": "TOFlow"}, 1.41e6),
    ],
    ids=lambda v: v["type"] if isinstance(v, dict) else "",
)
def test_parameter_counts(opt: dict, count: float) -> None:
    with torch.device("meta"):
        network = build_network(opt)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(count, rel=0.01)


def sparse_attention(s: dict[str, Tensor], x: Tensor, heads: int) -> Tensor:
    """One row of scores after the other, sorted."""
    y = F.conv2d(F.conv2d(x, s["qkv.weight"]), s["qkv_dwconv.weight"], padding=1, groups=3 * x.shape[1])
    width = x.shape[1] // heads
    out = torch.zeros_like(x)
    for b in range(len(x)):
        for h in range(heads):
            q, k, v = (y[b, i * x.shape[1] + h * width :][:width].flatten(1) for i in range(3))
            q, k = q / q.norm(dim=1, keepdim=True), k / k.norm(dim=1, keepdim=True)
            for c in range(width):
                scores = (k @ q[c]) * s["temperature"][h, 0, 0]
                for name, keep in (("attn1", width // 2), ("attn2", 2 * width // 3), ("attn3", 3 * width // 4)):
                    out[b, h * width + c] += s[name] * kept(scores, v, keep).view(x.shape[2:])
                out[b, h * width + c] += s["attn4"] * kept(scores, v, 4 * width // 5).view(x.shape[2:])
    return F.conv2d(out, s["project_out.weight"])


def kept(scores: Tensor, values: Tensor, count: int) -> Tensor:
    best = scores.sort(descending=True).indices[:count]
    weights = scores[best].exp()
    return (weights / weights.sum()) @ values[best]


def compensator(s: dict[str, Tensor], x: Tensor) -> Tensor:
    hidden = F.relu(x.mean((2, 3)) @ s["layers.0.ca_fc.0.weight"].T + s["layers.0.ca_fc.0.bias"])
    weights = (hidden @ s["layers.0.ca_fc.2.weight"].T + s["layers.0.ca_fc.2.bias"]).view(-1, 4, 8).softmax(-1)
    y = F.relu(F.conv2d(x, s["layers.1.preprocess.op.0.weight"]))
    for step in range(4):
        parts = []
        for j, (kernel, dilation) in enumerate(((1, 1), (3, 1), (5, 1), (7, 1), (3, 2), (5, 2), (7, 2))):
            name, z = f"layers.1._ops.{step}._ops.{j}.op", y
            for first in (0, 3) if dilation == 1 else (0,):
                z = F.relu(z) if first else z
                padding, groups = dilation * (kernel // 2), z.shape[1]
                z = F.conv2d(z, s[f"{name}.{first}.weight"], None, 1, padding, dilation, groups)
                z = F.conv2d(z, s[f"{name}.{first + 1}.weight"])
            parts.append(z * weights[:, step, j, None, None, None])
        ones = F.avg_pool2d(F.pad(torch.ones_like(y), [1] * 4), 3, 1)
        parts.append(F.avg_pool2d(F.pad(y, [1] * 4), 3, 1) / ones * weights[:, step, 7, None, None, None])
        y = F.relu(F.relu(F.conv2d(torch.cat(parts, 1), s[f"layers.1._ops.{step}._out.0.weight"])) + y)
    return y


def mixed_scales(s: dict[str, Tensor], x: Tensor) -> Tensor:
    x = F.conv2d(x, s["project_in.weight"])
    n = x.shape[1] // 2
    fine = F.relu(F.conv2d(x, s["dwconv3x3.weight"], padding=1, groups=2 * n))
    coarse = F.relu(F.conv2d(x, s["dwconv5x5.weight"], padding=2, groups=2 * n))
    a = F.relu(F.conv2d(torch.cat([fine[:, :n], coarse[:, :n]], 1), s["dwconv3x3_1.weight"], padding=1, groups=n))
    b = F.relu(F.conv2d(torch.cat([fine[:, n:], coarse[:, n:]], 1), s["dwconv5x5_1.weight"], padding=2, groups=n))
    return F.conv2d(torch.cat([a, b], 1), s["project_out.weight"])


@pytest.mark.parametrize(
    ("block", "formula"),
    [
        (lambda: SparseAttention(12, 2, False), lambda s, x: sparse_attention(s, x, 2)),
        (lambda: MixedScaleFeedForward(12, 1.5, False), mixed_scales),
        (lambda: FeatureCompensator(12), compensator),
    ],
    ids=["attention", "feed-forward", "experts"],
)
def test_drsformers_parts_equal_their_formulas(block: Any, formula: Any) -> None:
    network = fill(block()).double()
    x = image("x", 2, 12, 4, 6).double().requires_grad_()
    cotangent = waves("y", tuple(x.shape))
    state = {k: v.detach().clone().requires_grad_() for k, v in network.named_parameters()}
    for found, expected in zip(
        torch.autograd.grad((network(x) * cotangent).sum(), [x, *network.parameters()]),
        torch.autograd.grad((formula(state, x) * cotangent).sum(), [x, *state.values()]),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(network(x), formula(state, x), rtol=1e-10, atol=1e-12)


def test_ecbsr_sees_the_first_ones_bias_beyond_the_border() -> None:
    """The five branches one by one, as equation 3 has them, against the one convolution that they are added up to."""
    opt = PINNED["ecbsr"][0]
    block = fill(build_network(opt)).double().backbone[1]  # type: ignore[index, union-attr]
    s = {k: v.double() for k, v in block.state_dict().items()}
    x = image("x", 1, 4, 5, 6).double()
    y = F.conv2d(x, s["conv3x3.weight"], s["conv3x3.bias"], padding=1) + x
    for name in ("conv1x1_3x3", "conv1x1_sbx", "conv1x1_sby", "conv1x1_lpl"):
        inner = F.conv2d(x, s[f"{name}.k0"])
        inner = F.pad(inner, [1] * 4) + s[f"{name}.b0"][:, None, None]
        if name == "conv1x1_3x3":
            y = y + F.conv2d(inner, s[f"{name}.k1"], s[f"{name}.b1"])
        else:
            kernel = s[f"{name}.scale"] * s[f"{name}.mask"]
            y = y + F.conv2d(inner, kernel, s[f"{name}.bias"], groups=4)
    torch.testing.assert_close(block(x), F.prelu(y, s["act.weight"]))


def test_weights_of_another_img_size_load() -> None:
    """The original keeps masks for images of one size among its weights."""
    opt = {**SRFORMER, "depths": [2], "num_heads": [2], "upscale": 1}
    for before, after in ((16, 24), (8, 16), (16, 8)):
        first, second = (build_network({**opt, "img_size": size}).eval() for size in (before, after))
        second.load_state_dict(first.state_dict(), strict=True)
        assert torch.equal(second.state_dict()["conv_first.weight"], first.state_dict()["conv_first.weight"])
    assert "layers.0.residual_group.blocks.1.attn_mask" in build_network({**opt, "img_size": 24}).state_dict()


@pytest.mark.parametrize(
    ("opt", "complaint"),
    [
        ({**SRFORMER, "window_size": 7}, "window_size must be even"),
        ({**SRFORMER, "embed_dim": 10, "num_heads": [2] * 4}, "embed_dim must be a multiple of 4"),
        ({**SRFORMER, "num_heads": [2]}, "depths has 4 groups, num_heads 1"),
        ({**SRFORMER, "num_heads": [3] * 4}, "must divide embed_dim 8"),
        ({**PINNED["ecbsr"][0], "num_out_ch": 4}, "num_in_ch is 3"),
        ({**PINNED["ridnet"][0], "in_channels": 1}, "three channels"),
        ({"type": "DUF", "num_layer": 20}, "must be one of 16, 28, 52"),
        ({"type": "DRSformer", "dim": 4, "heads": [4, 2, 2, 2]}, "two channels at least"),
        ({"type": "DRSformer", "inp_channels": 1}, "must be out_channels"),
    ],
)
def test_impossible_settings_are_refused(opt: dict, complaint: str) -> None:
    opt = {"upscale": 1, **opt} if opt["type"] == "SRFormer" else opt
    with pytest.raises(UserError, match=complaint):
        build_network(opt)
