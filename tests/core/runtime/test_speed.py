"""core/runtime/speed.py: how torch computes during a run and not after it, and what a profile writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from runs import options

from relume.core.pipeline import train_pipeline
from relume.core.runtime.speed import computing
from relume.core.trainer import Trainer


def now() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("highest", False, False), ("highest", False, False, False)),
        (("high", True, False), ("high", True, True, False)),
        (("medium", True, True), ("medium", True, False, True)),
    ],
)
def test_inside_and_after(arguments: tuple, expected: tuple[object, ...], said: list[str]) -> None:
    before = now()
    with computing(*arguments):
        assert now() == expected
        assert torch.are_deterministic_algorithms_enabled() == arguments[2]
    assert now() == before and not torch.are_deterministic_algorithms_enabled()
    assert sum("takes precedence" in s for s in said) == (arguments[1] and arguments[2])


@pytest.mark.parametrize("graph", [False, True])
def test_options_reach_a_run(graph: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    """Also where CUDA graphs are asked for, which a CPU does not have."""
    monkeypatch.chdir(tmp_path)
    seen = []
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda trainer: seen.append(now()) or step(trainer))
    train_pipeline(
        options(
            train__matmul_precision="high",
            train__cudnn_benchmark=True,
            train__profile={"start": 2, "steps": 2},
            train__cuda_graph=graph,
            train__total_iter=4,
            val__val_freq=None,
        )
    )
    assert seen == [("high", True, True, False)] * 4
    assert any("cuda_graph" in s for s in said) == graph
    root = Path("experiments/toy")
    trace = json.loads((root / "profile_2.json").read_text())["traceEvents"]
    assert sum(e.get("name", "").startswith("Optimizer.step") for e in trace) == 2, "two steps were measured"
    table = (root / "profile_2.txt").read_text()
    assert "aten::" in table and len([line for line in table.splitlines() if "aten::" in line]) <= 10
