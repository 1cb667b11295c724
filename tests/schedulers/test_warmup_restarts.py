"""Growing cosine cycles with ramps."""

from __future__ import annotations

import pytest
import torch

from relume.schedulers import build_scheduler

OPT = {"type": "CosineAnnealingWarmupRestarts", "first_cycle_steps": 5, "max_lr": 1.0, "min_lr": 0.1}


def test_cycles_by_hand(curve):
    opt = {**OPT, "first_cycle_steps": 4, "cycle_mult": 1.5, "warmup_steps": 2, "gamma": 0.5}
    got = [row[0] for row in curve(opt, 15)]
    first = [0.1, 0.55, 1.0, 0.55]  # ramp of 2, cosine of 2
    second = [0.1, 0.3, 0.5, 0.4, 0.2]  # peak 0.5, cosine of int(2 * 1.5) = 3
    third = [0.1, 0.175, 0.25, 0.2121320, 0.1378680, 0.1]  # peak 0.25, cosine of int(3 * 1.5) = 4
    assert got[:9] == pytest.approx(first + second)
    assert got[9:12] == pytest.approx(third[:3])
    assert got[12:15] == pytest.approx([0.1 + 0.075 * (1 + c) for c in (2**-0.5, 0, -(2**-0.5))])


def test_without_a_ramp_only_the_very_first_step_is_at_the_floor(curve):
    got = [row[0] for row in curve({**OPT, "first_cycle_steps": 4}, 9)]
    assert got[0] == 0.1
    assert got[4] == got[8] == 1.0


def test_long_run_of_the_hdr_options(golden, make_optimizer):
    c = torch.load(golden("hdr/schedulers.pt"), weights_only=True)["real_hdr"]
    config = dict(c["config"])
    warmup_iter, lr = config.pop("warmup_iter"), config.pop("optimizer_lr")
    optimizer = make_optimizer([lr])
    schedule = build_scheduler(optimizer, {"type": "CosineAnnealingWarmupRestarts", **config}, warmup_iter)
    for iteration, expected in zip(c["iters"].tolist(), c["lr"].tolist(), strict=True):
        schedule.load_state_dict({"last_epoch": iteration - 1})
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, abs=1e-12)


def test_an_explicit_step_equals_walking_there(golden, make_optimizer):
    c = torch.load(golden("hdr/schedulers.pt"), weights_only=True)["explicit_epochs"]["mult=1.0"]
    optimizer = make_optimizer()
    schedule = build_scheduler(optimizer, {"type": "CosineAnnealingWarmupRestarts", **c["config"]})
    for epoch, expected in zip(c["epochs"], c["lr"].tolist(), strict=True):
        schedule.load_state_dict({"last_epoch": epoch})
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, abs=1e-12)


def test_an_explicit_step_is_right_where_the_originals_other_formula_is_not(golden, make_optimizer, curve):
    """The original has a second formula for explicit steps, which drifts away from walking after the first cycle."""
    c = torch.load(golden("hdr/schedulers.pt"), weights_only=True)["explicit_epochs"]["mult=1.5"]
    opt = {"type": "CosineAnnealingWarmupRestarts", **c["config"]}
    walked = curve(opt, max(c["epochs"]) + 1)
    optimizer = make_optimizer()
    schedule = build_scheduler(optimizer, opt)
    for epoch, original in zip(c["epochs"], c["lr"].tolist(), strict=True):
        schedule.load_state_dict({"last_epoch": epoch})
        assert [optimizer.param_groups[0]["lr"]] == walked[epoch]
        if epoch < c["config"]["first_cycle_steps"]:
            assert optimizer.param_groups[0]["lr"] == pytest.approx(original, abs=1e-12)


def test_warm_up_then_cosine_per_step(golden, curve):
    (c,) = torch.load(golden("underwater/lr_curves.pt"), weights_only=True)["warmup_cosine_per_step"]
    opt = {**OPT, "first_cycle_steps": c["total"], "warmup_steps": c["warmup"], "max_lr": c["lr0"], "min_lr": 0.0}
    rates = torch.tensor(curve(opt, c["total"], [c["lr0"]]), dtype=torch.float64)[:, 0]
    assert (rates - c["lr"]).abs().max() < 1e-12


def test_a_peak_for_each_group(curve):
    got = curve({**OPT, "max_lr": [1.0, 0.5], "warmup_steps": 2}, 5, [1e-3, 1e-3])
    assert got[2] == [1.0, 0.5]
    assert got[1] == pytest.approx([0.55, 0.3])


def test_shrinking_cycles_come_to_an_end(curve):
    ramps = [row[0] for row in curve({**OPT, "warmup_steps": 2, "cycle_mult": 0.5}, 12)]
    assert ramps[5:8] == pytest.approx([0.1, 0.55, 1.0])  # cosine of int(3 / 2) = 1
    assert ramps[8:] == pytest.approx([0.1, 0.55, 0.1, 0.55])  # then only ramps are left
    assert [row[0] for row in curve({**OPT, "cycle_mult": 0.1}, 9)][5:] == [0.1] * 4
