"""archs/blocks.py: every block against the formula it stands for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from filling import fill, image, waves
from torch import Tensor, nn

from relume.archs.blocks import (
    ChannelLayerNorm,
    GatedFeedForward,
    adaptive_kernel,
    conv3x3,
    fourier_magnitudes,
    fused_upsample,
    pad_to,
    pointwise,
    spread,
    xavier_init,
)


@pytest.mark.parametrize("size", [(8, 16), (9, 15), (33, 41)])
def test_pad_to_mirrors(size: tuple[int, int]) -> None:
    x = image("x", 1, 2, *size)
    y = pad_to(x, 8)
    assert y.shape[-2] % 8 == y.shape[-1] % 8 == 0
    assert y.shape[-2] - size[0] < 8
    assert y.shape[-1] - size[1] < 8
    assert torch.equal(y[..., : size[0], : size[1]], x)
    if size[0] % 8:
        assert torch.equal(y[..., size[0], : size[1]], x[..., size[0] - 2, :])
    if size == (8, 16):
        assert y is x


def test_pad_to_repeats_the_edge_of_what_is_too_small_to_be_mirrored() -> None:
    x = image("x", 1, 1, 3, 20)
    y = pad_to(x, 8)
    assert y.shape == (1, 1, 8, 24)
    assert torch.equal(y[..., 3:, :20], x[..., 2:, :].expand(1, 1, 5, 20))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_channel_layer_norm(layout: torch.memory_format) -> None:
    x = waves("x", (2, 6, 3, 4)).contiguous(memory_format=layout)
    norm = fill(ChannelLayerNorm(6).double())
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    scaled = norm.weight[:, None, None] / torch.sqrt(variance + 1e-5)
    torch.testing.assert_close(norm(x), (x - mean) * scaled + norm.bias[:, None, None])
    bias_free = ChannelLayerNorm(6, bias=False).double()
    assert [name for name, _ in bias_free.named_parameters()] == ["weight"]
    bias_free.weight = norm.weight
    torch.testing.assert_close(bias_free(x), x * scaled)


def test_channel_layer_norm_keeps_halves_and_sums_in_float32() -> None:
    x = waves("x", (1, 64, 2, 2)).float() * 100
    y = ChannelLayerNorm(64)(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, ChannelLayerNorm(64)(x.bfloat16().float()).bfloat16())


@pytest.mark.parametrize("bias", [False, True])
def test_gated_feed_forward(bias: bool) -> None:
    block = fill(GatedFeedForward(3, 2.66, bias)).double()
    assert block.project_out.in_channels == 7
    x = waves("x", (2, 3, 5, 4))
    a, b = block.dwconv(block.project_in(x)).chunk(2, 1)
    torch.testing.assert_close(block(x), block.project_out(F.gelu(a) * b))


def test_adaptive_kernel() -> None:
    sizes = {c: adaptive_kernel(c) for c in (3, 4, 16, 32, 48, 64, 96, 128, 192, 256, 512)}
    assert sizes == {3: 1, 4: 1, 16: 3, 32: 3, 48: 3, 64: 3, 96: 3, 128: 5, 192: 5, 256: 5, 512: 5}


def zero_insertion(x: Tensor) -> Tensor:
    y = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    y[..., ::2, ::2] = x
    return y


@pytest.mark.parametrize("bias", [False, True])
def test_spread_and_fused_upsample(bias: bool) -> None:
    x, sparse = (waves(n, (2, 6, 3, 4)).requires_grad_() for n in "xs")
    post, spatial, fusion = (
        fill(conv).double() for conv in (pointwise(6, 3, bias), conv3x3(6, 20, bias), pointwise(8, 7, bias))
    )
    from_spectrum = post(zero_insertion(sparse))
    torch.testing.assert_close(spread(sparse, post), from_spectrum)
    expected = fusion(torch.cat((from_spectrum, F.pixel_shuffle(spatial(x), 2)), 1))
    found = fused_upsample(x, sparse, post, spatial, fusion)
    torch.testing.assert_close(found, expected)
    weights = [p for conv in (post, spatial, fusion) for p in conv.parameters()]
    direction = waves("d", tuple(expected.shape))
    for a, b in zip(
        torch.autograd.grad(found, [x, sparse, *weights], direction),
        torch.autograd.grad(expected, [x, sparse, *weights], direction),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("bias", [False, True])
def test_fourier_magnitudes_are_what_a_tiled_spectrum_gives(bias: bool) -> None:
    x = waves("x", (1, 3, 6, 8))
    convs = nn.ModuleList(fill(pointwise(3, 3, bias)).double() for _ in range(4))
    for conv in convs:
        conv.weight.data += 0.3 * torch.eye(3)[:, :, None, None]
    f = torch.fft.fft2(x)
    a = convs[1](F.leaky_relu(convs[0](f.abs()), 0.1)).tile(1, 1, 2, 2)
    p = convs[3](F.leaky_relu(convs[2](f.angle()), 0.1)).tile(1, 1, 2, 2)
    tiled = torch.fft.ifft2(a * torch.exp(1j * p)).abs()
    found = zero_insertion(fourier_magnitudes(x, (convs[0], convs[1]), (convs[2], convs[3]), snap=False))
    torch.testing.assert_close(found, tiled)


def test_xavier_init() -> None:
    network = nn.Sequential(conv3x3(16, 32, bias=True), ChannelLayerNorm(32))
    xavier_init(network)
    bound = (6 / (9 * (16 + 32))) ** 0.5
    weight = network[0].weight
    assert bound * 0.98 < weight.abs().max() <= bound
    assert not network[0].bias.any()
    assert network[1].weight.eq(1).all()
