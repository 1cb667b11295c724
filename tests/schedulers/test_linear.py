"""Straight lines and the vibrating one."""

from __future__ import annotations

import pytest
import torch


def test_reaches_zero_and_stays(curve):
    got = [row[0] for row in curve({"type": "LinearLR", "total_iter": 4}, 7, [1.0])]
    assert got == pytest.approx([1, 0.75, 0.5, 0.25, 0, 0, 0])


@pytest.mark.parametrize("index", [0, 1])
def test_lambda_decay_of_the_original(index, golden, curve):
    c = torch.load(golden("underwater/lr_curves.pt"), weights_only=True)["lambda"][index]
    opt = {"type": "LambdaDecay", **{k: c[k] for k in ("niter", "niter_decay", "epoch_count")}}
    rates = curve(opt, len(c["lr"]), [c["lr0"]])
    assert (torch.tensor(rates, dtype=torch.float64)[:, 0] - c["lr"]).abs().max() < 1e-12
    three_per_epoch = curve({**opt, "iters_per_epoch": 3}, 3 * len(c["lr"]), [c["lr0"]])
    assert three_per_epoch == [row for row in rates for _ in range(3)]


def test_lambda_decay_by_hand(curve):
    opt = {"type": "LambdaDecay", "niter": 2, "niter_decay": 3, "epoch_count": 1, "iters_per_epoch": 2}
    got = [row[0] for row in curve(opt, 14, [1.0])]
    by_epoch = [1, 1, 0.75, 0.5, 0.25, 0, 0]  # e + 1 - 2 over 4, never below zero
    assert got == pytest.approx([v for v in by_epoch for _ in range(2)])


def test_vibration_by_hand(curve):
    got = [row[0] for row in curve({"type": "VibrateLR", "total_iter": 320}, 320, [1.0])]
    # a wave is 4 steps: 0, 1/2, 1, 1/2 times the envelope, 1 - 8 p / 3; the first rise is kept at 0.1 or more
    assert got[:5] == pytest.approx([0.1, (1 - 8 / 960) / 2, 1 - 16 / 960, (1 - 24 / 960) / 2, 0])
    assert got[120:124] == pytest.approx([0, 0.1, 0.2, 0.1])
    assert got[200:204] == pytest.approx([0, 0.05, 0.1, 0.05])
