"""The state-space scan against the original's numbers, the recurrence and finite differences; its memory; its dispatch."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
import weakref
from types import SimpleNamespace

import pytest
import torch
from filling import waves
from interpreting import interpreted
from reference_ssd import chunked, minimal, sequential
from torch.utils._python_dispatch import TorchDispatchMode

from relume.core.errors import UserError
from relume.core.ops import foreign
from relume.core.ops import ssd as module
from relume.core.ops.ssd import ssd
from relume.core.ops.ssd_chunks import safe_tile, scan_chunks
from relume.core.ops.ssd_matrices import scan_matrices
from relume.core.ops.ssd_operator import scan_operator

TENSORS = ("x", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_states")


def error(value, expected):
    """Largest difference over largest value; over 1 where everything expected is 0."""
    value, expected = value.detach(), expected.detach()
    scale = float(expected.abs().max())
    return float((value - expected).abs().max()) / (scale if scale > 0 else 1)


def inputs(batch=2, length=50, heads=4, width=3, groups=2, states=5, decay=1.0, dtype=torch.float64):
    """Arguments of `ssd`, with gradients; `decay` is about the mean of -dt A."""
    shapes = {
        "x": (batch, length, heads, width),
        "dt": (batch, length, heads),
        "A": (heads,),
        "B": (batch, length, groups, states),
        "C": (batch, length, groups, states),
        "D": (heads,),
        "initial_states": (batch, heads, width, states),
    }
    made = {name: waves(name, shape) for name, shape in shapes.items()}
    made["dt"] = 0.5 + 0.4 * made["dt"]
    made["A"] = -decay * (2 + made["A"])
    return {name: t.to(dtype).requires_grad_() for name, t in made.items()}


def recurrence(x, dt, A, B, C, D=None, initial_states=None):
    """`ssd` by the recurrence."""
    repeats = x.shape[2] // B.shape[2]
    B, C = (t.repeat_interleave(repeats, 2) for t in (B, C))
    y, last = sequential(x, dt, A, B, C, initial_states)
    return (y if D is None else y + D[:, None] * x), last


def with_gradients(function, arguments, grads):
    """Outputs, then gradients of what requires them, for given gradients of the outputs."""
    outputs = function(**arguments)
    wanted = [t for t in arguments.values() if t.requires_grad]
    found = torch.autograd.grad(outputs, wanted, [g.to(o) for g, o in zip(grads, outputs, strict=True)])
    return [*outputs, *found]


# ------------------------------------------------------------------------------------------------------------- originals
def test_scan_of_the_original(golden):
    for case in torch.load(golden("vfi/ssd_scan.pt"), weights_only=True)["cases"]:
        config = case["config"]
        for chunk_size in (None, *config["chunk_sizes_to_try"]):
            arguments = {k: None if v is None else v.clone().requires_grad_() for k, v in case["input"].items()}
            y, last = ssd(
                **arguments,
                chunk_size=chunk_size,
                dt_softplus=config["dt_softplus"],
                dt_limit=tuple(config["dt_limit"]),
                return_final_states=True,
            )
            assert error(y, case["output"]["y"]) < 1e-6
            assert error(last, case["output"]["final_states"]) < 1e-6
            grads = case["grad_output"]
            ((y * grads["y"]).sum() + (last * grads["final_states"]).sum()).backward()
            for name, expected in case["grad"].items():
                assert error(arguments[name].grad, expected) < 5e-6, (case["name"], chunk_size, name)


def test_minimal_form_of_the_original(golden):
    """It takes dt A and dt x; with A = -1 these say what dt and x are."""
    for case in torch.load(golden("vfi/ssd_minimal_discrete.pt"), weights_only=True)["cases"]:
        given = {k: None if v is None else v.clone().requires_grad_() for k, v in case["input"].items()}
        dt = -given["A"]
        initial = None if given["initial_states"] is None else given["initial_states"][:, 0]
        y, last = ssd(
            given["X"] / dt[..., None],
            dt,
            -torch.ones(dt.shape[2]),
            given["B"],
            given["C"],
            initial_states=initial,
            return_final_states=True,
        )
        assert error(y, case["output"]["Y"]) < 2e-6
        assert error(last, case["output"]["final_state"]) < 2e-6
        grads = case["grad_output"]
        ((y * grads["Y"]).sum() + (last * grads["final_state"]).sum()).backward()
        for name, expected in case["grad"].items():
            assert error(given[name].grad, expected) < 5e-6


# ------------------------------------------------------------------------------------------------------ without originals
@pytest.mark.parametrize(("decay", "tile"), [(1e-4, 32), (1.0, 32), (4.0, 8), (10.0, 2), (300.0, 1)])
def test_equals_the_recurrence_at_any_decay(decay, tile):
    arguments = inputs(decay=decay)
    assert safe_tile(arguments["dt"] * arguments["A"], 32) == tile
    grads = waves("y", (2, 50, 4, 3)), waves("last", (2, 4, 3, 5))
    expected = with_gradients(recurrence, arguments, grads)
    exact = with_gradients(lambda **a: ssd(**a, chunk_size=32, return_final_states=True), arguments, grads)
    single = {k: t.detach().float().requires_grad_() for k, t in arguments.items()}
    rounded = with_gradients(lambda **a: ssd(**a, chunk_size=32, return_final_states=True), single, grads)
    for e, x, r in zip(expected, exact, rounded, strict=True):
        assert error(x, e) < 1e-12
        assert error(r, e) < 1e-5


def test_long_sequences_in_several_blocks(monkeypatch):
    monkeypatch.setattr("relume.core.ops.ssd_chunks.CACHED", 1000)  # 2 chunks of 32 steps
    arguments = inputs(length=300)
    grads = waves("y", (2, 300, 4, 3)), waves("last", (2, 4, 3, 5))
    expected = with_gradients(recurrence, arguments, grads)
    found = with_gradients(lambda **a: ssd(**a, chunk_size=32, return_final_states=True), arguments, grads)
    for e, f in zip(expected, found, strict=True):
        assert error(f, e) < 1e-12


def test_options_are_what_the_docstring_says():
    arguments = inputs(length=20)
    z, bias = waves("z", (2, 20, 4, 3)), waves("bias", (4,))
    D = waves("D", (4, 3))
    y = ssd(**{**arguments, "D": D}, z=z, dt_bias=bias, dt_softplus=True, dt_limit=(0.6, 0.9))
    dt = torch.nn.functional.softplus(arguments["dt"] + bias).clamp(0.6, 0.9)
    expected, _ = recurrence(**{**arguments, "dt": dt, "D": None})
    expected = (expected + D * arguments["x"]) * z * torch.sigmoid(z)
    assert error(y, expected) < 1e-12


def test_gradients_are_those_of_the_values():
    arguments = inputs(batch=1, length=5, heads=2, width=2, groups=1, states=2)
    names = list(arguments)
    assert torch.autograd.gradcheck(
        lambda *t: ssd(**dict(zip(names, t, strict=True)), chunk_size=4, return_final_states=True),
        tuple(arguments.values()),
    )


def test_references_agree_with_each_other():
    a = inputs(length=32, groups=4)
    x, dt, A, B, C = (a[k] for k in ("x", "dt", "A", "B", "C"))
    y, last = sequential(x, dt, A, B, C)
    for chunk in (8, 32):
        y2, last2 = minimal(x * dt[..., None], dt * A, B, C, chunk)
        assert error(y2, y) < 1e-12
        assert error(last2, last) < 1e-12
        assert error(chunked(x, dt, A, B, C, chunk), y) < 1e-12


def test_fingerprint():
    y, last = ssd(**inputs(dtype=torch.float32), return_final_states=True)
    assert [t.item() for t in (y.sum(), y[1, 49, 3, 2], last.sum())] == pytest.approx(
        [1.384497, 0.07397426, -1.495942], rel=1e-5
    )


def test_half_precision_goes_in_and_out_and_autocast_changes_nothing():
    arguments = {k: t.detach() for k, t in inputs(dtype=torch.float32).items()}
    expected = ssd(**arguments)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ssd(**arguments), expected)
    y, last = ssd(**{**arguments, "x": arguments["x"].bfloat16()}, return_final_states=True)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    assert error(y.float(), expected) < 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 50, 4)}, "x must be"),
        ({"dt": torch.zeros(2, 50, 3)}, "dt must be"),
        ({"B": torch.zeros(2, 50, 3, 5), "C": torch.zeros(2, 50, 3, 5)}, "groups that divide 4 heads"),
        ({"B": torch.zeros(2, 49, 2, 5)}, "B and C"),
        ({"x": torch.zeros(0, 50, 4, 3)}, "none of them 0"),
        ({"D": torch.zeros(4, 2)}, r"D must be \(4,\) or \(4, 3\); it is \(4, 2\)"),
        ({"z": torch.zeros(2, 50, 4, 1)}, "z must be"),
        ({"dt_bias": torch.zeros(1)}, "dt_bias must be"),
        ({"initial_states": torch.zeros(1, 4, 3, 5)}, "initial_states must be"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"dt_limit": (0.1, 0.01)}, "dt_limit must be"),
    ],
)
def test_shapes_that_do_not_go_together_are_one_line(change, message):
    with pytest.raises(UserError, match=message) as e:
        ssd(**{**inputs(), **change})
    assert "\n" not in str(e.value)


# --------------------------------------------------------------------------------------------------------------- memory
class Peak(TorchDispatchMode):
    """The most bytes that tensors made under it occupied at a time."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = weakref.WeakSet()

    def free(self, size):
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for t in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(t, torch.Tensor) and t.untyped_storage() not in self.known:
                storage = t.untyped_storage()
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.free, storage.nbytes())
        self.most = max(self.most, self.now)
        return result


