"""core/guard.py: verdicts on updates, counting, findings in words, the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def judged(guard: Guard, updates: list[Update], norm: float | torch.Tensor = 1.0, **settings: Any) -> tuple[bool, bool]:
    """Whether an update, by itself a step, counts and whether it failed."""
    batches = settings.pop("batches", [batch("a")] * len(updates))
    parameters = settings.pop("parameters", [])
    norms = settings.pop("norms", torch.zeros(len(parameters)))
    guard.begin(batches)
    iteration = settings.pop("iteration", 1)
    sound, failed = guard.judge(
        iteration, updates, batches, parameters, norms, torch.as_tensor(norm), guard.going, **settings
    )
    guard.close(sound, failed)
    return bool(sound), bool(failed)


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
    updates = [update(l_a=losses[0]), update(l_b=losses[1])]
    assert judged(guard, updates, norm) == (finite, not finite)
    assert guard.counted.item() == (not finite)
    excused = not finite and losses_finite
    guard.in_a_row = 0
    assert judged(guard, updates, norm, scale=torch.tensor(2.0)) == (finite, not finite and not excused)
    assert judged(guard, updates, norm, scale=torch.tensor(0.5)) == (finite, not finite), "no lower scale could help"


def test_half_precision_losses_are_judged_too(guard: Guard) -> None:
    sound = Update("g", {"l_a": torch.tensor(1.0, dtype=torch.bfloat16), "l_b": torch.tensor(2.0)})
    assert judged(guard, [sound], torch.tensor(1.0, dtype=torch.float16)) == (True, False)


def test_findings_name_losses_samples_and_parameters(guard: Guard, said: list[str]) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    updates, batches = [update(l_pix=1.0, l_fft=INF), update(l_pix=NAN, l_fft=2.0)], [batch("a", "b"), batch("c")]
    judged(guard, updates, iteration=7, batches=batches)
    judged(guard, [update(l_pix=1.0)], iteration=8)
    parameters = list(network.parameters())
    judged(guard, [update(l_pix=1.0)], NAN, iteration=9, parameters=parameters, norms=torch.full((4,), NAN))
    assert said == [], "nobody has looked yet"
    guard.look({"g": network})
    assert said == [
        "iteration 7 skipped (1 in a row): l_fft = inf for a, b, gt/a, gt/b; l_pix = nan for c, gt/c",
        "iteration 9 skipped (1 in a row): the losses are finite, the gradients of g.0.weight, g.0.bias, g.1.weight and 1 more "
        "are not",
    ]
    assert guard.in_a_row == 1 and guard.look({"g": network}) == set()


def test_what_follows_a_bad_update_of_the_same_step_is_lost(guard: Guard, said: list[str]) -> None:
    for iteration, value in ((3, 1.0), (3, 2.0), (4, NAN), (4, NAN), (5, 1.0), (5, 1.0)):
        judged(guard, [update(l_pix=value)], iteration=iteration)
    assert guard.look({}) == {3} and len(said) == 1


def test_the_last_straw(guard: Guard, tmp_path: Path) -> None:
    network = nn.Linear(2, 1)
    for iteration, value in ((1, NAN), (2, 1.0), (3, NAN)):
        judged(guard, [update(l_pix=value)], iteration=iteration)
    guard.look({"g": network})
    assert not list(tmp_path.iterdir()) and guard.in_a_row == 1
    # Nobody looks for a while: no step counts after the last straw, and its samples stay.
    for iteration, value, name in ((4, NAN, "a"), (5, 1.0, "b"), (6, NAN, "c")):
        samples = [{**batch(name), "lq": torch.full((1, 3, 2, 2), float(iteration))}]
        assert not judged(guard, [update(l_pix=value)], iteration=iteration, batches=samples)[0]
    other = [{**batch("d"), "lq": torch.ones(1, 3, 4, 4)}]
    assert guard.must_look(other) and not guard.must_look(samples)
    with pytest.raises(
        NonFiniteError, match=r"stopped at iteration 4: 2 steps in a row .* relume replay .*nonfinite_4"
    ) as e:
        guard.look({"g": network}, lambda: {"options": "name: x\n", "seed": 3, "rank": 0})
    assert e.value.code == 3 and "\n" not in str(e.value)
    bundle = torch.load(tmp_path / "nonfinite_4_rank0.pt", weights_only=True)
    assert bundle["options"] == "name: x\n" and bundle["iteration"] == 4 and bundle["batches"][0]["lq_path"] == ["a"]
    assert torch.equal(bundle["batches"][0]["lq"], torch.full((1, 3, 2, 2), 4.0))
    assert torch.equal(bundle["networks"]["g"]["weight"], network.weight)
    assert bundle["losses"][0]["l_pix"] != bundle["losses"][0]["l_pix"]


def test_who_resumes_after_the_last_straw_may_try_again(guard: Guard) -> None:
    guard.in_a_row = 2
    assert judged(guard, [update(l_pix=1.0)]) == (True, False) and guard.counted.item() == 0
