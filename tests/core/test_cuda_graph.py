"""``train.cuda_graph`` on a simulated graph: what is trained is the same as without one, to the bit."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import TapeRecorder
from runs import REPO, differences, options, outcome
from test_waits import SMALL, SYSTEMS
from torch import nn

from relume.core.models.base import Batch, Model
from relume.core.models.restoration import RestorationModel
from relume.core.ops import hosts
from relume.core.options import load
from relume.core.pipeline import train_pipeline
from relume.core.runtime import step_graph
from relume.core.trainer import Trainer
from relume.core.training import steps
from relume.losses import LOSSES

OF_DEVICES = steps.recorder_for
FUSED = {"type": "Adam", "lr": 0.01, "fused": True}


@pytest.fixture(autouse=True)
def recorders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[TapeRecorder]]:
    """All recorders of a test."""
    monkeypatch.setattr(steps, "recorder_for", lambda device: TapeRecorder)
    monkeypatch.setattr(hosts, "asks_freely", lambda x: False)  # as on the device that the tape stands for
    monkeypatch.setattr(TapeRecorder, "every", [])
    monkeypatch.chdir(tmp_path)
    yield TapeRecorder.every


class Enough(Exception):
    """Ends a run."""


def curve(opt: Any, monkeypatch: pytest.MonkeyPatch, count: int = 8) -> tuple[list[Any], Any, int]:
    """What the steps of a run log; the state afterwards; and how many steps were replayed."""
    logged: list[Any] = []
    state: list[Any] = []

    def fit(self: Trainer) -> None:
        parts = self.parts
        for _ in range(count):
            scalars = self.advance()
            lost = self.look()
            logged.append(
                {k: repr(float(v)) for k, v in scalars.items() if not k.startswith("perf/") and k not in lost}
            )
        networks = [*parts.networks.values(), *self.averages.values()]
        found = {"networks": [n.state_dict() for n in networks], "all": self.state(), "bad": parts.guard.in_a_row}
        state.append(copy.deepcopy(found))
        raise Enough

    TapeRecorder.every.clear()
    monkeypatch.setattr(Trainer, "fit", fit)
    with pytest.raises(Enough):
        train_pipeline(opt)
    return logged, state[0], sum(r.replays for r in TapeRecorder.every)


def both(
    changes: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch, make: Any = options, count: int = 8
) -> tuple[list[str], int]:
    """How a run with a graph differs from one without, and how many steps were replayed."""
    settings = {"train__optim_g": FUSED, **changes}
    logged, state, _ = curve(make(**settings), monkeypatch, count)
    of_graph, state_of_graph, replays = curve(make(**settings, train__cuda_graph=True), monkeypatch, count)
    return differences([logged, state], [of_graph, state_of_graph]), replays


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train__optim_g": {"type": "AdamW", "lr": 0.01, "fused": True}, "train__ema_decay": 0.9},
        {"train__optim_g": {"type": "SGD", "lr": 0.01, "momentum": 0.9, "fused": True}, "train__grad_clip_norm": 0.5},
        {"train__ema_halflife": 8.0, "train__ema_rampup": 0.5, "train__warmup_iter": 6},
        {"train__accumulate": 2, "train__grad_clip_value": 0.1},
        {"train__amp": "fp16"},
        {"train__mixing_augs": {"mixup": True}, "train__multi_scale": [0.5, 1]},
    ],
    ids=["Adam", "AdamW", "SGD", "half-life", "accumulate", "fp16", "mixed"],
)
def test_trains_the_same(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = "train__multi_scale" in changes
    differ, replays = both(changes, monkeypatch, count=12 if sizes else 8)
    assert differ == [] and replays > 0 and (sizes or replays == 8 - 3 - 1)


def test_takes_bad_steps_back(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"datasets__train__poison": 3, "train__ema_decay": 0.9, "train__max_nonfinite": 20}
    differ, replays = both(changes, monkeypatch, count=14)
    assert differ == [] and replays == 14 - 3 - 1
    skipped = [line.partition("WARNING: ")[2] for line in capsys.readouterr().out.splitlines() if " skipped " in line]
    assert len(skipped) >= 4 and skipped[: len(skipped) // 2] == skipped[len(skipped) // 2 :]
    assert "img003.png" in skipped[-1]


def test_resumes_with_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str, until: int, graph: bool, **more: Any) -> Any:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        changes = {"train__total_iter": until, "train__cuda_graph": graph, "train__ema_decay": 0.9, **more}
        opt = options(train__optim_g=FUSED, logger__save_checkpoint_freq=6, val__val_freq=12, **changes)
        train_pipeline(opt, auto_resume=True)
        return outcome(folder, iteration=until)

    whole = run("plain", 12, graph=False)
    run("graph", 6, graph=True)
    resumed = run("graph", 12, graph=True)
    run("mixed", 6, graph=True)
    without = run("mixed", 12, graph=False)
    assert sum(r.replays for r in TapeRecorder.every) > 0
    for other in (resumed, without):
        assert differences(whole["weights"], other["weights"]) == []
        assert differences(whole["state"]["optimizers"], other["state"]["optimizers"]) == []
        assert all(isinstance(g["lr"], float) for g in other["state"]["optimizers"]["g"]["param_groups"])


def test_each_size_has_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_graph, "MOST_GRAPHS", 1)
    differ, replays = both({"train__multi_scale": [0.5, 1]}, monkeypatch, count=16)
    assert differ == [] and 0 < replays < 16 - 2 * 4
    assert sum(bool(r.tape) for r in TapeRecorder.every) == 1


class Reading(RestorationModel):
    """Looks at a number in each step."""

    def stage(self, step: int) -> None:
        return None

    def updates(self, batch: Batch, step: int) -> Any:
        if float(batch["lq"].mean()) >= 0:
            yield from super().updates(batch, step)


class Drawing(Reading):
    def stage(self, step: int) -> None:
        return None

    def updates(self, batch: Batch, step: int) -> Any:
        random.random()
        yield from RestorationModel.updates(self, batch, step)


class Uploading(Reading):
    def stage(self, step: int) -> None:
        return None

    def updates(self, batch: Batch, step: int) -> Any:
        yield from RestorationModel.updates(self, {**batch, "lq": batch["lq"] * torch.tensor(1.0)}, step)


class Silent(RestorationModel):
    def updates(self, batch: Batch, step: int) -> Any:
        yield from super().updates(batch, step)


@pytest.mark.parametrize(
    ("model", "changes", "reason"),
    [
        (None, {"train__optim_g": {"type": "RMSprop", "lr": 0.01}}, "optim_g (RMSprop) reads its rate on the host"),
        (None, {"train__checkpoint_activations": True}, "checkpoint_activations sets generators"),
        (Reading, {}, "it waits for the device (aten._local_scalar_dense)"),
        (Drawing, {}, "it draws random numbers on the host"),
        (Uploading, {}, "it brings numbers from the host (torch.tensor)"),
        (Silent, {}, "Silent does not say what its steps depend on (Model.stage)"),
    ],
)
def test_says_once_why_there_is_none(
    model: type[Model] | None,
    changes: dict[str, Any],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if model is not None:
        monkeypatch.setattr("relume.core.building.networks.model_class", lambda name: model)
    _, _, replays = curve(options(**{"train__optim_g": FUSED, "train__cuda_graph": True, **changes}), monkeypatch, 6)
    said = [line for line in capsys.readouterr().out.splitlines() if "WARNING: train.cuda_graph: " in line]
    assert replays == 0 and len(said) == 1 and reason in said[0]


def test_on_a_cpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(steps, "recorder_for", OF_DEVICES)
    curve(options(train__cuda_graph=True), monkeypatch, 1)
    assert "steps are taken without a graph: the device is cpu" in capsys.readouterr().out


class Failing(TapeRecorder):
    def record(self, compute: Any) -> Any:
        def failing() -> Any:
            compute()
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

        return super().record(failing)


def test_a_recording_that_fails_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(steps, "recorder_for", lambda device: Failing)
    differ, replays = both({"train__ema_decay": 0.9, "train__accumulate": 2}, monkeypatch)
    assert differ == [] and replays == 0
    assert "without a graph: CUDA error: operation not permitted when stream is capturing" in capsys.readouterr().out


class Moving(nn.Module):
    """A loss whose weight the host changes in every step, which a graph does not see."""

    calls = 0

    def forward(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return (pred - target).abs().mean() * self.calls


def test_the_simulation_keeps_numbers_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it would prove nothing."""
    monkeypatch.setitem(LOSSES._members, "Moving", Moving)  # and out again: other tests go through all losses
    differ, replays = both({"train__pixel_opt": {"type": "Moving"}}, monkeypatch)
    assert replays == 4 and differ


