"""A run that is killed anywhere and resumed ends bit for bit like one that never was: weights, EMA, optimizer, records."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import differences, options, outcome, train

from relume.core.errors import EXIT_INTERRUPTED, EXIT_PREEMPTED

PLAIN: dict[str, Any] = {}
EMA_ACCUMULATION: dict[str, Any] = {"train__ema_decay": 0.9, "train__accumulate": 2}
WORKERS: dict[str, Any] = {"datasets__train__num_worker_per_gpu": 2, "train__ema_decay": 0.5, "train__warmup_iter": 3}
AMP: dict[str, Any] = {"train__amp": "bf16", "train__ema_decay": 0.9}
PROGRESSIVE: dict[str, Any] = {
    "datasets__train__mini_batch_sizes": [3, 2],
    "datasets__train__iters": [6, 6],
    "datasets__train__gt_sizes": [8, 12],
}
CASES = [
    pytest.param(PLAIN, "loss:8", id="plain, mid-epoch"),
    pytest.param(PLAIN, "loss:2", id="plain, before any checkpoint"),
    pytest.param(EMA_ACCUMULATION, "loss:21", id="EMA and accumulation, between micro-batches"),
    pytest.param(WORKERS, "loss:7", id="several workers and warm-up"),
    pytest.param(AMP, "metric:5", id="bf16, mid-validation"),
    pytest.param(PROGRESSIVE, "loss:9", id="progressive patches"),
    pytest.param(EMA_ACCUMULATION, "write:9", id="while writing a checkpoint"),
    pytest.param(PLAIN, "write:10", id="while writing a training state"),
]


@pytest.mark.parametrize(("changes", "accident"), CASES)
def test_killed_and_resumed_equals_uninterrupted(changes: dict[str, Any], accident: str, tmp_path: Path) -> None:
    opt = options(**changes)
    straight = train(tmp_path / "straight", opt)
    assert straight.returncode == 0, straight.stderr
    killed = train(tmp_path / "killed", opt, "--auto_resume", env={"RELUME_TEST_ACCIDENT": accident})
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    resumed = train(tmp_path / "killed", opt, "--auto_resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert differences(outcome(tmp_path / "straight"), outcome(tmp_path / "killed")) == []


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, EXIT_PREEMPTED), (signal.SIGUSR1, EXIT_PREEMPTED), (signal.SIGINT, EXIT_INTERRUPTED)],
)
def test_a_signal_checkpoints_and_leaves_with_its_code(number: int, code: int, tmp_path: Path) -> None:
    opt = options(train__ema_decay=0.9)
    assert train(tmp_path / "straight", opt).returncode == 0
    stopped = train(tmp_path / "stopped", opt, env={"RELUME_TEST_SIGNAL": f"loss:7:{int(number)}"})
    assert stopped.returncode == code, stopped.stdout + stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "at iteration 7; the checkpoint is saved. Continue with --auto_resume" in stopped.stderr
    assert train(tmp_path / "stopped", opt, "--auto_resume").returncode == 0
    assert differences(outcome(tmp_path / "straight"), outcome(tmp_path / "stopped")) == []


def test_a_signal_in_the_middle_of_a_validation_is_made_good(tmp_path: Path) -> None:
    opt = options()
    assert train(tmp_path / "straight", opt).returncode == 0
    stopped = train(tmp_path / "stopped", opt, env={"RELUME_TEST_SIGNAL": "metric:5:15"})
    assert stopped.returncode == EXIT_PREEMPTED, stopped.stdout + stopped.stderr
    assert train(tmp_path / "stopped", opt, "--auto_resume").returncode == 0
    assert differences(outcome(tmp_path / "straight"), outcome(tmp_path / "stopped")) == []


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path) -> None:
    opt = options(path__experiments_root=str(tmp_path / "elsewhere" / "experiments"))
    assert train(tmp_path, opt).returncode == 0
    root = tmp_path / "elsewhere" / "experiments" / "toy"
    straight = outcome(tmp_path / "elsewhere")
    newest = root / "training_states" / "12.state"
    os.truncate(newest, 1000)
    resumed = train(tmp_path, opt, "--auto_resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "12.state is damaged" in resumed.stdout and "going back to iteration 10" in resumed.stdout
    assert differences(straight, outcome(tmp_path / "elsewhere")) == []


def test_resume_refuses_to_start_from_zero_over_a_run_whose_checkpoints_are_all_damaged(tmp_path: Path) -> None:
    opt = options(train__total_iter=5, val__val_freq=None)
    assert train(tmp_path, opt).returncode == 0
    os.truncate(tmp_path / "experiments/toy/training_states/5.state", 10)
    refused = train(tmp_path, opt, "--auto_resume")
    assert refused.returncode == 2
    assert "no checkpoint can be trusted" in refused.stderr and "Traceback" not in refused.stderr
    assert (tmp_path / "experiments/toy/models/net_g_5.pth").exists()


def test_a_fresh_start_over_an_old_run_moves_it_aside_and_says_so(tmp_path: Path) -> None:
    opt = options(train__total_iter=5, val__val_freq=None)
    assert train(tmp_path, opt).returncode == 0
    again = train(tmp_path, opt)
    assert again.returncode == 0
    assert "trained to iteration 5, was moved to" in again.stdout
    assert len(list((tmp_path / "experiments").glob("toy_archived_*/models/net_g_5.pth"))) == 1


def test_explicit_resume_state_and_edited_options(tmp_path: Path) -> None:
    assert train(tmp_path, options(train__total_iter=5, val__val_freq=None)).returncode == 0
    state = tmp_path / "experiments/toy/training_states/5.state"
    longer = options("longer", path__resume_state=str(state), train__total_iter=7, train__optim_g__weight_decay=0.5)
    assert train(tmp_path, longer).returncode == 0
    final = torch.load(tmp_path / "experiments/longer/training_states/7.state", weights_only=True)
    assert final["iter"] == 7
    assert final["optimizers"]["g"]["param_groups"][0]["weight_decay"] == 0.5, "an edited option counts after a resume"
    wrong = train(tmp_path, options("wrong", path__resume_state=str(state.with_name("6.state"))))
    assert wrong.returncode == 2 and "path.resume_state" in wrong.stderr
