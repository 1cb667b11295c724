"""core/runtime/optimizers.py: torch's optimizers by name, parameter groups by regular expression."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from relume.core.errors import UserError
from relume.core.runtime.optimizers import OPTIMIZERS, build_optimizer


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1))


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "RMSprop", "NAdam", "Adamax"])
def test_torch_optimizers_by_name(name: str) -> None:
    net = network()
    optimizer = build_optimizer(net.named_parameters(), {"type": name, "lr": 0.01})
    before = net[0].weight.clone()
    net(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert type(optimizer) is getattr(torch.optim, name)
    assert not torch.equal(before, net[0].weight)


def test_options_are_not_modified_and_unknown_ones_are_refused() -> None:
    opt = {"type": "Adam", "lr": 0.01, "betas": (0.5, 0.999)}
    build_optimizer(network().named_parameters(), opt)
    assert opt == {"type": "Adam", "lr": 0.01, "betas": (0.5, 0.999)}
    with pytest.raises(UserError, match=r"unknown key 'beta' in Adam\. Did you mean 'betas'\?"):
        build_optimizer(network().named_parameters(), {"type": "Adam", "beta": (0.5, 0.999)})
    with pytest.raises(UserError, match=r"no optimizer is called 'Adamm'"):
        build_optimizer(network().named_parameters(), {"type": "Adamm"})
    assert "params" not in OPTIMIZERS.parameters("Adam")


def test_param_groups_cover_each_parameter_once() -> None:
    net = network()
    rules = [{"params": r"^1\.|bias", "weight_decay": 0.0}, {"params": r"^2\.", "lr": 0.5}]
    opt = {"type": "AdamW", "lr": 0.01, "weight_decay": 0.1, "param_groups": rules}
    groups = build_optimizer(net.named_parameters(), opt).param_groups
    assert [(g["lr"], g["weight_decay"], len(g["params"])) for g in groups] == [
        (0.01, 0.0, 4),
        (0.5, 0.1, 1),
        (0.01, 0.1, 1),
    ]
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(id(p) for p in net.parameters())


def test_rates_relative_to_the_optimizers() -> None:
    opt = {"type": "SGD", "lr": 0.5, "param_groups": [{"params": r"^1\.", "lr_scale": 0.1}]}
    assert [g["lr"] for g in build_optimizer(network().named_parameters(), opt).param_groups] == [0.05, 0.5]
    for block in ({"type": "AdamW"}, {"type": "SGD", "lr": 0.5}):
        rule = {"params": "bias", "lr_scale": 0.1, **({"lr": 1.0} if "lr" in block else {})}
        with pytest.raises(UserError, match="lr_scale of 'bias' needs an lr of the optimizer, and none beside it"):
            build_optimizer(network().named_parameters(), {**block, "param_groups": [rule]})


def test_param_groups_that_match_nothing_are_a_mistake() -> None:
    opt = {"type": "Adam", "param_groups": [{"params": "backbone", "lr": 1e-5}]}
    with pytest.raises(UserError, match=r"no parameter's name matches 'backbone'; names look like '0\.weight'"):
        build_optimizer(network().named_parameters(), opt)
    with pytest.raises(UserError, match="regular expression"):
        build_optimizer(network().named_parameters(), {"type": "Adam", "param_groups": [{"params": "("}]})


def test_frozen_parameters_are_left_out_and_nothing_left_is_an_error() -> None:
    net = network()
    net[0].requires_grad_(False)
    groups = build_optimizer(net.named_parameters(), {"type": "SGD", "lr": 0.1}).param_groups
    assert len(groups[0]["params"]) == 4
    with pytest.raises(UserError, match=r"nothing|no parameter to optimise"):
        build_optimizer(net.requires_grad_(False).named_parameters(), {"type": "SGD", "lr": 0.1})


@pytest.mark.parametrize("kind", ["Adam", "SGD", "RMSprop"])
def test_steps_without_the_compiler_are_those_of_the_class(kind: str) -> None:
    found = []
    for spared in (True, False):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 6))
        if spared:
            optimizer = build_optimizer([("w", weight)], {"type": kind, "lr": 0.1, "foreach": False})
        else:
            optimizer = getattr(torch.optim, kind)([weight], lr=0.1, foreach=False)
        hooked: list[int] = []
        for step in range(4):
            optimizer.zero_grad()
            if step == 2:
                optimizer.register_step_pre_hook(lambda *_, said=hooked: said.append(1))
            (weight**2).sum().backward()
            optimizer.step()
        assert hooked == [1, 1]
        found.append([weight.detach(), *(v for v in optimizer.state_dict()["state"].get(0, {}).values())])
    torch.testing.assert_close(*found)