def peak(length):
    arguments = inputs(batch=1, length=length, heads=2, width=8, groups=1, states=8, dtype=torch.float32)
    with Peak() as memory:
        ssd(**arguments).sum().backward()
    return memory.most


def test_memory_is_linear_in_length():
    peaks = {length: peak(length) for length in (1024, 8192, 65536)}
    assert peaks[65536] < 8.5 * peaks[8192]
    assert peaks[65536] < 66 * peaks[1024]
    assert peaks[65536] < 12 * 65536 * 16 * 4  # a few times x itself


# ------------------------------------------------------------------------------------------------------------- dispatch
def test_kernels_forced_on_without_a_gpu_is_one_line(monkeypatch):
    monkeypatch.setenv("RELUME_KERNELS", "on")
    with pytest.raises(UserError, match=r"RELUME_KERNELS=on.*needs a GPU.*on cpu") as e:
        ssd(**inputs())
    assert "\n" not in str(e.value)


def test_kernel_gets_everything_but_softplus(monkeypatch):
    """Through a kernel that is not Triton's but takes its arguments."""
    calls = []

    def kernel(x, dt, A, B, C, chunk_size, D, initial_states, return_final_states):
        calls.append(chunk_size)
        assert return_final_states
        return recurrence(x, dt, A, B, C, D, initial_states)

    monkeypatch.setattr(module, "_obstacle", lambda *tensors, **named: None)
    monkeypatch.setattr(module, "_mamba_takes", lambda x: True)
    monkeypatch.setattr(module, "kernel", lambda: kernel)
    arguments = {k: t.detach() for k, t in inputs(dtype=torch.float32).items()}
    options = {"dt_bias": waves("bias", (4,)).float(), "dt_softplus": True, "return_final_states": True}
    found = ssd(**arguments, **options)
    monkeypatch.setenv("RELUME_KERNELS", "off")
    expected = ssd(**arguments, **options)
    assert calls == [256]
    for f, e in zip(found, expected, strict=True):
        assert error(f, e) < 1e-6


