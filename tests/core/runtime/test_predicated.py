"""core/runtime/predicated.py: steps that are taken back leave every bit as it was, whatever the optimizer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from runs import differences
from torch import Tensor

from relume.core.runtime.optimizers import OPTIMIZERS as OPTIMIZERS_BY_NAME
from relume.core.runtime.optimizers import build_optimizer, counting_there
from relume.core.runtime.predicated import Stepper, chosen, put_back
from relume.core.runtime.state import load_optimizer_state

NAN = float("nan")
YES, NO = torch.tensor(True), torch.tensor(False)
OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("AdamW", {}),
    ("AdamW", {"fused": True}),
    ("Adam", {"amsgrad": True}),
    ("Adamax", {}),
    ("NAdam", {}),
    ("RAdam", {}),
    ("RMSprop", {"momentum": 0.9}),
    ("Adadelta", {}),
    ("Adagrad", {}),
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("SGD", {"momentum": 0.9, "dampening": 0.5}),
    ("Rprop", {}),
    ("ASGD", {}),
]


def made(name: str, settings: dict[str, Any]) -> tuple[list[Tensor], Stepper]:
    torch.manual_seed(0)
    parameters = [torch.randn(3, 4).requires_grad_(), torch.randn(5).requires_grad_()]
    return parameters, Stepper(getattr(torch.optim, name)(parameters, lr=0.1, **settings))


def stepped(parameters: list[Tensor], stepper: Stepper, seed: int, sound: Tensor, spoilt: bool = False) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in parameters:
        p.grad = torch.full_like(p, NAN) if spoilt else torch.randn(p.shape, generator=generator)
    stepper.step(sound)


@pytest.mark.parametrize(("name", "settings"), OPTIMIZERS)
@pytest.mark.parametrize("first_is_bad", [False, True])
def test_a_bad_step_never_happened(name: str, settings: dict[str, Any], first_is_bad: bool) -> None:
    plain, one = made(name, settings)
    guarded, other = made(name, settings)
    if first_is_bad:
        stepped(guarded, other, 9, NO, spoilt=True)
    for seed in range(4):
        stepped(plain, one, seed, YES)
        stepped(guarded, other, seed, YES)
        before = copy.deepcopy((guarded, other.optimizer.state_dict()))
        stepped(guarded, other, 9, NO, spoilt=True)
        assert differences(before, (guarded, other.optimizer.state_dict())) == []
    assert differences([plain, one.optimizer.state_dict()], [guarded, other.optimizer.state_dict()]) == []


def test_an_optimizer_that_only_had_bad_steps_remembers_nothing() -> None:
    parameters, stepper = made("AdamW", {})
    before = copy.deepcopy(parameters)
    stepped(parameters, stepper, 1, NO, spoilt=True)
    stepper.settle()
    assert differences([before, {}], [parameters, dict(stepper.optimizer.state)]) == []
    stepped(parameters, stepper, 1, YES)
    stepper.settle()
    assert len(stepper.optimizer.state) == 2


@pytest.mark.parametrize("sound", [True, False])
def test_what_is_put_back_is_exact(sound: bool) -> None:
    old = [torch.tensor([-0.0, NAN, 1.0]), torch.tensor([1, 2]), torch.tensor([True]), torch.tensor(2.0 + 1j)]
    new = [torch.tensor([0.0, 1.0, NAN]), torch.tensor([3, 4]), torch.tensor([False]), torch.tensor(1.0 - 1j)]
    expected = copy.deepcopy(new if sound else old)
    put_back(torch.tensor(sound), new, old)
    assert all(n.numpy().tobytes() == e.numpy().tobytes() for n, e in zip(new, expected, strict=True))


@pytest.mark.parametrize("sound", [0, 1])
@pytest.mark.parametrize(("dtype", "kind"), [(torch.float32, torch.int32), (torch.bfloat16, torch.int16)])
def test_the_choice_between_integers_that_a_gpu_makes(sound: int, dtype: torch.dtype, kind: torch.dtype) -> None:
    old, new = torch.randn(1000).to(dtype), torch.randn(1000).to(dtype)
    old[:2], new[1:3] = -0.0, NAN
    expected = (new if sound else old).clone()
    chosen(torch.tensor(sound, dtype=kind), [new.view(kind)], [old.view(kind)])
    assert torch.equal(new.view(kind), expected.view(kind))


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("AdamW", {}, {"fused": True}),
        ("Adam", {"foreach": True}, {}),
        ("NAdam", {}, {"capturable": True}),
        ("SGD", {}, {}),
    ],
)
def test_counters_are_kept_on_a_gpu(kind: str, settings: dict[str, Any], expected: dict[str, bool]) -> None:
    accepted = OPTIMIZERS_BY_NAME.parameters(kind)
    given = {"type": kind, **settings}
    assert counting_there(given, accepted, torch.device("cuda")) == expected
    there = {k: v for k, v in expected.items() if k == "fused"}
    assert counting_there(given, accepted, torch.device("cpu")) == there
    kinds = ("Adam", "AdamW", "SGD")
    fused = {"fused": True} if given["type"] in kinds and len(given) == 1 else expected
    assert counting_there(given, accepted, torch.device("cuda"), recorded=True) == fused
    assert counting_there(given, accepted, torch.device("cpu"), fusable=False) == {}


def test_of_parameters_that_kernels_do_not_take_the_optimizer_takes_them_one_by_one() -> None:
    for dtype, fused in ((torch.float32, True), (torch.complex64, None)):
        named = [("a", torch.nn.Parameter(torch.zeros(2))), ("b", torch.nn.Parameter(torch.zeros(2, dtype=dtype)))]
        assert build_optimizer(named, {"type": "Adam"}).param_groups[0]["fused"] is fused


@pytest.mark.parametrize("stored", [False, True])
def test_layouts_that_differ_do_not_mix_up_values(stored: bool) -> None:
    def run(layouts: list[torch.memory_format]) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        p = torch.randn(4, 3, 2, 2, generator=generator).contiguous(memory_format=layouts[0]).requires_grad_()
        stepper = Stepper(torch.optim.Adam([p], lr=0.1, fused=True))
        for step in range(6):
            p.grad = torch.randn(4, 3, 2, 2, generator=generator).contiguous(memory_format=layouts[step % len(layouts)])
            if stored and step == 3:
                state = {k: {n: v.contiguous() for n, v in s.items()} for k, s in stepper.optimizer.state.items()}
                stepper.optimizer.state.update(state)
            stepper.step(YES)
        return p.detach()

    planes = run([torch.contiguous_format])
    torch.testing.assert_close(run([torch.channels_last, torch.contiguous_format]), planes)
    torch.testing.assert_close(run([torch.contiguous_format, torch.channels_last]), planes)


def test_a_state_of_another_device_leaves_counters_where_they_are_built() -> None:
    parameters, one = made("AdamW", {})
    stepped(parameters, one, 0, YES)
    others, other = made("AdamW", {"fused": True})
    load_optimizer_state({}, other.optimizer, one.optimizer.state_dict())
    assert all(g["fused"] for g in other.optimizer.param_groups)
    stepped(others, other, 1, YES)
    assert [float(s["step"]) for s in other.optimizer.state.values()] == [2.0, 2.0]
