"""Training times: the original's quantiles and stages, and the share of one-step samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.models.draws import normal_of, uniform_of
from relume.core.models.generation.times import Times

RENAMED = {"student_t_df": "df", "logit_mean": "mean", "logit_std": "std", "beta_a": "alpha", "beta_b": "beta"}


def test_quantiles_of_the_original(golden):
    for case in torch.load(golden("generation/schedules.pt"), weights_only=True)["time_sampler"]:
        options = {RENAMED[k]: v for k, v in case["params"].items()}
        times = Times(case["type"], **options)
        low, high = case["t_min"], case["t_max"]
        exact = times.quantile(case["probs"].numpy(), low, high)
        np.testing.assert_allclose(exact, case["exact"].numpy(), rtol=1e-9, atol=1e-12)
        assert np.abs(exact - case["empirical"].numpy()).max() < 0.004 * (high - low)
        drawn = times.quantile(np.random.default_rng(0).random(1_000_000), low, high)
        found = np.quantile(drawn, case["probs"].numpy())
        assert np.abs(found - case["exact"].numpy()).max() < 0.004 * (high - low), case["type"]
        assert drawn.mean() == pytest.approx(case["mean"], abs=2e-3)


def test_stages_of_the_original(golden):
    case = torch.load(golden("generation/schedules.pt"), weights_only=True)["two_stage"]
    times = Times(
        stage1=tuple(case["stage1"]),
        stage2=tuple(case["stage2"]),
        stage1_samples=case["stage1_steps"],
        transition_samples=case["transition_steps"],
    )
    for k, expected in zip(case["steps"].tolist(), case["range"].tolist(), strict=True):
        assert times.range_at(k) == pytest.approx(expected, rel=1e-12)


def test_one_step_samples_and_the_range():
    times = Times(
        "uniform", one_step=0.25, stage1=(0.1, 0.3), stage2=(0.5, 1.0), stage1_samples=10, transition_samples=0
    )
    u = uniform_of(range(4000), 2).numpy()
    early, late = times.draw(u, 9), times.draw(u, 10)
    assert (early == 0).mean() == pytest.approx(0.25, abs=0.03) and ((early == 0) == (late == 0)).all()
    moved = early[early > 0]
    assert 0.1 <= moved.min() < 0.11 and 0.29 < moved.max() <= 0.3
    assert late[late > 0].min() >= 0.5


def test_quantiles_are_pinned():
    found = Times(df=4.0, mean=-0.5, std=1.2).quantile(np.array([0.1, 0.5, 0.9]), 0.0, 0.3)
    np.testing.assert_allclose(found, PINNED, rtol=1e-7)


PINNED = [0.0263628405660, 0.113262200639, 0.237739459950]


@pytest.mark.parametrize("interval", [(0.7, 0.2), (-0.1, 0.5), (0.5, 1.5)])
def test_impossible_intervals(interval):
    with pytest.raises(UserError, match=r"stage1: .* is no interval"):
        Times(stage1=interval)


def test_draws_belong_to_seeds():
    many, few = normal_of([5, 6, 7], 3, 2), normal_of([7, 5], 3, 2)
    assert torch.equal(many[[2, 0]], few)
    assert torch.equal(uniform_of([5, 6, 7], 4)[[2, 0]], uniform_of([7, 5], 4))
    normal, uniform = normal_of(range(3000), 2), uniform_of(range(3000), 2)
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.02) and normal.std().item() == pytest.approx(1, abs=0.03)
    assert abs(np.corrcoef(normal[:, 0], uniform[:, 0])[0, 1]) < 0.05