@pytest.fixture
def package(tmp_path, monkeypatch):
    """``package(init)``: a mamba_ssm whose top module runs `init` and whose scan is there."""

    def make(init):
        folder = tmp_path / "mamba_ssm" / "ops" / "triton"
        folder.mkdir(parents=True)
        (tmp_path / "mamba_ssm" / "__init__.py").write_text(init)
        (folder / "ssd_combined.py").write_text(
            textwrap.dedent("""
            from mamba_ssm.ops.triton.helper import answer
            def mamba_chunk_scan_combined():
                return answer
            """)
        )
        (folder / "helper.py").write_text("answer = 42\n")
        monkeypatch.syspath_prepend(tmp_path)

    for name in [n for n in sys.modules if n.startswith("mamba_ssm")]:
        monkeypatch.delitem(sys.modules, name)
    foreign.function_or_none.cache_clear()
    yield make
    foreign.function_or_none.cache_clear()
    for name in [n for n in sys.modules if n.startswith("mamba_ssm")]:
        del sys.modules[name]


@pytest.mark.parametrize("init", ["", "import selective_scan_cuda_that_nobody_compiled", "raise RuntimeError('ABI')"])
def test_kernels_are_found_beside_a_package_that_cannot_be_imported(package, init):
    package(init)
    assert module.kernel()() == 42


