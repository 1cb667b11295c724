"""The selective scan: against golden tensors, and a step-by-step formula differentiated by autograd."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from interpreting import interpreted
from torch import Tensor

from relume.core.errors import UserError
from relume.core.ops import selective_scan as module
from relume.core.ops import selective_scan_chunks
from relume.core.ops.selective_scan import selective_scan
from relume.core.ops.selective_scan_operator import scan_operator


def formula(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False) -> tuple[Tensor, Tensor]:
    """One step at a time, in whatever dtype."""
    d = u.shape[1]

    def full(w: Tensor) -> Tensor:
        if w.dim() == 2:
            return w[None, :, :, None].expand(len(u), -1, -1, u.shape[2])
        w = w[:, None] if w.dim() == 3 else w
        return w.repeat_interleave(d // w.shape[1], 1)

    dt = delta if delta_bias is None else delta + delta_bias[:, None]
    dt = F.softplus(dt) if delta_softplus else dt
    B, C, h, ys = full(B), full(C), torch.zeros(*u.shape[:2], A.shape[1], dtype=u.dtype), []
    for t in range(u.shape[2]):
        h = (dt[..., t, None] * A).exp() * h + dt[..., t, None] * B[..., t] * u[..., t, None]
        ys.append((C[..., t] * h).sum(-1))
    y = torch.stack(ys, -1)
    y = y if D is None else y + D[:, None] * u
    return (y if z is None else y * F.silu(z)), h


def drawn(
    b=2, d=6, n=3, length=45, B="groups", C="groups", groups=2, decay=1.0, dtype=torch.float64
) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(b * d * n * length)
    shapes = {"groups": (b, groups, n, length), "one": (b, n, length), "constant": (d, n), "each": (b, d, n, length)}
    make = {
        "u": (b, d, length), "delta": (b, d, length), "A": (d, n), "B": shapes[B], "C": shapes[C], "D": (d,),
        "z": (b, d, length), "delta_bias": (d,),
    }  # fmt: skip
    values = {k: torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for k, s in make.items()}
    values["A"] = -decay * values["A"].exp()
    return {k: v.requires_grad_() for k, v in values.items()}


def near(found: Tensor, expected: Tensor, rtol: float, what: str) -> None:
    error, allowed = (found - expected).abs().max(), rtol * expected.abs().max() + 1e-7
    assert error <= allowed, f"{what}: differs by {error:.3g}, allowed {allowed:.3g}"


def test_golden(golden: Callable[[str], Path]) -> None:
    for case in torch.load(golden("zoo/selective_scan.pt"), weights_only=True)["cases"]:
        given = {k: v.clone().requires_grad_() for k, v in case["inputs"].items()}
        y, last = selective_scan(**given, delta_softplus=case["delta_softplus"], return_last_state=True)
        near(y, case["output"], case["rtol"], case["name"])
        near(last, case["last_state"], case["rtol"], f"{case['name']}, last state")
        (y * case["cotangent"]).sum().backward()
        for k, expected in case["grads"].items():
            near(given[k].grad, expected, case["grad_rtol"], f"{case['name']}, {k}")


CASES: list[dict[str, Any]] = [
    {},
    {"B": "one", "C": "one"},
    {"B": "one", "C": "groups", "groups": 3},
    {"B": "groups", "C": "each", "groups": 3},
    {"B": "constant", "C": "groups"},
    {"B": "groups", "C": "constant"},
    {"B": "constant", "C": "constant"},
    {"length": 1},
    {"b": 5, "length": 130, "decay": 300.0},
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("softplus", [False, True])
def test_equals_the_formula_in_value_and_gradient(
    case: dict[str, Any], softplus: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selective_scan_chunks, "CHUNKS", (7, 16))
    monkeypatch.setattr(selective_scan_chunks, "TOGETHER", 40)  # two samples, or one, at a time
    given = drawn(**case)
    if not softplus:
        given["delta"], given["delta_bias"] = (
            given[k].detach().abs().requires_grad_() for k in ("delta", "delta_bias")
        )
    y, last = selective_scan(**given, delta_softplus=softplus, return_last_state=True)
    expected, expected_last = formula(**given, delta_softplus=softplus)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(last, expected_last, rtol=1e-9, atol=1e-10)
    weights = torch.sin(torch.arange(y.numel()).double()).view(y.shape)

    def gradients(y: Tensor, last: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((y * weights).sum() + last.square().sum(), list(given.values()))

    for name, a, b in zip(given, gradients(y, last), gradients(expected, expected_last), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


def test_half_precision_and_autocast_compute_in_float32() -> None:
    given = {k: v.detach() for k, v in drawn(dtype=torch.float32).items()}
    exact = selective_scan(**given, delta_softplus=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(selective_scan(**given, delta_softplus=True), exact)
    half = selective_scan(given["u"].bfloat16(), *(given[k] for k in ("delta", "A", "B", "C")))
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "shape", "complaint"),
    [
        ("delta", (2, 6, 44), r"delta must be \(2, 6, 45\)"),
        ("B", (2, 4, 3, 45), "groups that divide 6"),
        ("C", (6, 4), "C must be"),
        ("D", (5,), r"D must be \(6,\)"),
        ("u", (2, 6), "u must be"),
    ],
)
def test_shapes_that_do_not_go_together(name: str, shape: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        selective_scan(**{**drawn(), name: torch.zeros(shape)})


def test_insisting_on_the_kernel_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELUME_KERNELS", "on")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match="the fused selective scan cannot run: it needs a GPU, u is on cpu"):
        selective_scan(**drawn(dtype=torch.float32))


def test_memory_is_bounded_by_the_inputs() -> None:
    u = torch.zeros(1, 64, 4096)
    layout = selective_scan_chunks._Layout(u, torch.zeros(64, 16), *[torch.zeros(1, 4, 16, 4096)] * 2)
    kept = len(layout.steps()) * 64 * 16
    assert kept <= u.numel() / 2
    assert layout.buffer(u).numel() <= selective_scan_chunks.CACHED


def test_triton_in_the_interpreter() -> None:
    if not importlib.util.find_spec("triton"):
        pytest.skip("needs triton")
    result = interpreted("interpreted_selective_scan.py")
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 2e-5


@pytest.mark.parametrize("constant", [False, True])
def test_an_exported_program_makes_scans_of_any_length(constant: bool) -> None:
    """By one loop, so that the program does not grow with them."""
    rest = {k: v.detach() for k, v in drawn(dtype=torch.float32).items() if k in ("A", "D", "delta_bias")}

    class Layer(torch.nn.Module):
        def forward(self, u: Tensor, delta: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, ...]:
            pair = selective_scan(u, delta, rest["A"], B, C, rest["D"], None, rest["delta_bias"], True, True)
            return tuple(pair)

    def inputs(b: int, length: int) -> list[Tensor]:
        given = drawn(b, length=length, B="constant" if constant else "groups", dtype=torch.float32)
        return [given[k].detach() for k in ("u", "delta", "B", "C")]

    free = torch.export.Dim.DYNAMIC
    sizes = tuple({} if n == 2 and constant else {0: free, 2 if n < 2 else 3: free} for n in range(4))
    with torch.no_grad():
        program = torch.export.export(Layer(), tuple(inputs(2, 45)), dynamic_shapes=sizes, strict=False)
        assert len(list(program.graph.nodes)) < 100
        for b, length in ((2, 45), (1, 17), (3, 160)):
            given = inputs(b, length)
            u, delta, B, C = given
            expected = formula(u, delta, rest["A"], B, C, rest["D"], None, rest["delta_bias"], True)
            for found, wanted in zip(program.module()(*given), expected, strict=True):
                near(found, wanted, 1e-5, str(length))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("groups", [1, 4])
def test_kernel_on_a_gpu(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "mamba_kernel", lambda: None)
    given = drawn(2, 48, 16, 1000, groups=groups, dtype=torch.float32)
    results = []
    for device in ("cpu", "cuda"):
        here = {k: v.detach().to(device).requires_grad_() for k, v in given.items()}
        y = selective_scan(**here, delta_softplus=True)
        y.square().mean().backward()
        results.append([y.cpu(), *(v.grad.cpu() for v in here.values())])
    for name, a, b in zip(["y", *given], *results, strict=True):
        near(b, a, 1e-4, name)


@pytest.mark.parametrize("full", [False, True])
def test_the_operator_for_the_compiler_is_the_scan(full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``torch.compile`` calls: its shapes without data, gradients, of samples that are treated apart, too."""
    monkeypatch.setattr(selective_scan_chunks, "TOGETHER", 24)
    torch.manual_seed(0)
    u, delta, A = torch.randn(3, 4, 70), torch.randn(3, 4, 70), -torch.rand(4, 3)
    B = torch.randn(3, 2, 3, 70) if full else torch.randn(4, 3)
    C, D, bias = torch.randn(3, 2, 3, 70), torch.randn(4) if full else None, torch.randn(4) if full else None
    inputs = [None if t is None else t.requires_grad_() for t in (u, delta, A, B, C, D, bias)]
    kinds = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.relume.selective_scan_plain.default, (*inputs, full), test_utils=kinds)
    results = []
    for scan in (scan_operator, selective_scan_chunks.scan_chunks):
        y, last = scan(*inputs, full)
        loss = (y * y.detach()).sum() + (last * last.detach()).sum()
        results.append([y, last, *torch.autograd.grad(loss, [t for t in inputs if t is not None])])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
