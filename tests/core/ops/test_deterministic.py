"""core/ops/deterministic.py against torch's own operations, with gradients; and core/ops/precision.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from relume.archs import build_network
from relume.core.ops import deterministic
from relume.core.ops.deterministic_forms import Forms
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
@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(7, 5), (1, 9)])
def test_grid_sample(on_a_gpu: None, mode: str, padding_mode: str, align_corners: bool, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    grid = (3 * torch.rand(2, 6, 8, 2, dtype=torch.float64) - 1.5).requires_grad_()
    found = deterministic.grid_sample(x, grid, mode, padding_mode, align_corners)
    expected = F.grid_sample(x, grid, mode, padding_mode, align_corners)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weight).sum(), (x, grid))
    got = torch.autograd.grad((found * weight).sum(), (x, grid), materialize_grads=True)
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
    "max": ((2, 3, 9, 8), torch.nn.MaxPool2d(2)),
    "max, other sides": ((1, 3, 9, 8), lambda x: F.max_pool2d(x, (3, 2))),
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
        assert F.pad(x, (1, 1)).shape[-1] == 8 and F.max_pool2d(x, 3, 2, 1).shape == (1, 2, 3, 3)
        assert F.interpolate(x, scale_factor=2).shape[-1] == 12
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
