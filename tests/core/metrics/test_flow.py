"""End-point error and Fl-all, against formulas written down pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.metrics import METRICS, calculate_metric, metric_space
from relume.core.metrics.scoring import Scorer

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(0, 40, (9, 11, 2))
FLOW = TRUTH + RNG.normal(0, 3, TRUTH.shape)


def score(kind: str, flow: object, truth: object, **options: object) -> float:
    return calculate_metric({"img": flow, "img2": truth}, {"type": kind, **options})


def slow(flow: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> tuple[float, float]:
    """(EPE, Fl-all)"""
    lengths, bad = [], 0
    for y in range(flow.shape[0]):
        for x in range(flow.shape[1]):
            if valid is None or valid[y, x]:
                d = math.hypot(*(flow[y, x] - truth[y, x]))
                lengths.append(d)
                bad += d > 3 and d / math.hypot(*truth[y, x]) > 0.05
    return sum(lengths) / len(lengths), 100 * bad / len(lengths)


def test_every_layout_is_the_slow_formula() -> None:
    epe, outliers = slow(FLOW, TRUTH)
    assert 5 < outliers < 95
    first = [torch.from_numpy(v).permute(2, 0, 1) for v in (FLOW, TRUTH)]
    pairs = [((FLOW, TRUTH), {}), (first, {}), ([v[None] for v in first], {})]
    pairs.append(([v.numpy() for v in first], {"input_order": "CHW"}))
    for (flow, truth), options in pairs:
        assert score("calculate_epe", flow, truth, **options) == pytest.approx(epe)
        assert score("fl_all", flow, truth, **options) == pytest.approx(outliers)
    assert METRICS.get("epe").better == METRICS.get("fl_all").better == "lower"
    assert metric_space("epe") == "flow"


def test_only_what_is_known_counts() -> None:
    valid = RNG.random(TRUTH.shape[:2]) < 0.5
    spoilt = np.where(valid[..., None], TRUTH, 777.0)
    expected = slow(FLOW, TRUTH, valid)
    for truth in (np.dstack([spoilt, valid]), np.where(valid[..., None], TRUTH, 1e10)):
        assert score("epe", FLOW, truth) == pytest.approx(expected[0])
        assert score("fl_all", FLOW, truth) == pytest.approx(expected[1])
    with pytest.raises(UserError, match="nothing is known"):
        score("epe", FLOW, np.dstack([TRUTH, np.zeros_like(valid)]))


def test_the_limits_are_exclusive() -> None:
    truth = np.zeros((1, 4, 2))
    truth[0, :, 0] = (0, 100, 60, 10)
    flow = truth + np.array([[[3.0, 0], [5.0, 0], [3.1, 0], [3.1, 0]]])
    assert score("fl_all", flow, truth) == 50.0  # 3 is not above 3, 5 is not above 5 % of 100


def test_two_flows_are_one_average() -> None:
    both = np.dstack([FLOW, FLOW]), np.dstack([TRUTH, FLOW])
    assert score("epe", *both) == pytest.approx(slow(FLOW, TRUTH)[0] / 2)


@pytest.mark.parametrize("kind", ["epe", "fl_all"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_nan(kind: str, value: float) -> None:
    flow = FLOW.copy()
    flow[0, 0, 0] = value
    assert not math.isfinite(score(kind, flow, TRUTH))


@pytest.mark.parametrize(
    ("flow", "truth"),
    [(FLOW, TRUTH[1:]), (FLOW[..., :1], TRUTH[..., :1]), (FLOW[..., 0], TRUTH), (np.zeros((0, 3, 2)),) * 2],
    ids=["size", "channels", "dimensions", "empty"],
)
@pytest.mark.parametrize("kind", ["epe", "fl_all"])
def test_what_is_no_flow_is_one_line(kind: str, flow: np.ndarray, truth: np.ndarray) -> None:
    with pytest.raises(UserError, match=f"^calculate_{kind}: flow"):
        score(kind, flow, truth)


def test_an_evaluation_scores_the_flow_of_its_model() -> None:
    scorer = Scorer({"epe": {"type": "calculate_epe"}, "psnr": {"type": "calculate_psnr"}}, {})
    flow, truth = (torch.from_numpy(v).float().permute(2, 0, 1)[None] for v in (FLOW, TRUTH))
    assert scorer.of_flow(flow, truth)[0] == {"epe": pytest.approx(slow(FLOW, TRUTH)[0], rel=1e-5)}
    assert "no true flow" in str(scorer.of_flow(flow, None)[1]["epe"])
    assert "estimates no flow" in str(scorer.of_flow(None, truth)[1]["epe"])
    image = torch.rand(1, 3, 8, 8)
    assert list(scorer.of_image("set", image, image.flip(-1), {})[0]) == ["psnr"]
