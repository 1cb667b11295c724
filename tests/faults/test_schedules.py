"""Learning rates that would be others than the options say, by kind and scheduler."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from relume.core.errors import UserError
from relume.core.runtime.optimizers import build_optimizer
from relume.schedulers import build_scheduler

LENGTH = 12
SCHEDULES: list[dict[str, Any]] = [
    {"type": "ConstantLR"},
    {"type": "CosineAnnealingLR", "T_max": 6, "eta_min": 1e-4},
    {"type": "CosineAnnealingRestartLR", "periods": [4, 8], "eta_min": 1e-4},
    {"type": "CosineAnnealingWarmRestarts", "T_0": 3, "eta_min": 1e-4},
    {
        "type": "CosineAnnealingWarmupRestarts",
        "first_cycle_steps": 5,
        "max_lr": 3e-3,
        "min_lr": 1e-4,
        "warmup_steps": 2,
    },
    {"type": "CyclicLR", "base_lr": 1e-4, "max_lr": 1e-2, "step_size_up": 3},
    {"type": "ExponentialLR", "gamma": 0.8},
    {"type": "LambdaDecay", "niter": 3, "niter_decay": 9},
    {"type": "MultiStepLR", "milestones": [3, 7]},
    {"type": "OneCycleLR", "max_lr": 2e-3, "total_steps": LENGTH},
    {"type": "PolynomialLR", "total_iters": 9},
    {"type": "ReduceLROnPlateau", "patience": 0, "min_lr": 1e-4},
    {"type": "TrueCosineAnnealingLR", "T_max": 6, "eta_min": 1e-4},
    {"type": "WarmupCosineLR", "total_steps": LENGTH, "warmup_steps": 3, "eta_min": 1e-4},
]


def two_groups(lr_scale: float = 0.1, lr: float = 1e-3) -> torch.optim.Optimizer:
    named = [(name, torch.nn.Parameter(torch.zeros(1))) for name in ("offset", "gain")]
    block = {"type": "SGD", "lr": lr, "momentum": 0.9, "param_groups": [{"params": "offset", "lr_scale": lr_scale}]}
    return build_optimizer(named, block)


def rates(opt: dict[str, Any], optimizer: torch.optim.Optimizer, warmup: int = -1) -> list[list[float]]:
    schedule = build_scheduler(optimizer, opt, warmup, better="higher")
    rows = []
    for _ in range(LENGTH - 1):
        rows.append(schedule.get_last_lr())
        optimizer.step()
        schedule.step()
        schedule.step_metric(20.0)
    return rows


@pytest.mark.parametrize("scale", [0.1, 0.0, 3.0])
@pytest.mark.parametrize("warmup", [-1, 4])
@pytest.mark.parametrize("opt", SCHEDULES, ids=lambda o: o["type"])
def test_lr_scale_is_a_share_of_the_rate_in_every_iteration(opt, warmup, scale) -> None:
    rows = rates(opt, two_groups(scale), warmup)
    assert len({rest for _, rest in rows}) > 1  # it is a schedule
    assert [scaled for scaled, _ in rows] == pytest.approx([scale * rest for _, rest in rows], rel=1e-12, abs=1e-18)
    alone = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3, momentum=0.9)
    assert [rest for _, rest in rows] == pytest.approx([rest for (rest,) in rates(opt, alone, warmup)], rel=1e-12)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0, "half", True])
def test_an_impossible_lr_scale_is_refused(scale) -> None:
    with pytest.raises(UserError, match="lr_scale of 'offset' must be a number from 0 on"):
        two_groups(scale)


@pytest.mark.parametrize("opt", [{"type": "OneCycleLR", "max_lr": [1e-3, 2e-3], "total_steps": 9}], ids=["max_lr"])
def test_rates_by_group_and_lr_scale_are_not_both_obeyed(opt) -> None:
    with pytest.raises(UserError, match="leave one of the two out"):
        build_scheduler(two_groups(), opt)


@pytest.mark.parametrize("opt", [o for o in SCHEDULES if {"max_lr", "base_lr"} & o.keys()], ids=lambda o: o["type"])
def test_the_rate_of_a_group_is_not_replaced_in_silence(opt, caplog) -> None:
    def groups() -> torch.optim.Optimizer:
        named = [(name, torch.nn.Parameter(torch.zeros(1))) for name in ("offset", "gain")]
        rule = {"params": "offset", "lr": 1e-4}
        return build_optimizer(named, {"type": "SGD", "lr": 1e-3, "momentum": 0.9, "param_groups": [rule]})

    build_scheduler(groups(), opt)
    (line,) = [r.getMessage() for r in caplog.records]
    assert re.search(r"(max|base)_lr is the rate of all groups, .* give them lr_scale", line)
    caplog.clear()
    lists = {k: [v / 10, v] if k in ("max_lr", "base_lr", "min_lr") else v for k, v in opt.items()}
    if opt["type"] != "CosineAnnealingWarmupRestarts":  # which knows no lists of least rates
        assert all(a == pytest.approx(b / 10) for a, b in rates(lists, groups())) and not caplog.records


@pytest.mark.parametrize("better", ["higher", "lower"])
@pytest.mark.parametrize("rises", [True, False])
def test_a_plateau_is_where_the_metric_says_that_nothing_gets_better(better, rises) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    schedule = build_scheduler(optimizer, {"type": "ReduceLROnPlateau", "factor": 0.1, "patience": 1}, better=better)
    for i in range(6):
        optimizer.step()
        schedule.step()
        schedule.step_metric(20.0 + i if rises else 20.0 - i)
    assert (schedule.get_last_lr() == [1e-2]) == (rises == (better == "higher"))


def test_a_mode_that_is_given_holds() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    opt = {"type": "ReduceLROnPlateau", "mode": "min", "factor": 0.1, "patience": 0}
    schedule = build_scheduler(optimizer, opt, better="higher")
    for score in (1.0, 2.0):
        optimizer.step()
        schedule.step()
        schedule.step_metric(score)
    assert schedule.get_last_lr() == [pytest.approx(1e-3)]