def test_without_the_package_our_kernels_run(package, monkeypatch):
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)  # as if it were not installed
    assert not module._mamba_takes(SimpleNamespace(is_cuda=True))
    assert [name for name in sys.modules if name.startswith("mamba_ssm")] == ["mamba_ssm"]


def test_real_kernels_in_the_interpreter():
    if not all(importlib.util.find_spec(name) for name in ("triton", "mamba_ssm")):
        pytest.skip("needs triton and mamba-ssm (docs/interpolation.md says how to install it)")
    result = interpreted("interpreted_ssd.py")
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1e-5


@pytest.mark.parametrize("skip", [False, True])
def test_the_operator_for_the_compiler_is_the_scan(skip: bool) -> None:
    """What ``torch.compile`` calls: its shapes without data, gradients and one answer to a second derivative."""
    torch.manual_seed(0)
    x, dt = torch.randn(2, 11, 4, 3), torch.rand(2, 11, 4)
    A, B, C = -torch.rand(4), torch.randn(2, 11, 2, 5), torch.randn(2, 11, 2, 5)
    D, initial = torch.randn(4, 1) if skip else None, torch.randn(2, 2, 5, 2, 3)
    inputs = [None if t is None else t.requires_grad_() for t in (x, dt, A, B, C, D, initial)]
    kinds = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.relume.ssd_plain.default, (*inputs, 8, 1), test_utils=kinds)
    results = []
    for scan in (scan_operator, scan_chunks):
        y, last = scan(*inputs, 8)
        loss = (y * y.detach()).sum() + (last * last.detach()).sum()
        results.append([y, last, *torch.autograd.grad(loss, [t for t in inputs if t is not None])])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("length", [1, 64, 130])
def test_the_scan_of_exported_files_is_the_scan(length: int) -> None:
    """In value and gradient, also of the last state, where decay is strong."""
    torch.manual_seed(0)
    x, dt = torch.randn(2, length, 4, 3).double(), 3 * torch.rand(2, length, 4).double()
    A, B, C = -4 * torch.rand(4).double(), torch.randn(2, length, 2, 5).double(), torch.randn(2, length, 2, 5).double()
    inputs = [
        t.requires_grad_() for t in (x, dt, A, B, C, torch.randn(4, 1).double(), torch.randn(2, 2, 5, 2, 3).double())
    ]
    results = []
    for y, last in (scan_matrices(*inputs, 64), scan_chunks(*inputs, 16)):
        results.append([y, last, *torch.autograd.grad(y.sin().sum() + last.cos().sum(), inputs)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
