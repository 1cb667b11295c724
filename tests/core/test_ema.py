"""core/ema.py: the average is the average, buffers follow, evaluation runs on it and leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from relume.core.ema import EMA, evaluating
from relume.core.models.base import Model


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_average_equals_the_recurrence_and_buffers_are_copied() -> None:
    net = network()
    ema = EMA({"g": net}, 0.9)
    expected = net[0].weight.detach().double().clone()
    for step in range(5):
        with torch.no_grad():
            net[0].weight.add_(0.1 * (step + 1))
        net(torch.randn(4, 3))
        ema.update({"g": net})
        expected = 0.9 * expected + 0.1 * net[0].weight.detach().double()
    average = ema.networks["g"]
    torch.testing.assert_close(average[0].weight.double(), expected, rtol=1e-6, atol=1e-7)
    assert torch.equal(average[1].running_mean, net[1].running_mean)
    assert average[1].num_batches_tracked == 5
    assert not any(p.requires_grad for p in average.parameters())


def test_an_average_of_a_step_that_did_not_count_stays_as_it_is() -> None:
    net = network()
    plain, judged = EMA({"g": net}, 0.9), EMA({"g": net}, 0.9)
    for step in range(6):
        with torch.no_grad():
            net[0].weight.add_(0.1 * (step + 1))
        net(torch.randn(4, 3))
        net[0].bias = nn.Parameter(net[0].bias.detach() + 1)  # as some training code replaces parameters
        before = {k: v.clone() for k, v in judged.networks["g"].state_dict().items()}
        sound = step % 2 == 0
        judged.update({"g": net}, sound=torch.tensor(sound))
        after = judged.networks["g"].state_dict()
        assert all(torch.equal(before[k], v) for k, v in after.items()) is not sound
        if sound:
            plain.update({"g": net})
            torch.testing.assert_close(dict(plain.networks["g"].state_dict()), dict(after), rtol=1e-6, atol=1e-7)


def test_evaluating_swaps_networks_and_modes_and_puts_them_back() -> None:
    net = network()
    model = Model({"g": net}, {})
    ema = EMA({"g": net}, 0.5)
    wrapped = model.networks["g"]
    with evaluating(model, {"g": net}, ema):
        assert model.networks["g"] is ema.networks["g"]
        assert not torch.is_grad_enabled() and not model.networks["g"].training
    assert model.networks["g"] is wrapped and net.training and torch.is_grad_enabled()
    with evaluating(model, {"g": net}, None):
        assert not net.training
    assert net.training


def test_half_life_is_counted_in_samples_whatever_the_batch() -> None:
    net = network()
    ema = EMA({"g": net}, 0.0, halflife=100.0)
    assert ema.decay_at(seen=100, taken=100) == 0.5
    assert ema.decay_at(seen=10, taken=10) ** 10 == pytest.approx(0.5)
    ramped = EMA({"g": net}, 0.0, halflife=100.0, rampup=0.5)
    assert ramped.decay_at(seen=20, taken=10) == 0.5, "half of 20 samples"
    assert ramped.decay_at(seen=1000, taken=100) == 0.5, "the half-life itself"


def test_curves_and_trajectory_of_the_original(golden: Callable[[str], Path]) -> None:
    stored = torch.load(golden("generation/schedules.pt"), weights_only=True)["ema"]
    for case in stored["curves"]:
        rampup = case["rampup_ratio"] if case["rampup_ratio"] > 0 else None
        ema = EMA({}, 0.0, case["halflife_img"], rampup)
        for seen, beta in zip(case["nimg"].tolist(), case["beta"].tolist(), strict=True):
            assert ema.decay_at(int(seen), case["batch"]) == pytest.approx(beta, rel=1e-12)
    path = stored["trajectory"]
    net = nn.ParameterList([path["net0"].clone()])
    ema = EMA({"g": net}, 0.0, path["halflife_img"], path["rampup_ratio"])
    for step, (weights, average) in enumerate(zip(path["nets"], path["ema"], strict=True), start=1):
        with torch.no_grad():
            net[0].copy_(weights)
        ema.begin(step * path["batch"], path["batch"])
        ema.update({"g": net})
        torch.testing.assert_close(ema.networks["g"][0].data, average, rtol=1e-6, atol=1e-7)
