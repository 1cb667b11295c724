"""core/ops/projection.py and naf_branches.py: they equal the operations that they stand for, in value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from filling import waves
from torch import Tensor, nn
from torch.autograd import gradcheck

from relume.archs.nafnet import NAFBlock
from relume.core.errors import UserError
from relume.core.ops import naf_branches
from relume.core.ops.naf_branches import attention_branch, gate_branch
from relume.core.ops.projection import mean_pixel, scaled_projection

E, C = 5, 4


def numbers(name: str, *shape: int) -> Tensor:
    return waves(name, shape).requires_grad_()


def gate(x: Tensor) -> Tensor:
    return x.chunk(2, -1)[0] * x.chunk(2, -1)[1]


def assert_same(found: Tensor, expected: Tensor, given: list[Tensor]) -> None:
    assert found.shape == expected.shape and (found - expected).abs().max() < 1e-10
    weights = waves("cotangent", tuple(found.shape))
    for mine, theirs in zip(*(torch.autograd.grad(y, given, weights) for y in (found, expected)), strict=True):
        assert (mine - theirs).abs().max() < 1e-10


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 2, 2), (2, 1, 3), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("scaled", [None, "image", "pixel"])
@pytest.mark.parametrize("skips", [False, True])
def test_scaled_projection(size: tuple[int, int, int], scaled: str | None, skips: bool) -> None:
    y, w, b, gain = numbers("y", *size, E), numbers("w", C, E), numbers("b", C), numbers("g", C)
    a = {None: None, "image": numbers("a", size[0], E), "pixel": numbers("a", *size, E)}[scaled]
    skip = numbers("s", *size, C) if skips else None
    wide = 1.0 if a is None else a if a.dim() == 4 else a[:, None, None]
    expected = (y * wide) @ w.t() * gain + b * gain + (0 if skip is None else skip)
    assert_same(
        scaled_projection(y, w, b, gain, a, skip), expected, [t for t in (y, w, b, gain, a, skip) if t is not None]
    )


def test_a_skip_in_single_precision_is_not_rounded_under_autocast() -> None:
    y, w, b, gain = (
        t.detach().float() for t in (numbers("y", 1, 4, 4, E), numbers("w", C, E), numbers("b", C), numbers("g", C))
    )
    skip = 1000 + torch.rand(1, 4, 4, C)
    with torch.autocast("cpu", torch.bfloat16):
        found = scaled_projection(y, w, b, gain, None, skip)
    assert found.dtype == torch.float32
    assert (found - skip - scaled_projection(y, w, b, gain)).abs().max() < 0.1


def test_shapes_of_a_projection_that_do_not_go_together() -> None:
    with pytest.raises(
        UserError, match=r"^scaled_projection: for .* attention must be \(2, 5\) or \(2, 3, 3, 5\); it is"
    ):
        scaled_projection(torch.rand(2, 3, 3, E), torch.rand(C, E), torch.rand(C), torch.rand(C), torch.rand(1, E))


def test_mean_pixel() -> None:
    x = numbers("x", 2, 3, 4, 5)
    assert_same(mean_pixel(x), x.mean((1, 2)), [x])
    assert gradcheck(mean_pixel, (x,))


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 3), (2, 3, 4)], ids=str)
def test_branches(size: tuple[int, int, int]) -> None:
    x, norm, norm_bias = numbers("x", *size, C), numbers("n", C), numbers("m", C)
    w, b, k, kb = numbers("w", 2 * E, C), numbers("b", 2 * E), numbers("k", 2 * E, 1, 3, 3), numbers("c", 2 * E)
    a, ab, v, vb, gain = numbers("a", E, E), numbers("d", E), numbers("v", C, E), numbers("e", C), numbers("g", C)

    def wide() -> Tensor:
        return F.layer_norm(x, (C,), norm, norm_bias, 1e-6) @ w.t() + b

    given = [x, norm, norm_bias, w, b, v, vb, gain]
    assert_same(gate_branch(*given), x + gain * (gate(wide()) @ v.t() + vb), given)

    given[5:5] = [k, kb, a, ab]
    y = gate(F.conv2d(wide().permute(0, 3, 1, 2), k, kb, padding=1, groups=2 * E).permute(0, 2, 3, 1))
    factor = y.mean((1, 2)) @ a.t() + ab
    expected = x + gain * ((y * factor[:, None, None]) @ v.t() + vb)
    assert_same(attention_branch(*given), expected, given)


def test_a_block_is_the_same_by_branches_and_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    block = NAFBlock(6).double()
    with torch.no_grad():
        for name, p in block.named_parameters():
            p.copy_(waves(name, tuple(p.shape)))
    x = numbers("x", 2, 6, 4, 5)
    whole, given = block(x), [x, *block.parameters()]
    assert "Branch" in whole.grad_fn.next_functions[0][0].name() or "Branch" in whole.grad_fn.name()
    monkeypatch.setattr(naf_branches, "worthwhile", lambda _: False)
    assert_same(whole, block(x), given)


@pytest.mark.parametrize("fused", [True, False])
def test_in_single_precision_by_fused_products_and_without(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if fused and not naf_branches.has_fused_products():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(naf_branches, "has_fused_products", lambda: fused)
    for channels, height, width in ((6, 4, 5), (16, 2, 3), (3, 1, 1)):
        exact = NAFBlock(channels).double()
        with torch.no_grad():
            for name, p in exact.named_parameters():
                p.copy_(waves(name, tuple(p.shape)))
        block = NAFBlock(channels)
        block.load_state_dict(exact.state_dict())
        x = waves("x", (2, channels, height, width))
        weights = waves("cotangent", tuple(x.shape))
        found, expected = (
            [y, *torch.autograd.grad(y, [given, *net.parameters()], weights.to(y.dtype))]
            for net, given in ((block, x.float().requires_grad_()), (exact, x.clone().requires_grad_()))
            for y in [net(given)]
        )
        for mine, theirs in zip(found, expected, strict=True):
            assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max() + 1e-5


@pytest.mark.parametrize("size", [(1, 2, 2), (2, 4, 6)], ids=str)
def test_halving_and_doubling_are_their_convolutions(size: tuple[int, int, int]) -> None:
    batch, height, width = size
    down, up = nn.Conv2d(C, 2 * C, 2, stride=2).double(), nn.Conv2d(2 * C, 4 * E, 1, bias=False).double()
    x, skip = numbers("x", batch, C, height, width), numbers("s", batch, E, 2 * height, 2 * width)
    assert_same(naf_branches.halve(x, down.weight, down.bias), down(x), [x, *down.parameters()])
    wide = numbers("y", batch, 2 * C, height, width)
    expected = skip + F.pixel_shuffle(up(wide), 2)
    assert_same(naf_branches.double_onto(skip, wide, up.weight), expected, [skip, wide, *up.parameters()])
    assert naf_branches.double_onto(skip, wide, up.weight).is_contiguous(memory_format=torch.channels_last)
