"""core/ops/pixelwise.py: the fused functions equal the operations that they stand for, in value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from filling import waves
from torch import Tensor
from torch.autograd import gradcheck

from relume.core.ops.channel_attention import (
    cross_attention,
    self_attention,
    self_attention_and_map,
    softmax_by_head,
)
from relume.core.ops.pixelwise import (
    channels,
    expand_depthwise,
    gated_feed_forward,
    linear,
    pixels,
)

B, H, W, C = 2, 3, 4, 6


def numbers(name: str, *shape: int) -> Tensor:
    return waves(name, shape).requires_grad_()


def conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """1 x 1 convolution of planes, one matrix and offset for all images or one each."""
    weight = weight.expand(len(x), -1, -1)
    y = torch.einsum("boc,bchw->bohw", weight, x)
    return y if bias is None else y + bias.expand(len(x), -1)[:, :, None, None]


def depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2, groups=len(kernel))


def plain_attention(q: Tensor, k: Tensor, temperature: Tensor) -> Tensor:
    """Restormer's attention matrices from planes: (B, heads, d, d)."""
    heads = temperature.numel()
    q, k = (F.normalize(t.flatten(2).unflatten(1, (heads, -1)), dim=-1) for t in (q, k))
    return (q @ k.transpose(-2, -1) * temperature.reshape(heads, 1, 1)).softmax(-1)


def attend(attention: Tensor, v: Tensor) -> Tensor:
    heads = attention.shape[1]
    return (attention @ v.flatten(2).unflatten(1, (heads, -1))).reshape(v.shape)


def test_pixels_and_channels_are_views_of_channels_last_images() -> None:
    x = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert pixels(x).data_ptr() == channels(pixels(x)).data_ptr() == x.data_ptr()
    assert torch.equal(channels(pixels(x)), x)
    assert pixels(x.contiguous()).is_contiguous()


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("bias", ["none", "one", "per image"])
def test_linear_and_expand_depthwise(per_image: bool, bias: str) -> None:
    x, kernel = numbers("x", B, H, W, C), numbers("k", 8, 1, 3, 3)
    weight = numbers("w", *([B] if per_image else []), 8, C)
    b = {"none": None, "one": numbers("b", 8), "per image": numbers("b", B, 8)}[bias]
    kernel_bias = None if b is None else numbers("kb", 8)
    expected = conv(channels(x), weight, b)
    torch.testing.assert_close(channels(linear(x, weight, b)), expected)
    y = expand_depthwise(x, weight, b, kernel, kernel_bias)
    torch.testing.assert_close(channels(y), depthwise(expected, kernel, kernel_bias))
    assert gradcheck(expand_depthwise, (x, weight, b, kernel, kernel_bias))


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_gated_feed_forward(per_image: bool, bias: bool) -> None:
    x, kernel, out_weight = numbers("x", B, H, W, C), numbers("k", 8, 1, 3, 3), numbers("o", 5, 4)
    weight = numbers("w", *([B] if per_image else []), 8, C)
    b, kb, ob = (numbers(str(n), n) if bias else None for n in (8, 8, 5))
    first, second = depthwise(conv(channels(x), weight, b), kernel, kb).chunk(2, 1)
    arguments = (x, weight, b, kernel, kb, out_weight, ob)
    torch.testing.assert_close(channels(gated_feed_forward(*arguments)), conv(F.gelu(first) * second, out_weight, ob))
    assert gradcheck(gated_feed_forward, arguments)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_self_attention(heads: int) -> None:
    qkv, temperature = numbers("x", B, H, W, 3 * C), numbers("t", 1, heads, 1, 1)
    weight, bias, kernel, kernel_bias = numbers("w", 5, C), numbers("b", 5), numbers("k", 5, 1, 3, 3), numbers("kb", 5)
    q, k, v = channels(qkv).chunk(3, 1)
    attention = plain_attention(q, k, temperature)
    mixed = conv(attend(attention, v), weight, bias)
    torch.testing.assert_close(channels(self_attention(qkv, temperature, weight, bias)), mixed)
    y, matrices = self_attention_and_map(qkv, temperature, weight, bias, kernel, kernel_bias)
    torch.testing.assert_close(channels(y), depthwise(mixed, kernel, kernel_bias))
    for i, block in enumerate(matrices):
        torch.testing.assert_close(block, torch.block_diag(*attention[i]))
    assert gradcheck(self_attention_and_map, (qkv, temperature, weight, bias, kernel, kernel_bias))
    assert gradcheck(self_attention, (qkv, temperature, weight))


