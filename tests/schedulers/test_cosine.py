"""Cosine schedules: values at the turning points, and what comes after the end."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler

from relume.core.errors import UserError
from relume.schedulers import SCHEDULERS


def test_periods_have_their_own_weight_and_floor(curve):
    opt = {
        "type": "CosineAnnealingRestartCyclicLR",
        "periods": [4, 2],
        "restart_weights": [1, 0.5],
        "eta_mins": [0.2, 0.1],
    }
    got = [row[0] for row in curve(opt, 10, [1.0])]
    wave = [1.0, 0.8828427, 0.6, 0.3171573, 0.2]  # 0.2 + 0.4 (1 + cos(pi t / 4))
    assert got[:5] == pytest.approx(wave, abs=1e-7)
    assert got[5:7] == pytest.approx([0.1 + 0.5 * 0.45, 0.1])  # the peak, at step 4, belongs to the period before
    assert got[7:] == [0.1] * 3


def test_one_floor_for_all_periods(curve):
    one = {"type": "CosineAnnealingRestartLR", "periods": [4, 3], "eta_min": 0.1}
    each = {"type": "CosineAnnealingRestartCyclicLR", "periods": [4, 3], "eta_mins": [0.1, 0.1]}
    assert curve(one, 9) == curve(each, 9)


def test_equals_torch_up_and_down_again(curve, make_optimizer):
    optimizer = make_optimizer([1e-3])
    reference = lr_scheduler.CosineAnnealingLR(optimizer, T_max=7, eta_min=1e-5)
    for row in curve({"type": "TrueCosineAnnealingLR", "T_max": 7, "eta_min": 1e-5}, 25):
        assert row == pytest.approx(reference.get_last_lr(), rel=1e-9)
        optimizer.step()
        reference.step()


def test_warm_up_and_cosine_of_the_original(golden, curve, make_optimizer):
    compared = 0
    for case in torch.load(golden("vfi/protocol.pt"), weights_only=True)["cases"]:
        if case["name"].startswith("lr_"):
            config = case["config"]
            opt = {
                "type": "WarmupCosineLR",
                "total_steps": config["step_per_epoch"] * config["total_epochs"],
                "warmup_steps": config["warmup"],
                "eta_min": config["min_lr"],
            }
            schedule = SCHEDULERS.build(opt, optimizer=make_optimizer([config["base_lr"]]))
            got = [schedule.rate(config["base_lr"], step) for step in case["input"]["steps"]]
            assert got == pytest.approx(case["output"]["lr"], rel=1e-9, abs=1e-15)
            compared += 1
    assert compared == 4


def test_warm_up_and_cosine(curve):
    opt = {"type": "WarmupCosineLR", "total_steps": 6, "warmup_steps": 2, "eta_min": 0.2}
    got = curve(opt, 8, [1.0, 0.1])
    assert [row[0] for row in got] == pytest.approx([0, 0.5, 1, 0.8828427, 0.6, 0.3171573, 0.2, 0.2])
    assert [row[1] for row in got] == pytest.approx([0, 0.05, *[0.1] * 6])  # a floor lifts nothing
    with pytest.raises(UserError, match="must be less than total_steps"):
        curve({"type": "WarmupCosineLR", "total_steps": 2000}, 1)


def test_saw_restarts_with_a_weight_for_one_step(curve):
    opt = {"type": "CosineAnnealingLRWithRestart", "T_max": 4, "restarts": [0, 6], "restart_weights": [1, 0.5]}
    got = [row[0] for row in curve(opt, 9, [1.0])]
    wave = [1.0, 0.8535534, 0.5, 0.1464466]
    assert got == pytest.approx([*wave, *wave[:2], 0.5, *wave[1:3]], abs=1e-7)
