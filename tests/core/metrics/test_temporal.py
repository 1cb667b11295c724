"""Warping error and tOF: against formulas written down pixel by pixel, on motion that is known, and in an evaluation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from relume.core import evaluation
from relume.core.errors import UserError
from relume.core.evaluation import Evaluator
from relume.core.metrics import calculate_metric, metric_direction, metric_space, temporal

WIDE = gaussian_filter(np.random.default_rng(0).random((64, 96, 3)), (1.5, 1.5, 0))
WIDE = ((WIDE - WIDE.min()) / (WIDE.max() - WIDE.min())).astype(np.float32)
MOVING = np.stack([WIDE[8:56, 4 + 2 * t : 68 + 2 * t] for t in range(4)])  # 2 pixels to the left a frame


def score(kind: str, img: Any, img2: Any, **options: Any) -> float:
    return calculate_metric({"img": img, "img2": img2}, {"type": kind, **options})


def test_the_warping_error_of_a_pair_is_the_slow_formula() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.uniform(0, 255, (2, 20, 24, 3))
    forward = (np.array([2, 1]) + gaussian_filter(rng.normal(0, 6, (20, 24, 2)), (3, 3, 0))).astype(np.float32)
    forward[:, 12:] += 2.5  # a boundary of two motions
    backward = np.where(rng.random((20, 24, 1)) < 0.9, -forward, 3 * forward).astype(np.float32)
    total = count = 0.0
    for y in range(20):
        for x in range(24):
            u, v = map(float, forward[y, x])
            to = [[y + v], [x + u]]
            if not (0 <= x + u <= 23 and 0 <= y + v <= 19):
                continue
            back = [map_coordinates(backward[..., k], to, order=1, mode="nearest")[0] for k in (0, 1)]
            square = u * u + v * v
            if (u + back[0]) ** 2 + (v + back[1]) ** 2 > 0.01 * (square + back[0] ** 2 + back[1] ** 2) + 0.5:
                continue
            right, below = forward[y, min(x + 1, 23)] - forward[y, x], forward[min(y + 1, 19), x] - forward[y, x]
            if (right**2).sum() + (below**2).sum() > 0.01 * square + 0.002:
                continue
            for c in range(3):
                total += (
                    first[y, x, c] - map_coordinates(second[..., c], to, order=1, mode="nearest")[0]
                ) ** 2 / 255**2
                count += 1
    assert 150 < count < 1200
    # OpenCV samples at multiples of 1/32 pixel
    assert temporal.warping_error(first, second, forward, backward) == pytest.approx(total / count, rel=0.03)
    assert temporal.visible(forward, backward).sum() == pytest.approx(count / 3, abs=3)


def test_flow_points_to_the_next_frame() -> None:
    flow = temporal.flow_between(*(temporal.gray(255.0 * frame) for frame in MOVING[:2]))
    assert np.abs(flow[8:-8, 8:-8] - (-2, 0)).mean() < 0.15


def test_a_clip_that_flickers_is_worse_than_one_that_is_wrong_steadily() -> None:
    rng = np.random.default_rng(2)
    flicker = np.clip(MOVING + rng.normal(0, 0.05, MOVING.shape), 0, 1).astype(np.float32)
    steady = 0.9 * MOVING + 0.05
    still = np.repeat(MOVING[:1], 4, 0)
    for kind, most in (("warping_error", 2e-3), ("tof", 0.06)):
        same = score(kind, MOVING, MOVING)
        assert (same == 0) == (kind == "tof")
        assert max(same, score(kind, steady, MOVING)) < most < score(kind, flicker, MOVING)
        assert score(kind, still, MOVING) > most
        assert metric_direction(kind) == "lower" and metric_space(kind) == "clip"
    # what stands still where all moves by 2 pixels is wrong by 2 pixels
    assert score("tOF", still, MOVING, crop_border=0) == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize("kind", ["calculate_warping_error", "calculate_tof"])
def test_every_layout_and_range_is_the_same_clip(kind: str) -> None:
    made = ((0.8 * MOVING + 0.1 * MOVING[::-1]) * 255).astype(np.uint8)
    true = (MOVING * 255).astype(np.uint8)
    expected = score(kind, made, true)
    assert expected > 0
    first = [np.moveaxis(clip, 3, 1) for clip in (made, true)]
    assert score(kind, *first, input_order="CHW") == expected
    assert score(kind, list(made), list(true)) == expected
    tensors = [torch.from_numpy(clip.copy()).float() / 255 for clip in first]
    assert score(kind, *tensors, color_order="bgr") == pytest.approx(expected, rel=1e-4)
    dark = [clip.astype(np.float32) for clip in (made, true)]
    assert score(kind, *dark) == pytest.approx(expected, rel=1e-4)
    for clip in dark:
        clip[0] *= 0.002  # a frame that alone would be taken for one in [0, 1]
    assert score(kind, *dark) == pytest.approx(score(kind, *dark, data_range=255), rel=1e-6)
    pairs = [score(kind, made[t : t + 2], true[t : t + 2]) for t in range(3)]
    assert expected == pytest.approx(np.mean(pairs))
    tensors[0][1, 0, 3, 3] = math.nan
    assert math.isnan(score(kind, *tensors))
    tiny = np.zeros((2, 1, 1, 3), np.uint8)
    assert score(kind, tiny, tiny) == 0


@pytest.mark.parametrize("kind", ["calculate_warping_error", "calculate_tof"])
def test_what_is_no_clip_is_refused_in_one_line(kind: str) -> None:
    for img, img2, message in (
        (MOVING[:1], MOVING[:1], "at least 2 frames, got 1"),
        (MOVING[0], MOVING[0], "a clip is"),
        (MOVING, MOVING[:3], "clips of 4 and 3 frames"),
        (MOVING[:, :-2], MOVING, "different sizes"),
        ([*MOVING, MOVING[0][:-2]], [*MOVING, MOVING[0][:-2]], "several sizes"),
        (MOVING, MOVING, "crop_border 40"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            score(kind, img, img2, **({"crop_border": 40} if "border" in message else {}))
        assert "\n" not in str(caught.value)


def test_a_cut_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = temporal.visible
    calls: list[int] = []

    def cut_after_the_second(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
        calls.append(1)
        return real(forward, backward) & (len(calls) != 2)

    expected = np.mean([score("warping_error", MOVING[t : t + 2], MOVING[t : t + 2]) for t in (0, 2)])
    monkeypatch.setattr(temporal, "visible", cut_after_the_second)
    assert score("warping_error", MOVING, MOVING) == pytest.approx(expected)
    monkeypatch.setattr(temporal, "visible", lambda forward, backward: np.zeros(forward.shape[:2], bool))
    with pytest.raises(UserError, match="no pixel of a frame is seen in the next one"):
        score("warping_error", MOVING, MOVING)


class Darker:
    """A model that gives what it is given, a little darker; single frames where asked for."""

    networks: dict[str, Any] = {}
    single = False

    def predict(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        output = 0.9 * batch["lq"]
        return {"output": output[:, 1] if self.single else output}

    def baselines(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"input": batch["lq"]}


def test_an_evaluation_scores_motion_of_whole_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [torch.from_numpy(MOVING[:count].copy()).permute(0, 3, 1, 2)[None] for count in (4, 2)]
    noisy = [(clip + 0.05 * torch.randn(clip.shape, generator=torch.manual_seed(0))).clamp(0, 1) for clip in clips]
    loader = [
        {"lq": lq, "gt": gt, "folder": [name], "name": [name], "index": torch.tensor([i])}
        for i, (name, lq, gt) in enumerate(zip("ab", noisy, clips, strict=True))
    ]

    def run(model: Any, loader: list[dict[str, Any]] = loader) -> dict[str, float]:
        kinds = ("psnr", "warping_error", "tof")
        evaluator = Evaluator(
            loaders={"set": loader},
            metrics={kind: {"type": f"calculate_{kind}"} for kind in kinds},
            folder=tmp_path,
            device=torch.device("cpu"),
            image_name=lambda *_: "x",
            score_input=True,
            eight_bit=False,
        )
        return evaluator.run(model, 1)["set"]

    found = run(Darker())
    for kind in ("warping_error", "tof"):
        for ending, factor in (("", 0.9), ("_input", 1.0)):
            each = [score(kind, factor * lq[0], gt[0]) for lq, gt in zip(noisy, clips, strict=True)]
            assert found[kind + ending] == pytest.approx(np.mean(each), rel=1e-4)
    shares: list[Any] = []  # of two ranks, each with a clip, of which the second ends with both
    with monkeypatch.context() as patched:
        patched.setattr(evaluation.distributed, "gather", lambda own: (shares.append(own), list(shares))[1])
        run(Darker(), loader[1:])
        assert run(Darker(), loader[:1]) == found
    model = Darker()
    model.single = True
    with pytest.raises(UserError, match="scores whole clips"):
        run(model)
