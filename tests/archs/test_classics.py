"""The small classics against formulas written on their state dicts, against the published parameter counts, and their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from filling import fill, image, waves
from torch import Tensor

from relume.archs import build_network
from relume.core.errors import UserError

Formula = Callable[[dict[str, Tensor], Tensor], Tensor]


def conv(s: dict[str, Tensor], name: str, x: Tensor, **kwargs: Any) -> Tensor:
    weight = s[f"{name}.weight"]
    kwargs.setdefault("padding", weight.shape[-1] // 2)
    return F.conv2d(x, weight, s.get(f"{name}.bias"), **kwargs)


def leaky(x: Tensor, slope: float) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def shuffle(x: Tensor, r: int) -> Tensor:
    b, c, h, w = x.shape
    return x.reshape(b, c // r**2, r, r, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // r**2, h * r, w * r)


def repeat(x: Tensor, r: int) -> Tensor:
    return x.repeat_interleave(r, 2).repeat_interleave(r, 3)


def residual_body(s: dict[str, Tensor], x: Tensor, blocks: int, scale: float) -> Tensor:
    for i in range(blocks):
        x = x + scale * conv(s, f"body.{i}.conv2", conv(s, f"body.{i}.conv1", x).clamp_min(0))
    return x


def msrresnet(s: dict[str, Tensor], x: Tensor, upscale: int) -> Tensor:
    y = residual_body(s, leaky(conv(s, "conv_first", x), 0.1), 2, 1.0)
    for name in ("upconv1", "upconv2") if upscale == 4 else ("upconv1",):
        y = leaky(shuffle(conv(s, name, y), 2 if upscale == 4 else upscale), 0.1)
    y = conv(s, "conv_last", leaky(conv(s, "conv_hr", y), 0.1))
    return y + F.interpolate(x, scale_factor=upscale, mode="bilinear", align_corners=False)


def edsr(s: dict[str, Tensor], x: Tensor, upscale: int) -> Tensor:
    mean = torch.tensor([0.4, 0.5, 0.3], dtype=torch.float32).double().reshape(1, 3, 1, 1)
    first = conv(s, "conv_first", (x - mean) * 10)
    y = first + conv(s, "conv_after_body", residual_body(s, first, 2, 0.5))
    for i in range({1: 0, 2: 1, 3: 1, 4: 2}[upscale]):
        y = shuffle(conv(s, f"upsample.{2 * i}", y), 3 if upscale == 3 else 2)
    return conv(s, "conv_last", y) / 10 + mean


def rcan(s: dict[str, Tensor], x: Tensor) -> Tensor:
    mean = torch.tensor([0.4, 0.5, 0.3], dtype=torch.float32).double().reshape(1, 3, 1, 1)
    y = first = conv(s, "conv_first", (x - mean) * 10)
    for g in range(2):
        outer = y
        for b in range(2):
            name = f"body.{g}.residual_group.{b}.rcab"
            z = conv(s, f"{name}.2", conv(s, f"{name}.0", y).clamp_min(0))
            inner = conv(s, f"{name}.3.attention.1", z.mean((2, 3), keepdim=True)).clamp_min(0)
            y = y + 0.5 * z * torch.sigmoid(conv(s, f"{name}.3.attention.3", inner))
        y = outer + conv(s, f"body.{g}.conv", y)
    y = shuffle(conv(s, "upsample.0", first + conv(s, "conv_after_body", y)), 3)
    return conv(s, "conv_last", y) / 10 + mean


def rrdbnet(s: dict[str, Tensor], x: Tensor, scale: int) -> Tensor:
    r = {1: 4, 2: 2, 4: 1}[scale]
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // r, r, w // r, r).permute(0, 1, 3, 5, 2, 4).reshape(b, c * r * r, h // r, w // r)
    y = first = conv(s, "conv_first", x)
    for i in range(2):
        outer = y
        for j in (1, 2, 3):
            seen = [y]
            for k in (1, 2, 3, 4):
                seen.append(leaky(conv(s, f"body.{i}.rdb{j}.conv{k}", torch.cat(seen, 1)), 0.2))
            y = y + 0.2 * conv(s, f"body.{i}.rdb{j}.conv5", torch.cat(seen, 1))
        y = outer + 0.2 * y
    y = first + conv(s, "conv_body", y)
    for name in ("conv_up1", "conv_up2"):
        y = leaky(conv(s, name, repeat(y, 2)), 0.2)
    return conv(s, "conv_last", leaky(conv(s, "conv_hr", y), 0.2))


def srvgg(s: dict[str, Tensor], x: Tensor, act: str) -> Tensor:
    y = x
    for i in range(0, 6, 2):
        y = conv(s, f"body.{i}", y)
        if act == "prelu":
            y = torch.where(y > 0, y, s[f"body.{i + 1}.weight"][:, None, None] * y)
        else:
            y = leaky(y, {"relu": 0.0, "leakyrelu": 0.1}[act])
    return shuffle(conv(s, "body.6", y), 3) + repeat(x, 3)


def naf_block(s: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    def norm(i: int, x: Tensor) -> Tensor:
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        return x * s[f"{name}.norm{i}.weight"][:, None, None] + s[f"{name}.norm{i}.bias"][:, None, None]

    def gate(x: Tensor) -> Tensor:
        return x[:, : x.shape[1] // 2] * x[:, x.shape[1] // 2 :]

    y = conv(s, f"{name}.conv1", norm(1, x))
    y = gate(conv(s, f"{name}.conv2", y, groups=y.shape[1]))
    y = y * conv(s, f"{name}.sca.1", y.mean((2, 3), keepdim=True))
    x = x + s[f"{name}.beta"] * conv(s, f"{name}.conv3", y)
    return x + s[f"{name}.gamma"] * conv(s, f"{name}.conv5", gate(conv(s, f"{name}.conv4", norm(2, x))))


def nafnet(s: dict[str, Tensor], x: Tensor) -> Tensor:
    h, w = x.shape[-2:]
    x = F.pad(x, (0, -w % 4, 0, -h % 4))
    e0 = naf_block(s, "encoders.0.0", conv(s, "intro", x))
    e1 = conv(s, "downs.0", e0, stride=2, padding=0)
    for i in range(2):
        e1 = naf_block(s, f"encoders.1.{i}", e1)
    y = naf_block(s, "middle_blks.0", conv(s, "downs.1", e1, stride=2, padding=0))
    y = naf_block(s, "decoders.0.0", shuffle(conv(s, "ups.0.0", y), 2) + e1)
    y = naf_block(s, "decoders.1.0", shuffle(conv(s, "ups.1.0", y), 2) + e0)
    return (x + conv(s, "ending", y))[..., :h, :w]


EDSR = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 6, "num_block": 2, "res_scale": 0.5, "img_range": 10.0}
RRDB = {"num_in_ch": 3, "num_out_ch": 2, "num_feat": 6, "num_block": 2, "num_grow_ch": 4}
NAF = {"width": 4, "middle_blk_num": 1, "enc_blk_nums": [1, 2], "dec_blk_nums": [1, 1]}
CASES: list[tuple[dict[str, Any], Formula]] = [
    *[
        ({"type": "MSRResNet", "num_feat": 6, "num_block": 2, "upscale": r}, lambda s, x, r=r: msrresnet(s, x, r))
        for r in (2, 3, 4)
    ],
    *[
        ({"type": "EDSR", **EDSR, "upscale": r, "rgb_mean": [0.4, 0.5, 0.3]}, lambda s, x, r=r: edsr(s, x, r))
        for r in (1, 2, 3, 4)
    ],
    *[({"type": "RRDBNet", **RRDB, "scale": r}, lambda s, x, r=r: rrdbnet(s, x, r)) for r in (1, 2, 4)],
    *[
        (
            {"type": "SRVGGNetCompact", "num_feat": 6, "num_conv": 2, "upscale": 3, "act_type": a},
            lambda s, x, a=a: srvgg(s, x, a),
        )
        for a in ("relu", "prelu", "leakyrelu")
    ],
    ({"type": "NAFNet", **NAF}, nafnet),
    (
        {
            "type": "RCAN",
            **{"num_in_ch": 3, "num_out_ch": 3, "num_feat": 6, "num_group": 2, "num_block": 2, "squeeze_factor": 2},
            **{"upscale": 3, "res_scale": 0.5, "img_range": 10.0, "rgb_mean": [0.4, 0.5, 0.3]},
        },
        rcan,
    ),
]


@pytest.mark.parametrize(("opt", "formula"), CASES, ids=lambda v: v["type"] if isinstance(v, dict) else "")
def test_equals_the_formula_in_value_and_gradient(opt: dict[str, Any], formula: Formula) -> None:
    network = fill(build_network(opt)).double()
    size = (8, 12) if opt["type"] != "NAFNet" else (7, 10)
    x = image("x", 2, 3, *size).double().requires_grad_()
    ours = network(x)
    weight = waves("cotangent", tuple(ours.shape))
    grads = torch.autograd.grad((ours * weight).sum(), [x, *network.parameters()])

    state = {k: v.detach().clone().requires_grad_() for k, v in network.state_dict().items()}
    theirs = formula(state, x)
    expected = torch.autograd.grad((theirs * weight).sum(), [x, *(state[k] for k, _ in network.named_parameters())])
    assert ours.std() > 0.03
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    for name, a, b in zip(["x", *state], grads, expected, strict=True):
        assert b.abs().max() > 0, name
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize(
    ("opt", "count"),
    [
        ({"type": "MSRResNet"}, 1_517_571),  # "1.5 M", BasicSR's model zoo
        ({"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3}, 1_517_571),
        ({"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 256, "num_block": 32}, 43_089_923),  # 43 M
        ({"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3}, 16_697_987),  # 16.70 M
        ({"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "scale": 2}, 16_703_171),
        ({"type": "SRVGGNetCompact", "num_conv": 32}, 1_213_296),  # 1.21 M
        (
            {"type": "NAFNet", "width": 32, "enc_blk_nums": [1, 1, 1, 28], "dec_blk_nums": [1, 1, 1, 1]},
            17_111_907,  # 17.1 M, GoPro, width 32
        ),
        (
            {
                "type": "NAFNet",
                "width": 32,
                "middle_blk_num": 12,
                "enc_blk_nums": [2, 2, 4, 8],
                "dec_blk_nums": [2] * 4,
            },
            29_159_715,  # 29.16 M, SIDD, width 32
        ),
    ],
)
def test_published_parameter_counts(opt: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        network = build_network(opt)
    assert sum(p.numel() for p in network.parameters()) == count


NAF_BLOCK = [
    *["beta", "gamma", "norm1.weight", "norm1.bias", "conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"],
    *["sca.1.weight", "sca.1.bias", "conv3.weight", "conv3.bias", "norm2.weight", "norm2.bias"],
    *["conv4.weight", "conv4.bias", "conv5.weight", "conv5.bias"],
]


def both(*names: str) -> set[str]:
    """Weight and bias of each."""
    return {f"{n}.{kind}" for n in names for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("opt", "names"),
    [
        (
            {"type": "MSRResNet", "num_feat": 4, "num_block": 1},
            both("conv_first", "body.0.conv1", "body.0.conv2", "upconv1", "upconv2", "conv_hr", "conv_last"),
        ),
        (
            {"type": "MSRResNet", "num_feat": 4, "num_block": 1, "upscale": 3},
            both("conv_first", "body.0.conv1", "body.0.conv2", "upconv1", "conv_hr", "conv_last"),
        ),
        (
            {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1},
            both(
                *[
                    "conv_first",
                    "body.0.conv1",
                    "body.0.conv2",
                    "conv_after_body",
                    "upsample.0",
                    "upsample.2",
                    "conv_last",
                ]
            ),
        ),
        (
            {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "num_grow_ch": 2},
            both(
                *["conv_first", "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"],
                *[f"body.0.rdb{j}.conv{k}" for j in (1, 2, 3) for k in (1, 2, 3, 4, 5)],
            ),
        ),
        (
            {"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1},
            both("body.0", "body.2", "body.4") | {"body.1.weight", "body.3.weight"},
        ),
        (
            {"type": "NAFNet", "width": 4, "enc_blk_nums": [1], "dec_blk_nums": [1]},
            both("intro", "ending", "downs.0")
            | {"ups.0.0.weight"}
            | {f"{part}.{n}" for part in ("encoders.0.0", "middle_blks.0", "decoders.0.0") for n in NAF_BLOCK},
        ),
    ],
    ids=lambda v: v["type"] if isinstance(v, dict) else "",
)
def test_state_dict_has_the_public_names(opt: dict[str, Any], names: set[str]) -> None:
    assert set(build_network(opt).state_dict()) == names


FINGERPRINTS = {
    "MSRResNet": ({"num_feat": 8, "num_block": 2}, [0.35194, 0.42359, 0.54055, 0.47181, 0.20281]),
    "EDSR": (
        {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2},
        [0.44788, 0.41838, 0.40738, 0.42985, 0.05046],
    ),
    "RRDBNet": (
        {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "num_grow_ch": 4},
        [-0.00247, 0.00558, -0.01901, -0.02831, 0.10406],
    ),
    "SRVGGNetCompact": ({"num_feat": 8, "num_conv": 2}, [0.24251, 0.21579, 0.60506, 0.5004, 0.33046]),
    "NAFNet": (NAF, [-0.77979, 0.76473, 0.23554, 0.48539, 1.07074]),
}


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_fingerprint(name: str) -> None:
    arguments, expected = FINGERPRINTS[name]
    with torch.no_grad():
        y = fill(build_network({"type": name, **arguments}))(image("x", 1, 3, 8, 12))
    found = [y[0, 0, 1, 2], y[0, 1, 5, 7], y[0, 2, -1, -1], y.mean(), y.std()]
    torch.testing.assert_close(torch.stack(found), torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_residual_branches_start_at_a_tenth_of_he_normal() -> None:
    torch.manual_seed(0)
    for opt, name in (
        ({"type": "MSRResNet", "num_block": 1}, "body.0.conv1"),
        ({"type": "MSRResNet", "num_block": 1}, "upconv2"),
        ({"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_block": 1}, "body.0.rdb2.conv4"),
    ):
        layer = build_network(opt).get_submodule(name)
        assert layer.weight.std().item() == pytest.approx(0.1 * (2 / (layer.in_channels * 9)) ** 0.5, rel=0.03)
        assert not layer.bias.any()


def test_a_fresh_naf_block_is_the_identity() -> None:
    torch.manual_seed(0)
    network = build_network({"type": "NAFNet", **NAF})
    x = image("x", 1, 4, 6, 6)  # NAF's first stage is 4 channels wide
    assert torch.equal(network.encoders[0](x), x)


@pytest.mark.parametrize(
    ("opt", "complaint"),
    [
        ({"type": "MSRResNet", "upscale": 5}, "upscale is 5"),
        ({"type": "MSRResNet", "num_in_ch": 3, "num_out_ch": 1}, r"must be num_out_ch \(1\) or 1"),
        ({"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "upscale": 6}, "3 or a power of two"),
        ({"type": "EDSR", "num_in_ch": 1, "num_out_ch": 1}, "rgb_mean has 3 values"),
        ({"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "scale": 3}, "scale is 3"),
        ({"type": "SRVGGNetCompact", "act_type": "gelu"}, "relu, prelu or leakyrelu"),
        ({"type": "NAFNet", "enc_blk_nums": [1, 1], "dec_blk_nums": [1]}, "enc_blk_nums has 2 stages, dec_blk_nums 1"),
    ],
)
def test_impossible_settings_are_refused(opt: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        build_network(opt)
