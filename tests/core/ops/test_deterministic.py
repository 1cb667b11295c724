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
    refused = {"cumsum", "grid_sampler_2d", "grid_sampler_2d_backward", "_adaptive_avg_pool2d_backward", "put_"}
    assert not called.names & {*refused, "reflection_pad2d_backward", "replication_pad2d_backward", "histc", "kthvalue"}


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
