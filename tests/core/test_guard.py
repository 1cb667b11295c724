"""core/guard.py: verdicts on updates, counting, findings in words, the bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from relume.core.errors import NonFiniteError
from relume.core.guard import Guard
from relume.core.models.base import Update

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    return Guard(2, tmp_path, torch.device("cpu"))


def update(**losses: float) -> Update:
    return Update("g", {k: torch.tensor(v) for k, v in losses.items()})


def batch(*names: str) -> dict[str, object]:
    return {"lq": torch.ones(len(names), 3, 2, 2), "lq_path": list(names), "gt_path": [f"gt/{n}" for n in names]}


@pytest.mark.parametrize(
    ("losses", "norm", "finite", "losses_finite"),
    [
        ([1.0, 2.0], 3.0, True, True),
        ([1.0, NAN], 3.0, False, False),
        ([INF, 1.0], NAN, False, False),
        ([-INF, 1.0], 0.0, False, False),
        ([1.0, 2.0], INF, False, True),
        ([1.0, 2.0], NAN, False, True),
        ([0.0, 0.0], 0.0, True, True),
    ],
)
def test_verdicts(guard: Guard, losses: list[float], norm: float, finite: bool, losses_finite: bool) -> None:
    verdict = guard.judge([update(l_a=losses[0]), update(l_b=losses[1])], torch.tensor(norm), stop_code=75)
    assert (verdict.finite, verdict.losses_finite, verdict.stop_code) == (finite, losses_finite, 75)


def test_half_precision_losses_are_judged_too(guard: Guard) -> None:
    sound = Update("g", {"l_a": torch.tensor(1.0, dtype=torch.bfloat16), "l_b": torch.tensor(2.0)})
    assert guard.judge([sound], torch.tensor(1.0, dtype=torch.float16), 0).finite


def test_findings_name_losses_samples_and_parameters(guard: Guard, said: list[str]) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    updates, batches = [update(l_pix=1.0, l_fft=INF), update(l_pix=NAN, l_fft=2.0)], [batch("a", "b"), batch("c")]
    guard.failed(7, updates, batches, {"g": network}, {})
    expected = "l_fft = inf for a, b, gt/a, gt/b; l_pix = nan for c, gt/c"
    assert said == [f"iteration 7 skipped (1 in a row): {expected}"]
    guard.passed()
    for p in network.parameters():
        p.grad = torch.full_like(p, NAN)
    guard.failed(8, [update(l_pix=1.0)], [batch("a")], {"g": network}, {})
    expected = "the losses are finite, the gradients of g.0.weight, g.0.bias, g.1.weight and 1 more are not"
    assert said[1] == f"iteration 8 skipped (1 in a row): {expected}"


def test_the_last_straw(guard: Guard, tmp_path: Path) -> None:
    network = nn.Linear(2, 1)
    arguments = ([update(l_pix=NAN)], [batch("a")], {"g": network}, {"options": "name: x\n", "seed": 3, "rank": 0})
    guard.failed(1, *arguments)
    guard.passed()
    guard.failed(3, *arguments)
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        NonFiniteError, match=r"stopped at iteration 4: 2 steps in a row .* relume replay .*nonfinite_4"
    ) as e:
        guard.failed(4, *arguments)
    assert e.value.code == 3 and "\n" not in str(e.value)
    bundle = torch.load(tmp_path / "nonfinite_4_rank0.pt", weights_only=True)
    assert bundle["options"] == "name: x\n" and bundle["iteration"] == 4 and bundle["batches"][0]["lq_path"] == ["a"]
    assert torch.equal(bundle["networks"]["g"]["weight"], network.weight)
    assert bundle["losses"][0]["l_pix"] != bundle["losses"][0]["l_pix"]
