"""What all closed forms share, and the curves of the originals."""

from __future__ import annotations

import pytest
import torch

from relume.core.errors import UserError
from relume.schedulers import SCHEDULERS, build_scheduler
from relume.schedulers.base import ClosedForm

GOLDEN_CASES = [
    "cawr_small",
    "cawr_warmup_iter",
    "cawr_mult1",
    "cawr_nowarm",
    "cawr_two_groups_maxlr_ne_optlr",
    "cyclic_small",
    "cyclic_paper_bug_lr2e-4",
    "multistep",
    "multistep_restarts",
    "cosine_restart",
    "linear",
    "vibrate",
    "cos_with_restart",
    "true_cosine",
]

EXAMPLES = [
    {
        "type": "CosineAnnealingWarmupRestarts",
        "first_cycle_steps": 9,
        "cycle_mult": 1.4,
        "max_lr": 2e-3,
        "warmup_steps": 3,
    },
    {"type": "CosineAnnealingRestartCyclicLR", "periods": [5, 8], "eta_mins": [1e-4, 1e-6]},
    {"type": "CosineAnnealingRestartLR", "periods": [5, 8], "restart_weights": [1, 0.5], "eta_min": 1e-5},
    {"type": "CosineAnnealingLRWithRestart", "T_max": 7, "restarts": [0, 9], "restart_weights": [1, 0.5]},
    {"type": "TrueCosineAnnealingLR", "T_max": 11},
    {
        "type": "MultiStepRestartLR",
        "milestones": [4, 9],
        "gamma": 0.5,
        "restarts": [0, 12],
        "restart_weights": [1, 0.7],
    },
    {"type": "StairsLR", "every": 5, "gamma": 0.5, "start": 3},
    {"type": "LinearLR", "total_iter": 14},
    {"type": "LambdaDecay", "niter": 2, "niter_decay": 3, "iters_per_epoch": 3},
    {"type": "VibrateLR", "total_iter": 160},
    {"type": "WarmupCosineLR", "total_steps": 20, "warmup_steps": 5, "eta_min": 1e-5},
    {"type": "WarmupDecayLR", "warmup": 5, "total": 20},
]
by_type = pytest.mark.parametrize("opt", EXAMPLES, ids=lambda o: o["type"])


def test_every_registered_scheduler_has_an_example():
    assert sorted(o["type"] for o in EXAMPLES) == SCHEDULERS.names()


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_curves_of_the_originals(case, golden, curve):
    c = torch.load(golden("hdr/schedulers.pt"), weights_only=True)["cases"][case]
    expected = c["lr"].clamp(min=0)  # the original LinearLR goes below zero
    rates = curve({"type": c["type"], **c["config"]}, len(expected), c["optimizer_lrs"], c["warmup_iter"])
    assert (torch.tensor(rates, dtype=torch.float64) - expected).abs().max() < 1e-12


@by_type
def test_resumed_at_any_step_equals_straight(opt, curve, make_optimizer):
    straight = curve(opt, 40, [1e-3, 5e-4])
    for stop in range(40):
        optimizer = make_optimizer([1e-3, 5e-4])
        schedule = build_scheduler(optimizer, opt)
        schedule.load_state_dict({"last_epoch": stop})
        assert [g["lr"] for g in optimizer.param_groups] == straight[stop]


@by_type
def test_far_past_its_end_a_rate_is_finite_and_not_negative(opt, make_optimizer):
    optimizer = make_optimizer()
    schedule = build_scheduler(optimizer, opt)
    for last in (1_000, 10_000_000):
        schedule.load_state_dict({"last_epoch": last})
        assert 0 <= optimizer.param_groups[0]["lr"] <= 2e-3


@by_type
def test_a_rate_written_by_somebody_else_has_no_effect(opt, curve, make_optimizer):
    optimizer = make_optimizer()
    scheduler = SCHEDULERS.build(opt, optimizer=optimizer)
    for expected in curve(opt, 12)[1:]:
        optimizer.param_groups[0]["lr"] = 77.0
        scheduler.step()
        assert [optimizer.param_groups[0]["lr"]] == expected == scheduler.get_last_lr()


def test_state_is_the_position_and_options_win(make_optimizer):
    old = SCHEDULERS.build({"type": "MultiStepLR", "milestones": [2], "gamma": 0.5}, optimizer=make_optimizer())
    for _ in range(3):
        old.step()
    assert old.state_dict() == {"last_epoch": 3}
    optimizer = make_optimizer()
    new = SCHEDULERS.build({"type": "MultiStepLR", "milestones": [2], "gamma": 0.1}, optimizer=optimizer)
    new.load_state_dict(old.state_dict())
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)


def test_torch_convention_of_last_epoch(make_optimizer):
    optimizer = make_optimizer()
    optimizer.param_groups[0]["initial_lr"] = 1e-3
    scheduler = SCHEDULERS.get("LinearLR")(optimizer, total_iter=10, last_epoch=4)
    assert scheduler.last_epoch == 5
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5e-4)


def test_rates_kept_as_tensors_are_written_in_place():
    parameter = torch.nn.Parameter(torch.zeros(1))
    rate = torch.tensor(1e-3)
    optimizer = torch.optim.SGD([parameter], lr=rate)
    schedule = build_scheduler(optimizer, {"type": "LinearLR", "total_iter": 4})
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(7.5e-4)


def test_a_formula_below_zero_is_zero(make_optimizer):
    class Falling(ClosedForm):
        def rate(self, base, step):
            return base - step

    optimizer = make_optimizer([1.5])
    scheduler = Falling(optimizer)
    scheduler.step(2)
    assert optimizer.param_groups[0]["lr"] == 0.0


@pytest.mark.parametrize(
    ("opt", "words"),
    [
        (
            {"type": "CosineAnnealingRestartLR", "periods": [3, 4], "restart_weights": [1]},
            "2 periods, but 1 restart_weights",
        ),
        ({"type": "CosineAnnealingRestartLR", "periods": []}, "periods must be positive"),
        ({"type": "CosineAnnealingRestartCyclicLR", "periods": [3], "eta_mins": [1, 2]}, "1 periods, but 2 eta_mins"),
        ({"type": "MultiStepLR", "milestones": [3], "restarts": [0, 2], "restart_weights": [1]}, "2 restarts, but 1"),
        ({"type": "CosineAnnealingWarmupRestarts", "first_cycle_steps": 4, "warmup_steps": 4}, "must be less than"),
        ({"type": "CosineAnnealingWarmupRestarts", "first_cycle_steps": 4, "cycle_mult": -1}, "must not be negative"),
        ({"type": "CosineAnnealingWarmupRestarts", "first_cycle_steps": 4, "max_lr": [1, 2]}, "has 2 entries"),
        ({"type": "TrueCosineAnnealingLR", "T_max": 0}, "T_max must be a positive"),
        ({"type": "StairsLR", "every": 0}, "every must be a positive"),
        ({"type": "LinearLR", "total_iter": 0}, "total_iter must be a positive"),
        ({"type": "LambdaDecay", "iters_per_epoch": 0}, "iters_per_epoch must be a positive"),
        ({"type": "LambdaDecay", "niter_decay": -1}, "niter_decay must not be negative"),
        ({"type": "VibrateLR", "total_iter": 159}, "at least 160"),
    ],
)
def test_impossible_options_are_one_line(opt, words, make_optimizer):
    with pytest.raises(UserError) as e:
        build_scheduler(make_optimizer(), opt)
    assert words in str(e.value)
    assert "\n" not in str(e.value)
