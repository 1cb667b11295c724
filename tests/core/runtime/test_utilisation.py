"""core/runtime/utilisation.py: what a step's time goes to, and how many operations it does, without a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import options
from torch.utils.flop_counter import FlopCounterMode

from relume.core import trainer as trainers
from relume.core.pipeline import train_pipeline
from relume.core.runtime.operations import CompiledCalls, Counted, counts_calls
from relume.core.runtime.utilisation import Clock, Utilisation, in_words, peak


def test_operations_are_those_that_torch_counts_itself() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.ConvTranspose2d(8, 4, 2, 2))
    x = torch.rand(2, 3, 12, 10)
    with FlopCounterMode(display=False) as theirs:
        network(x).sum().backward()
    with Counted() as ours:
        network(x).sum().backward()
    assert ours.flops == theirs.get_total_flops() > 0


def test_a_convolution_by_hand() -> None:
    x, weight = torch.rand(2, 3, 8, 8), torch.rand(5, 3, 3, 3)
    with Counted() as seen:
        torch.nn.functional.conv2d(x, weight)
    assert seen.flops == 2 * 2 * 5 * 6 * 6 * 27


def test_what_has_no_formula_is_named_and_ends_nothing() -> None:
    def wrong(*_: Any, **__: Any) -> int:
        raise ValueError("other arguments")

    with Counted() as seen:
        seen.formulas = {**seen.formulas, torch.ops.aten.mm: wrong}
        y = torch.rand(2, 3) @ torch.rand(3, 4)
    assert y.shape == (2, 4) and seen.flops == 0 and seen.unknown == {"aten.mm"}


@pytest.mark.parametrize(
    ("name", "amp", "precision", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", "highest", 312.0),
        ("NVIDIA A100 80GB PCIe", "off", "high", 156.0),
        ("NVIDIA H100 80GB HBM3", "off", "highest", 67.0),
        ("Tesla T4", "fp16", "highest", 65.0),
        ("NVIDIA A10G", "bf16", "highest", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", "highest", None),
    ],
)
def test_known_gpus(name: str, amp: str, precision: str, expected: float | None) -> None:
    assert peak(name, amp, precision) == expected


def test_each_size_is_counted_once_and_ever_changing_ones_are_not() -> None:
    found = Utilisation(torch.device("cuda"), False, None)
    x = torch.rand(4, 4)
    for size in (2, 2, 3):
        with found.counting([{"lq": torch.rand(size, 1), "name": "a"}]):
            x @ x
    assert len(found.flops) == 2 and found.now == 128
    assert found.of(2e-12) == {"perf/tflops": 64.0}
    for size in range(4, 40):
        with found.counting([{"lq": torch.rand(size, 1)}]):
            x @ x
    assert len(found.flops) == 8 and found.now is None and found.of(1.0) == {}


def test_a_cpu_is_not_counted() -> None:
    found = Utilisation(torch.device("cpu"), False, 1.0)
    with found.counting([{"lq": torch.rand(1)}]):
        torch.rand(2, 2) @ torch.rand(2, 2)
    assert found.of(1.0) == {}


def test_compiled_networks_are_counted_as_before_they_were(said: list[str]) -> None:
    def step(network: torch.nn.Module) -> torch.Tensor:
        torch.manual_seed(1)
        return network(x).square().mean() + network(x, True)["y"][0].mean()

    x = torch.rand(2, 3, 8, 8)
    network = Branching()
    with Counted() as plain:
        step(network).backward()
    gradients = [p.grad for p in network.parameters()]
    network.zero_grad()
    network.compile(backend="eager")
    counts_calls(network)
    found = Utilisation(torch.device("cuda"), True, None)
    for _ in range(2):
        network.zero_grad()
        with found.counting([{"lq": x}]):
            step(network).backward()
        assert found.now == plain.flops > 0
        assert all(
            torch.equal(g, p.grad) for g, p in zip(gradients, network.parameters(), strict=True) if g is not None
        )
    with found.counting([{"lq": x[:1]}]), torch.no_grad():
        network(x[:1])
    assert found.now == 2 * 64 * 5 * 27
    assert sum("leave out the work of: losses" in s for s in said) == 1


class Branching(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, x: torch.Tensor, named: bool = False) -> Any:
        y = torch.nn.functional.dropout(self.body(x), 0.5, self.training)
        return {"y": (y, None)} if named else y


class Looking(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if float(x.mean()) > 0 else x


def test_a_network_that_looks_at_values_is_named() -> None:
    seen = CompiledCalls()
    seen.add(Looking(), [torch.rand(2)], {})
    assert seen.flops == 0 and seen.unknown == {"Looking"}


def test_the_clock_adds_up_to_what_passed() -> None:
    clock = Clock()
    clock.step(0.25, 1.0)
    clock.step(0.75, 1.0)
    clock.device = 3.0
    assert clock.take() == {"perf/wait_data": 0.5, "perf/wait_device": 1.5, "perf/host": 0.5}
    assert clock.take() == dict.fromkeys(("perf/wait_data", "perf/wait_device", "perf/host"), 0.0)


def test_a_run_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    on_cpu: list[Any] = []
    for name in ("plain", "counted"):
        if name == "counted":
            monkeypatch.setattr(trainers, "Utilisation", lambda *_: Utilisation(torch.device("cuda"), False, 1e-3))
        train_pipeline(options(name, train__total_iter=4, logger__print_freq=2, val__val_freq=None))
        lines = (tmp_path / f"experiments/{name}/metrics.jsonl").read_text().splitlines()
        on_cpu.append([r for r in map(json.loads, lines) if "lr" in r])
    plain, counted = on_cpu
    assert all(r["l_pix"] == q["l_pix"] for r, q in zip(plain, counted, strict=True)), "counting changes no bit"
    assert all({"perf/wait_data", "perf/wait_device", "perf/host"} <= r.keys() for r in plain)
    assert not any("perf/tflops" in r for r in plain) and not any("TFLOP/s" in s for s in said[: len(said) // 2])
    for record in counted:
        seconds = record["perf/wait_data"] + record["perf/wait_device"] + record["perf/host"]
        flops = record["perf/tflops"] * seconds
        assert flops > 0 and record["perf/mfu"] == pytest.approx(1e3 * record["perf/tflops"])
    assert sum("TFLOP/s" in s and "% of peak" in s and "GiB" in s for s in said) == 2


def test_nothing_is_said_of_a_cpu() -> None:
    assert in_words({"perf/wait_data": 1.0, "perf/memory_gib": 2.0}) == ""
