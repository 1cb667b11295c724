"""Kernels of mamba-ssm and causal-conv1d where they are installed: by simulation, since tests have no GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from relume.archs.mamba2 import Mamba2
from relume.core.ops import causal_conv1d, dispatch, foreign, rms_norm, ssd

CALLS: list[tuple[str, Any]] = []


def rmsnorm_fn(x: Tensor, weight: Tensor, bias: None, z: Tensor | None, eps: float, size: int, before: bool) -> Tensor:
    CALLS.append(("rms_norm", x.dtype))
    return rms_norm.plain(x, weight, z, eps, size, before)


def causal_conv1d_fn(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: str | None = None) -> Tensor:
    CALLS.append(("causal_conv1d", x.dtype))
    y = F.conv1d(F.pad(x, (weight.shape[1] - 1, 0)), weight[:, None], bias, groups=len(weight))
    return F.silu(y) if activation else y


def scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int, **options: Any) -> tuple[Tensor, Tensor]:
    CALLS.append(("ssd", (x.dtype, dt.dtype, A.dtype, B.dtype, C.dtype)))
    exact = [t.float() for t in (x, dt, A, B, C)]
    y, last = ssd._plain(*exact, options["D"], options["initial_states"], 16)
    return y.to(x.dtype), last


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both packages, and tensors that are taken for a GPU's."""
    functions = {"rmsnorm_fn": rmsnorm_fn, "causal_conv1d_fn": causal_conv1d_fn}
    monkeypatch.setattr(foreign, "function_or_none", lambda module, name: functions[name])
    monkeypatch.setattr(ssd, "kernel", lambda: scan)
    monkeypatch.setattr(ssd, "_mamba_takes", lambda x: dispatch.mode_of("ssd") != "off")
    for module, name in ((rms_norm, "_mambas"), (causal_conv1d, "_packages")):
        chosen = getattr(module, name)

        def on_a_gpu(x: Tensor, *more: Any, chosen: Callable[..., Any] = chosen) -> Any:
            return chosen(described(x), *more)

        monkeypatch.setattr(module, name, on_a_gpu)
    monkeypatch.setattr(dispatch, "DECISIONS", {})
    monkeypatch.setattr(dispatch, "FOREIGN", {})
    CALLS.clear()
    yield
    CALLS.clear()


def described(x: Tensor, on_gpu: bool = True) -> Any:
    return SimpleNamespace(is_cuda=on_gpu, dtype=x.dtype, shape=x.shape)


@pytest.mark.parametrize("amp", [False, True])
def test_a_layer_runs_all_three_and_gives_the_same(installed: None, monkeypatch: pytest.MonkeyPatch, amp: bool) -> None:
    torch.manual_seed(0)
    layer = Mamba2(16, d_state=8, headdim=8)
    x = torch.randn(2, 20, 16)
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        found = layer(x)
        dtype = torch.bfloat16 if amp else torch.float32
        exact = torch.float32
        assert [("causal_conv1d", dtype), ("ssd", (dtype, exact, exact, dtype, dtype)), ("rms_norm", dtype)] == CALLS
        assert "gated RMS norm: fused, mamba-ssm's" in dispatch.decisions()
        assert "causal convolution: fused, causal-conv1d's" in dispatch.decisions()
        monkeypatch.setenv("RELUME_KERNELS", "off")
        expected = layer(x)
    assert len(CALLS) == 3 and found.dtype == expected.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=0.05 if amp else 1e-5, atol=0.05 if amp else 1e-6)


def test_what_the_packages_do_not_take_stays_ours(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(2, 16, 20), torch.randn(16, 4)
    assert causal_conv1d._packages(x, weight, None, False) is causal_conv1d_fn
    rows = torch.randn(2, 20, 19)[..., :16].transpose(1, 2)  # a slice whose rows begin anywhere
    assert torch.equal(causal_conv1d._aligned(rows), rows) and causal_conv1d._aligned(rows).stride() == (320, 1, 16)
    assert causal_conv1d._aligned(x) is x and causal_conv1d._aligned(y := x.transpose(1, 2).contiguous().mT) is y
    wide, odd = torch.randn(16, 5), x[:, :15]
    for other in (
        (x, wide, None, False),
        (x, weight, x, False),
        (x, weight, None, True),
        (odd, weight[:15], None, False),
    ):
        assert causal_conv1d._packages(*other) is None
    assert causal_conv1d._packages(x.double(), weight, None, False) is None
    assert rms_norm._mambas(x) is rmsnorm_fn and rms_norm._mambas(x.double()) is None
    for word in ("off", "on"):
        monkeypatch.setenv("RELUME_KERNELS", word)
        assert rms_norm._mambas(x) is None and causal_conv1d._packages(x, weight, None, False) is None


def test_nothing_of_them_is_imported_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(module: str, name: str) -> None:
        raise AssertionError(module)

    monkeypatch.setattr(foreign, "function_or_none", found)
    y = rms_norm.rmsnorm_gated(torch.randn(3, 8), torch.ones(8))
    assert isinstance(causal_conv1d.causal_conv1d(y[None], torch.ones(3, 2)), Tensor)
    assert foreign.function_or_none is found


def test_a_package_that_is_not_there_is_none() -> None:
    assert foreign.function_or_none("relume_has_no_such_package.ops", "f") is None