def test_self_attention_with_a_depthwise_convolution_before() -> None:
    given, temperature, weight = numbers("x", B, H, W, 3 * C), numbers("t", 2, 1, 1), numbers("w", 5, C)
    before, before_bias = numbers("k", 3 * C, 1, 3, 3), numbers("b", 3 * C)

    def fused(*a: Tensor) -> Tensor:
        return self_attention(a[0], a[1], a[2], before=a[3], before_bias=a[4])

    qkv = pixels(depthwise(channels(given), before, before_bias))
    torch.testing.assert_close(
        fused(given, temperature, weight, before, before_bias), self_attention(qkv, temperature, weight)
    )
    assert gradcheck(fused, (given, temperature, weight, before, before_bias))


@pytest.mark.parametrize("heads", [1, 3])
def test_cross_attention(heads: int) -> None:
    q, kv = numbers("q", B, C, H, W), numbers("kv", B, H, W, 2 * C)
    temperature, weight, bias = numbers("t", heads, 1, 1), numbers("w", 5, C), numbers("b", 5)
    k, v = channels(kv).chunk(2, 1)
    expected = conv(attend(plain_attention(q, k, temperature), v), weight, bias)
    torch.testing.assert_close(channels(cross_attention(q, kv, temperature, weight, bias)), expected)
    assert gradcheck(cross_attention, (q, kv, temperature, weight, bias))


def test_a_temperature_of_zero_and_an_empty_channel() -> None:
    qkv = waves("x", (B, H, W, 3 * C)).float()
    qkv[..., 0] = 0.0
    qkv.requires_grad_()
    temperature = torch.zeros(2, requires_grad=True)
    y, matrices = self_attention_and_map(qkv, temperature, torch.eye(C))
    torch.testing.assert_close(matrices, torch.block_diag(*torch.full((2, 3, 3), 1 / 3)).expand(B, C, C))
    y.sum().backward()
    assert torch.isfinite(qkv.grad).all()
    assert torch.isfinite(temperature.grad).all()


def test_softmax_by_head_leaves_heads_apart() -> None:
    similarity = waves("s", (B, C, C))
    attention = softmax_by_head(similarity, torch.tensor([1.0, 2.0], dtype=torch.float64))
    expected = [torch.block_diag(s[:3, :3].softmax(-1), (2 * s[3:, 3:]).softmax(-1)) for s in similarity]
    torch.testing.assert_close(attention, torch.stack(expected))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_returns_halves_and_does_not_overflow(dtype: torch.dtype) -> None:
    x = (300 * waves("x", (1, 16, 16, C))).float().requires_grad_()
    weight, kernel, out = (waves(n, s).float() for n, s in (("w", (18, C)), ("k", (18, 1, 3, 3)), ("o", (C, C))))
    with torch.autocast("cpu", dtype):
        qkv = expand_depthwise(x, weight, None, kernel, None)
        y = self_attention(qkv, torch.ones(2), out)
        z = gated_feed_forward(x / 300, weight[:12], None, kernel[:12], None, out, None)
    assert qkv.dtype == y.dtype == z.dtype == dtype
    exact = self_attention(expand_depthwise(x, weight, None, kernel, None), torch.ones(2), out)
    assert (y.float() - exact).norm() < 0.03 * exact.norm()
    (y.float().mean() + z.float().mean()).backward()
    assert torch.isfinite(x.grad).all()


def test_a_second_derivative_is_refused() -> None:
    x, weight, kernel = numbers("x", 1, H, W, C), numbers("w", 4, C), numbers("k", 4, 1, 3, 3)
    y = expand_depthwise(x, weight, None, kernel, None).square().sum()
    (gradient,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_gradients_of_kernels_have_the_kernels_strides() -> None:
    x, weight, out = numbers("x", B, H, W, C), numbers("weight", 4 * C, C), numbers("out", C, 2 * C)
    expanding, gating = numbers("k", 4 * C, 1, 3, 3), numbers("l", 4 * C, 1, 3, 3)
    expand_depthwise(x, weight, None, expanding, None).sum().backward()
    gated_feed_forward(x, weight, None, gating, None, out, None).sum().backward()
    for kernel in (expanding, gating):
        assert kernel.grad is not None
        assert kernel.grad.stride() == kernel.stride()