REFUSED = {"generation/faces": "GenerationModel draws a part of its memory, noise and times on the host in every step"}
"""Shipped systems whose steps cannot be recorded, and why."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("system", SYSTEMS)
def test_shipped_systems(system: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if "RELUME_SLOW_TESTS" not in os.environ:
        pytest.skip("slow; set RELUME_SLOW_TESTS=1")
    changes = [*SMALL, *SYSTEMS[system]]
    if "generation" in system:
        changes = ["datasets:train:batch_size_per_gpu=4" if "batch" in c else c for c in changes]
    file = REPO / f"options/{system}.yml"
    optimizers = [k for k in load(file, changes).train or {} if k.startswith("optim_")]
    changes += [f"train:{k}:fused=true" for k in optimizers]
    logged, state, _ = curve(load(file, changes), monkeypatch, 6)
    of_graph, state_of_graph, replays = curve(load(file, [*changes, "train:cuda_graph=true"]), monkeypatch, 6)
    said = [
        line.partition("without a graph: ")[2]
        for line in capsys.readouterr().out.splitlines()
        if "without a graph" in line
    ]
    assert said == ([REFUSED[system]] if system in REFUSED else [])
    assert replays == (0 if system in REFUSED else 2)
    assert differences([logged, state], [of_graph, state_of_graph]) == []
