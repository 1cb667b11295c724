"""core/ops/deterministic.py against torch's own operations, with gradients; and core/ops/precision.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.ops import deform_conv2d

from relume.archs import build_network
from relume.core.ops import deterministic
from relume.core.ops.deterministic_forms import Forms
from relume.core.ops.flow_warp import modulated_deform_conv
from relume.core.ops.precision import full_precision, shortened
from relume.core.runtime.speed import computing
from relume.losses import build_loss


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``deterministic: true`` there."""
    monkeypatch.setattr(deterministic, "wanted", lambda x: True)


@pytest.mark.parametrize("length", [1, 2, 5, 64, 129])
def test_running_sum(on_a_gpu: None, length: int) -> None:
    x = torch.randn(3, length, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(x)
    for dim in (1, -2):
        found, expected = deterministic.running_sum(x, dim), x.cumsum(dim)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            torch.autograd.grad((found * weight).sum(), x), torch.autograd.grad((expected * weight).sum(), x)
        )


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(7, 5), (1, 9)])
def test_grid_sample(on_a_gpu: None, mode: str, padding_mode: str, align_corners: bool, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    grid = (7 * torch.rand(2, 6, 8, 2, dtype=torch.float64) - 3.5).requires_grad_()
    found = deterministic.grid_sample(x, grid, mode, padding_mode, align_corners)
    expected = F.grid_sample(x, grid, mode, padding_mode, align_corners)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weight).sum(), (x, grid))
    got = torch.autograd.grad((found * weight).sum(), (x, grid), materialize_grads=True)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("padding_mode", ["border", "reflection"])
