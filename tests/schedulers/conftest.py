"""Optimizers to schedule, and the curve that a schedule makes."""

from __future__ import annotations

import pytest
import torch

from relume.schedulers import build_scheduler


@pytest.fixture
def make_optimizer():
    """``make_optimizer([1e-3, 5e-4])``: SGD with one parameter group per rate."""

    def make(rates=(1e-3,), **settings):
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates]
        return torch.optim.SGD(groups, lr=1.0, **settings)

    return make


@pytest.fixture
def curve(make_optimizer):
    """``curve(opt, steps, rates)``: the rates in force in iterations 1 to `steps`, one list per iteration."""

    def run(opt, steps, rates=(1e-3,), warmup_iter=-1):
        optimizer = make_optimizer(rates)
        schedule = build_scheduler(optimizer, opt, warmup_iter)
        rows = []
        for _ in range(steps):
            rows.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            schedule.step()
        return rows

    return run
