"""Milestones, doubled ones, and restarts."""

from __future__ import annotations

import pytest
from torch.optim import lr_scheduler


def test_drops_and_restarts(curve):
    opt = {"type": "MultiStepRestartLR", "milestones": [5, 2, 5, 8], "gamma": 0.5, "restarts": [0, 6, 8]}
    opt["restart_weights"] = [1, 0.6, 0.3]
    got = [row[0] for row in curve(opt, 10, [1.0])]
    # the milestone at 8 coincides with a restart and does nothing
    assert got == pytest.approx([1, 1, 0.5, 0.5, 0.5, 0.125, 0.6, 0.6, 0.3, 0.3])


def test_milestones_before_the_first_restart_count(curve):
    opt = {"type": "MultiStepRestartLR", "milestones": [1], "gamma": 0.5, "restarts": [3], "restart_weights": [2]}
    assert [row[0] for row in curve(opt, 5, [1.0])] == pytest.approx([1, 0.5, 0.5, 2, 2])


def test_equals_torch_without_restarts(curve, make_optimizer):
    optimizer = make_optimizer([1e-3, 1e-2])
    reference = lr_scheduler.MultiStepLR(optimizer, milestones=[3, 7, 7], gamma=0.3)
    for row in curve({"type": "MultiStepLR", "milestones": [3, 7, 7], "gamma": 0.3}, 12, [1e-3, 1e-2]):
        assert row == pytest.approx(reference.get_last_lr(), rel=1e-12)
        optimizer.step()
        reference.step()


def test_stairs_count_iterations_from_their_start(curve):
    got = [row[0] for row in curve({"type": "StairsLR", "every": 3, "gamma": 0.5, "start": 4}, 12)]
    assert got == [1e-3 * 0.5 ** max(0, (i - 4) // 3) for i in range(1, 13)]
    assert [row[0] for row in curve({"type": "StairsLR", "every": 1, "gamma": 0.5}, 3)] == [5e-4, 2.5e-4, 1.25e-4]
