"""WarmupDecayLR: the original's curves, its report's figure, and independence of the batch size."""

from __future__ import annotations

import pytest
import torch

from relume.schedulers import build_scheduler

BLOCK = {"type": "WarmupDecayLR", "warmup": 10, "total": 100}


def test_curves_of_the_original(golden, make_optimizer):
    stored = torch.load(golden("generation/schedules.pt"), weights_only=True)
    for case in stored["lr"]:
        block = {k: case[k] for k in ("warmup", "total", "min_ratio")}
        optimizer = make_optimizer([case["base_lr"]])
        schedule = build_scheduler(
            optimizer, {"type": "WarmupDecayLR", **block, "shape": case["schedule"], "unit": "iterations"}
        )
        for k, lr in zip(stored["steps"].tolist(), case["lr"].tolist(), strict=True):
            schedule.load_state_dict({"last_epoch": int(k)})
            assert optimizer.param_groups[0]["lr"] == pytest.approx(lr, rel=1e-12, abs=1e-25), (case["schedule"], k)


def test_the_rate_that_the_original_report_ends_with(make_optimizer):
    optimizer = make_optimizer([1e-4])
    block = {"type": "WarmupDecayLR", "warmup": 10_000, "total": 100_000, "unit": "iterations"}
    schedule = build_scheduler(optimizer, block)
    schedule.load_state_dict({"last_epoch": 3124})
    assert optimizer.param_groups[0]["lr"] == pytest.approx(3.124e-5, rel=1e-12)


def test_samples_are_counted_whatever_the_batch(make_optimizer):
    def rates(batch):
        optimizer = make_optimizer([1.0])
        schedule = build_scheduler(optimizer, BLOCK, samples=lambda iteration: iteration * batch)
        found = {}
        for iteration in range(1, 120 // batch + 1):
            found[iteration * batch] = optimizer.param_groups[0]["lr"]
            optimizer.step()
            schedule.step()
        return found

    by_one, by_four = rates(1), rates(4)
    assert all(by_one[k] == by_four[k] for k in by_four)
    assert by_one[1] == pytest.approx(0.1) and by_one[10] == 1.0 and by_one[100] == by_one[120] == pytest.approx(0.01)
    assert by_one[55] == pytest.approx(0.505)


def test_no_decay_left_after_the_warm_up(curve):
    block = {"type": "WarmupDecayLR", "warmup": 3, "total": 3}
    assert [r[0] for r in curve(block, 4, [1.0])] == pytest.approx([1 / 3, 2 / 3, 0.01, 0.01])