def test_a_flow_of_zeros_has_torchs_gradient_at_the_border(on_a_gpu: None, mode: str, padding_mode: str) -> None:
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64)
    lines = torch.linspace(-1, 1, 5, dtype=torch.float64)  # -1, -0.5, 0, 0.5, 1: whole pixels without rounding
    grid = torch.stack(torch.meshgrid(lines, lines, indexing="xy"), -1)[None].requires_grad_()
    found = deterministic.grid_sample(x, grid, mode, padding_mode, True)
    expected = F.grid_sample(x, grid, mode, padding_mode, True)
    weight = torch.randn_like(expected)
    gradients = [torch.autograd.grad((y * weight).sum(), grid)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("groups", "parts", "taps", "steps"),
    [(1, 1, (3, 3), (1, 1, 1)), (2, 1, (3, 3), (1, 1, 1)), (4, 2, (3, 2), ((2, 1), (0, 2), (1, 2)))],
)
def test_a_deformable_convolution(on_a_gpu: None, groups: int, parts: int, taps: tuple[int, int], steps: Any) -> None:
    """With offsets that lead out of the image."""
    x = torch.randn(2, 8, 9, 7, dtype=torch.float64)
    weight = torch.randn(6, 8 // parts, *taps, dtype=torch.float64)
    height, width = F.conv2d(x, weight, None, *steps, parts).shape[2:]
    count = groups * taps[0] * taps[1]
    offset = 4 * torch.randn(2, 2 * count, height, width, dtype=torch.float64)
    mask, bias = torch.rand(2, count, height, width, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    given = [t.requires_grad_() for t in (x, offset, mask, weight, bias)]
    found = modulated_deform_conv(*given, *steps)
    expected = deform_conv2d(x, offset, weight, bias, *steps, mask)
    torch.testing.assert_close(found, expected)
    sums = torch.randn_like(expected)
    for got, wanted in zip(*(torch.autograd.grad((y * sums).sum(), given) for y in (found, expected)), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("place", [float("nan"), float("inf"), 1e30])
def test_places_that_are_nowhere(on_a_gpu: None, place: float) -> None:
    grid = torch.full((1, 2, 2, 2), place)
    y = deterministic.grid_sample(torch.rand(1, 1, 4, 4), grid, "bilinear", "border", True)
    assert y.shape == (1, 1, 2, 2)  # and no memory beyond the image was read


CASES: dict[str, tuple[tuple[int, ...], Any]] = {
    "pad": ((2, 3, 7, 5), lambda x: F.pad(x, (2, 0, 3, 1), mode="reflect")),
    "pad 1d": ((2, 3, 9), torch.nn.ReflectionPad1d((8, 3))),
    "pad 3d": ((2, 3, 3, 4, 5), torch.nn.ReflectionPad3d(2)),
    "convolution": ((1, 2, 6, 6), torch.nn.Conv2d(2, 4, 3, padding=2, padding_mode="reflect", dtype=torch.float64)),
    "pool": ((2, 3, 7, 5), torch.nn.AdaptiveAvgPool2d((3, 4))),
    "pool to one": ((2, 3, 7, 5), torch.nn.AdaptiveAvgPool2d(1)),
    "pool of one image": ((3, 8, 6), torch.nn.AdaptiveAvgPool2d((None, 9))),
    "bicubic": ((2, 3, 7, 5), lambda x: F.interpolate(x, size=(9, 4), mode="bicubic", align_corners=False)),
    "corners": ((2, 3, 7, 5), lambda x: F.interpolate(x, size=11, mode="bicubic", align_corners=True)),
    "factor": ((1, 3, 7, 5), lambda x: F.interpolate(x, scale_factor=1.7, mode="bicubic")),
    "factors": ((1, 3, 8, 6), lambda x: F.interpolate(x, scale_factor=(0.4, 2.0), mode="bicubic", antialias=True)),
    "antialias": ((1, 3, 16, 12), lambda x: F.interpolate(x, (5, 7), mode="bilinear", antialias=True)),
    "pool along a line": ((2, 3, 7), torch.nn.AdaptiveAvgPool1d(4)),
    "pool of volumes": ((2, 3, 5, 6, 7), torch.nn.AdaptiveAvgPool3d((2, None, 3))),
    "linear": ((2, 3, 7), torch.nn.Upsample(scale_factor=1.7, mode="linear")),
    "trilinear": ((1, 2, 3, 4, 5), lambda x: F.interpolate(x, (5, 3, 9), mode="trilinear", align_corners=True)),
    "mean of volumes": ((2, 3, 4, 6, 5), torch.nn.AvgPool3d(2)),
    "mean of a volume": ((3, 5, 6, 7), torch.nn.AvgPool3d((2, 3, 3), (1, 2, 2), 1, ceil_mode=True)),
    "mean of what is there": ((1, 3, 5, 6, 7), torch.nn.AvgPool3d(3, 2, 1, count_include_pad=False)),
    "sum of volumes": ((1, 3, 5, 6, 7), torch.nn.AvgPool3d(3, 1, 1, divisor_override=5)),
    "max, overlapping": ((2, 3, 9, 8), torch.nn.MaxPool2d(3, 2, 1)),
    "max, apart": ((3, 9, 8), torch.nn.MaxPool2d((2, 3), 4, dilation=2, ceil_mode=True)),
    "max and places": ((2, 3, 9, 8), lambda x: F.max_pool2d(x, 2, return_indices=True)[0]),
    "max along a line": ((2, 3, 9), torch.nn.MaxPool1d(3, 1)),
    "max of volumes": ((1, 2, 5, 6, 4), torch.nn.MaxPool3d(2, 1)),
    "adaptive max": ((2, 3, 9, 8), torch.nn.AdaptiveMaxPool2d((4, None))),
    "adaptive max of one": ((3, 9, 8), torch.nn.AdaptiveMaxPool2d(1, return_indices=False)),
    "adaptive max along a line": ((2, 3, 9), torch.nn.AdaptiveMaxPool1d(4)),
    "adaptive max of volumes": ((1, 2, 5, 6, 4), lambda x: F.adaptive_max_pool3d(x, 3, return_indices=True)[0]),
    "max": ((2, 3, 9, 8), torch.nn.MaxPool2d(2)),
    "max, other sides": ((1, 3, 9, 8), lambda x: F.max_pool2d(x, (3, 2))),
    "sample, reflected": (
        (1, 3, 5, 6),
        lambda x: F.grid_sample(x, 2 * x.detach()[:, :2].permute(0, 2, 3, 1), "bicubic", "reflection", True),
    ),
    "sample": (
        (1, 3, 5, 6),
        lambda x: F.grid_sample(x, 2 * x.detach()[:, :2].permute(0, 2, 3, 1), align_corners=False),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_forms_equal_what_they_stand_for(on_a_gpu: None, name: str) -> None:
    shape, function = CASES[name]
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    expected = function(x)
    weight = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad((expected * weight).sum(), x)
    with Forms(), Called() as called:
        found = function(x)
        (got,) = torch.autograd.grad((found * weight).sum(), x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(got, wanted)
    assert not called.names & REFUSED
    with Forms(), Called() as called, torch.no_grad():
        assert torch.equal(function(x), expected)


def test_forms_leave_what_has_none_to_torch(on_a_gpu: None) -> None:
    x = torch.rand(1, 2, 6, 6, requires_grad=True)
    with Forms():
        assert F.pad(x, (1, 1)).shape[-1] == 8 and F.interpolate(x, scale_factor=2).shape[-1] == 12
        with pytest.raises(RuntimeError, match="Padding size should be less"):
            F.pad(x, (6, 0, 0, 0), mode="reflect")


REFUSED = {
    *("cumsum", "grid_sampler_2d", "grid_sampler_2d_backward", "_adaptive_avg_pool2d", "_adaptive_avg_pool2d_backward"),
    *(
        "reflection_pad1d_backward",
        "reflection_pad2d_backward",
        "reflection_pad3d_backward",
        "put_",
        "histc",
        "kthvalue",
    ),
    *("upsample_bicubic2d_backward", "_upsample_bicubic2d_aa_backward", "_upsample_bilinear2d_aa_backward"),
    *("max_pool2d_with_indices_backward", "adaptive_max_pool2d_backward", "replication_pad2d_backward"),
    *("max_pool3d_with_indices_backward", "adaptive_max_pool3d_backward", "avg_pool3d_backward", "deform_conv2d"),
    *("_adaptive_avg_pool3d_backward", "upsample_linear1d_backward", "upsample_trilinear3d_backward"),
}
"""Operations that torch refuses on CUDA where everything is to be deterministic."""


class Called(TorchDispatchMode):
    """What torch is asked for inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        floats = any(isinstance(a, torch.Tensor) and a.is_floating_point() for a in args)
        self.names |= {func.overloadpacket.__name__} if floats else set()
        return func(*args, **(kwargs or {}))


def test_a_video_network_with_deformable_convolutions_asks_for_nothing_that_torch_refuses(on_a_gpu: None) -> None:
    sizes = {"num_feat": 8, "deformable_groups": 2, "num_extract_block": 1, "num_reconstruct_block": 1}
    network = build_network({"type": "EDVR", "num_frame": 3, **sizes})
    with Forms(), Called() as called:
        network(torch.rand(1, 3, 3, 16, 16)).sum().backward()
    assert "gather" in called.names
    assert not called.names & REFUSED


def test_an_interpolation_network_asks_for_nothing_that_torch_refuses(on_a_gpu: None) -> None:
    tiny = {"F": 8, "window_size": 4, "depths": [1, 2, 1], "mamba": {"d_state": 8, "headdim": 8}, "flow_c": [4, 4, 4]}
    network = build_network({"type": "HybridVFI", "use_flow": True, **tiny})
    with Called() as called:
        outputs = network(torch.rand(1, 6, 32, 32))
        sum(t.sum() for t in tree_leaves(outputs) if isinstance(t, torch.Tensor)).backward()
    assert "gather" in called.names
    assert not called.names & REFUSED


# ------------------------------------------------------------------ precision
class Convolutions(TorchFunctionMode):
    """Whether each convolution inside may round its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[bool] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.conv2d, F.conv1d, F.conv_transpose2d, torch.conv2d, torch.matmul):
            self.found.append(shortened())
        return func(*args, **(kwargs or {}))


def test_a_section_in_full_precision_is_left_as_it_was_found() -> None:
    x = torch.rand(1)
    for precision in ("highest", "high", "medium"):
        with computing(precision, False, False):
            before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
            with pytest.raises(KeyError), torch.autocast("cpu", torch.bfloat16), full_precision(x):
                assert not shortened() and not torch.is_autocast_enabled("cpu")
                raise KeyError
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


@pytest.mark.parametrize("kind", ["SSIMLoss", "LaplacianLoss", "TernaryCensusLoss", "GradientLoss"])
def test_losses_in_full_precision_allow_no_tf32(kind: str) -> None:
    loss = build_loss({"type": kind})
    with computing("high", False, False), Convolutions() as called:
        loss(torch.rand(1, 3, 48, 48), torch.rand(1, 3, 48, 48))
    assert not any(called.found)


def test_a_network_allows_tf32_outside_its_section_only() -> None:
    network = build_network(
        {"type": "SpectroformerAGSSF", "num_blocks": [1] * 4, "channels": [8, 16, 32, 64], "num_heads": [1] * 4}
    )
    seen = {}
    for name in ("embed_conv_rgb", "down3", "outputl"):
        network.get_submodule(name).register_forward_pre_hook(lambda *_, n=name: seen.update({n: shortened()}))
    with computing("high", False, False), torch.no_grad():
        network(torch.rand(1, 3, 16, 16))
    assert seen == {"embed_conv_rgb": False, "down3": False, "outputl": True}
