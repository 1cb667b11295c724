"""The schedule that the trainer steps: warm-up, resume, and torch's own schedulers."""

from __future__ import annotations

import copy

import pytest
import torch

from relume.core.errors import UserError
from relume.schedulers import NOT_OPTIONS, SCHEDULERS, build_scheduler

TORCH = [
    {"type": "ConstantLR", "factor": 0.5, "total_iters": 4},
    {"type": "CosineAnnealingLR", "T_max": 6, "eta_min": 1e-5},
    {"type": "CosineAnnealingWarmRestarts", "T_0": 3, "T_mult": 2},
    {"type": "CyclicLR", "base_lr": 1e-4, "max_lr": 1e-2, "step_size_up": 3, "mode": "exp_range", "gamma": 0.9},
    {"type": "ExponentialLR", "gamma": 0.8},
    {"type": "OneCycleLR", "max_lr": 1e-2, "total_steps": 40},
    {"type": "PolynomialLR", "total_iters": 9, "power": 2.0},
    {"type": "StepLR", "step_size": 3, "gamma": 0.5},
]
by_type = pytest.mark.parametrize("opt", TORCH, ids=lambda o: o["type"])


def walk(optimizer, schedule, steps):
    """Rates and momentum in force during the next `steps` iterations."""
    rows = []
    for _ in range(steps):
        rows.append([(g["lr"], g["momentum"]) for g in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return rows


@by_type
def test_torch_schedulers_by_name(opt, make_optimizer):
    optimizer, twin = make_optimizer([1e-3, 2e-3], momentum=0.9), make_optimizer([1e-3, 2e-3], momentum=0.9)
    schedule = build_scheduler(optimizer, opt)
    reference = getattr(torch.optim.lr_scheduler, opt["type"])(twin, **{k: v for k, v in opt.items() if k != "type"})
    assert walk(optimizer, schedule, 15) == walk(twin, reference, 15)


def test_all_of_torch_that_need_no_metric_are_covered():
    torch_names = {n for n in vars(torch.optim.lr_scheduler) if n.endswith(("LR", "Restarts"))}
    ours = set(SCHEDULERS.names()) | {a for n in SCHEDULERS for a in SCHEDULERS.aliases(n)}
    assert {o["type"] for o in TORCH} == torch_names - ours - {*NOT_OPTIONS}


@pytest.mark.parametrize("name", NOT_OPTIONS)
def test_what_no_option_file_can_say_is_not_there(name, make_optimizer):
    assert name not in SCHEDULERS
    assert name not in SCHEDULERS.library_names()
    with pytest.raises(UserError, match="no scheduler is called"):
        build_scheduler(make_optimizer([1e-3]), {"type": name})


@by_type
@pytest.mark.parametrize("warmup_iter", [-1, 5])
def test_torch_schedulers_resume_exactly(opt, warmup_iter, make_optimizer):
    optimizer = make_optimizer([1e-3, 2e-3], momentum=0.9)
    schedule = build_scheduler(optimizer, opt, warmup_iter)
    saved, straight = [], []
    for _ in range(15):
        saved.append(copy.deepcopy((optimizer.state_dict(), schedule.state_dict())))
        straight += walk(optimizer, schedule, 1)
    for stop in range(15):
        optimizer = make_optimizer([1e-3, 2e-3], momentum=0.9)
        schedule = build_scheduler(optimizer, opt, warmup_iter)
        optimizer.load_state_dict(saved[stop][0])
        schedule.load_state_dict(saved[stop][1])
        assert walk(optimizer, schedule, 15 - stop) == straight[stop:]


@by_type
def test_warm_up_does_not_leak(opt, curve):
    warm = curve(opt, 12, [1e-3, 2e-3], warmup_iter=5)
    assert warm[:4] == [[base / 5 * i for base in (1e-3, 2e-3)] for i in (1, 2, 3, 4)]
    assert warm[4:] == curve(opt, 12, [1e-3, 2e-3])[4:]


def test_no_scheduler_keeps_the_rates_of_the_groups(curve):
    assert curve(None, 3, [1e-3, 2e-3]) == [[1e-3, 2e-3]] * 3
    assert curve(None, 4, [1.0], warmup_iter=3) == [[1 / 3], [2 / 3], [1.0], [1.0]]


def test_edited_options_hold_after_a_resume(make_optimizer):
    for opt, edited in [
        ({"type": "StepLR", "step_size": 2}, {"type": "StepLR", "step_size": 2, "gamma": 0.5}),
        ({"type": "MultiStepLR", "milestones": [2]}, {"type": "MultiStepLR", "milestones": [2], "gamma": 0.5}),
    ]:
        before = make_optimizer([1e-3])
        schedule = build_scheduler(before, opt)
        walk(before, schedule, 2)
        after = make_optimizer([4e-3])  # the learning rate was edited as well
        resumed = build_scheduler(after, edited)
        after.load_state_dict(before.state_dict())
        resumed.load_state_dict(schedule.state_dict())
        assert after.param_groups[0]["lr"] == pytest.approx(2e-3)


def test_building_twice_starts_from_the_configured_rate(make_optimizer):
    optimizer = make_optimizer([1e-3])
    walk(optimizer, build_scheduler(optimizer, {"type": "LinearLR", "total_iter": 4}), 2)
    schedule = build_scheduler(optimizer, None)
    assert schedule.get_last_lr() == [1e-3]


def test_state_of_a_torch_scheduler_is_understood(make_optimizer):
    optimizer = make_optimizer([1.0])
    build = {"type": "StepLR", "step_size": 2, "gamma": 0.5}
    state = {"step_size": 99, "gamma": 0.9, "base_lrs": [5.0], "last_epoch": 5, "_last_lr": [0.3]}
    schedule = build_scheduler(optimizer, build)
    schedule.load_state_dict(state)
    assert schedule.get_last_lr() == [0.25]


def test_plateau_steps_on_scores_and_resumes(make_optimizer):
    opt = {"type": "ReduceLROnPlateau", "mode": "max", "factor": 0.5, "patience": 1}
    scores = [1.0, 0.9, 0.8, 2.0, 1.9, 1.8, 1.7, 1.6]

    def run(resume_after=None):
        optimizer = make_optimizer([1.0])
        schedule = build_scheduler(optimizer, opt, warmup_iter=4)
        rates = []
        for i, score in enumerate(scores):
            if i == resume_after:
                state = copy.deepcopy(schedule.state_dict())
                optimizer = make_optimizer([1.0])
                schedule = build_scheduler(optimizer, opt, warmup_iter=4)
                schedule.load_state_dict(state)
            rates += schedule.get_last_lr()
            optimizer.step()
            schedule.step()
            schedule.step_metric(score)
        return rates

    # the third score is the second without improvement: halved, which shows once the warm-up is over
    assert run() == [0.25, 0.5, 0.75, 0.5, 0.5, 0.5, 0.25, 0.25]
    for stop in range(len(scores)):
        assert run(stop) == run()


def test_a_score_means_nothing_to_other_schedulers(make_optimizer):
    optimizer = make_optimizer([1.0])
    schedule = build_scheduler(optimizer, {"type": "StepLR", "step_size": 1})
    schedule.step_metric(3.0)
    assert schedule.get_last_lr() == [1.0]


def test_a_skipped_first_optimizer_step_does_not_warn(make_optimizer):
    schedule = build_scheduler(make_optimizer(), {"type": "StepLR", "step_size": 1})
    schedule.step()  # warnings are errors in this suite


def test_options_are_not_modified_and_errors_are_one_line(make_optimizer):
    opt = {"type": "CosineAnnealingRestartLR", "periods": [3, 4]}
    before = copy.deepcopy(opt)
    build_scheduler(make_optimizer(), opt)
    assert opt == before
    for wrong, words in [
        ({"type": "CosineAnealingLR", "T_max": 3}, "CosineAnnealing"),
        ({"type": "StepLR", "step_sise": 3}, "Did you mean 'step_size'?"),
        ({"type": "StepLR"}, "lacks 'step_size'"),
        ({"type": "OneCycleLR", "max_lr": 1.0, "total_steps": -3}, "scheduler OneCycleLR: "),
    ]:
        with pytest.raises(UserError) as e:
            build_scheduler(make_optimizer(), wrong)
        assert words in str(e.value)
        assert "\n" not in str(e.value)


def test_one_cycle_that_is_too_short_says_so(make_optimizer):
    optimizer = make_optimizer(momentum=0.9)
    schedule = build_scheduler(optimizer, {"type": "OneCycleLR", "max_lr": 1.0, "total_steps": 3})
    with pytest.raises(UserError, match="scheduler OneCycleLR: "):
        walk(optimizer, schedule, 5)
