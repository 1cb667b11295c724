"""core/runtime/weights.py: a network's weights are found in whatever other frameworks have wrapped them in."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from relume.core.errors import UserError
from relume.core.runtime.checkpoint import load_weights

PREFIXES = (
    "",
    "module.",
    "model.",
    "net_g.",
    "_orig_mod.",
    "model.net_g.",
    "net_g.module._orig_mod.",
    "a.b_2.model.c.",
)
WRAPPINGS: tuple[tuple[str, ...], ...] = (
    (),
    ("state_dict",),
    ("state_dict", "model"),
    ("model", "state_dict", "params"),
    ("generator",),
    ("networks", "net_g", "weights"),
)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)))


def renamed(source: nn.Module, prefix: str) -> dict[str, Any]:
    return {prefix + k: v for k, v in source.state_dict().items()}


def loaded(content: Any, tmp_path: Path, param_key: str | None = "params", **more: Any) -> nn.Module:
    torch.save(content, tmp_path / "w.pth")
    target = network(1)
    load_weights(target, tmp_path / "w.pth", param_key, **more)
    return target


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, b.state_dict()[k]) for k, x in a.state_dict().items())


@pytest.mark.parametrize(("prefix", "wrapping"), list(itertools.product(PREFIXES, WRAPPINGS)))
@pytest.mark.parametrize("param_key", ["params", None])
def test_wrappings_and_prefixes_are_found(
    prefix: str, wrapping: tuple[str, ...], param_key: str | None, tmp_path: Path
) -> None:
    content: Mapping[str, Any] = renamed(network(), prefix)
    for key in reversed(wrapping):
        content = {"epoch": 3, key: content, "optimizer_states": [{"state": {0: torch.zeros(2)}}]}
    assert equal(loaded(content, tmp_path, param_key), network())


def test_what_lightning_writes_of_a_module_with_several_networks(tmp_path: Path, said: list[str]) -> None:
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(2, 2))
    state = {**renamed(other, "net_d."), **renamed(network(), "net_g."), "loss.vgg.0.weight": torch.zeros(3)}
    assert equal(loaded({"state_dict": state, "epoch": 7, "hyper_parameters": {"lr": 1e-3}}, tmp_path), network())
    assert any("taking the weights under 'net_g'; 5 other entries are left" in line for line in said)


def test_compiled_and_sharded_parts_inside(tmp_path: Path) -> None:
    names = {"0.": "model._orig_mod.0._fsdp_wrapped_module.", "1.": "model._orig_mod.1._checkpoint_wrapped_module."}
    state = {names[k[:2]] + k[2:]: v for k, v in network().state_dict().items()}
    assert equal(loaded({"state_dict": state}, tmp_path), network())


@pytest.mark.parametrize(
    ("param_key", "seed"), [("params", 0), (None, 5), ("params_ema", 5), ("net_g_ema", 5), ("net_g", 0)]
)
def test_an_average_beside_the_weights(param_key: str | None, seed: int, tmp_path: Path) -> None:
    state = {**renamed(network(0), "net_g."), **renamed(network(5), "net_g_ema.")}
    assert equal(loaded({"state_dict": state}, tmp_path, param_key), network(seed))


def test_two_that_cannot_be_told_apart_are_refused_until_one_is_named(tmp_path: Path) -> None:
    state = {**renamed(network(0), "teacher."), **renamed(network(5), "student.")}
    with pytest.raises(UserError, match=r"several times; path\.param_key_g chooses: teacher or student$"):
        loaded({"state_dict": state}, tmp_path)
    assert equal(loaded({"state_dict": state}, tmp_path, "student"), network(5))


def test_a_file_with_an_average_alone_is_taken(tmp_path: Path) -> None:
    assert equal(loaded({"params_ema": renamed(network(), "")}, tmp_path, "params"), network())


def test_what_does_not_fit_is_refused_all_the_same(tmp_path: Path) -> None:
    state = renamed(network(), "model.")
    with pytest.raises(UserError, match=r"does not fit Sequential: unexpected 9\.weight"):
        loaded({**state, "model.9.weight": torch.zeros(1)}, tmp_path)
    del state["model.0.weight"]
    with pytest.raises(UserError, match=r"does not fit Sequential: missing 0\.weight"):
        loaded(state, tmp_path)
    with pytest.raises(UserError, match="does not fit Sequential: missing"):
        loaded({"state_dict": {"a.b": torch.zeros(1)}}, tmp_path)
    with pytest.raises(UserError, match="has no entry 'params'"):
        loaded({"epoch": 3, "args": {"lr": 1}}, tmp_path)
    unexpected = {**renamed(network(), ""), "epoch": torch.tensor(1)}
    with pytest.raises(UserError, match="unexpected epoch"):
        loaded(unexpected, tmp_path)


def test_names_of_the_network_itself_are_no_prefixes(tmp_path: Path) -> None:
    """A network whose own names begin with ``model.`` or ``module.`` keeps them."""
    source, target = (nn.ModuleDict({"model": nn.ModuleDict({"module": network(s)})}) for s in (0, 1))
    torch.save({"params": source.state_dict()}, tmp_path / "w.pth")
    load_weights(target, tmp_path / "w.pth")
    assert equal(source, target)
