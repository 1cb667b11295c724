"""Optimizers of other packages, those that cannot be used, Muon's division of parameters, and weights with two faces."""

from __future__ import annotations

import io
import os
import warnings

import pytest
import torch
from torch import nn

from relume.core.errors import UserError
from relume.core.options import OptionError
from relume.core.options import check as checked
from relume.core.runtime.optimizers import OPTIMIZERS, build_optimizer, library
from relume.core.runtime.optimizers.modes import begin, resting
from relume.core.runtime.optimizers.muon import Muon, orthogonalised
from relume.core.runtime.state import load_optimizer_state
from relume.schedulers import SCHEDULERS

SAMPLE = (
    "Lion",
    "Adan",
    "AdaBelief",
    "Prodigy",
    "Lamb",
    "SOAP",
    "Shampoo",
    "ADOPT",
    "CAME",
    "MARS",
    "DAdaptAdam",
    "Kron",
)
if os.environ.get("RELUME_SLOW_TESTS"):
    SAMPLE = tuple(sorted({*library.of_others(), *library.of_torch()}))
else:
    SAMPLE = (*SAMPLE, "SPAM", "AggMo")  # which remember other things than torch's by the names of torch's
FREE = ("AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree", "ScheduleFreeAdamW")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.Linear(8, 2),
    )


def train(net: nn.Module, optimizer: torch.optim.Optimizer, *iterations: int) -> None:
    for i in iterations:
        torch.manual_seed(i)
        optimizer.zero_grad()
        net(torch.rand(2, 3, 4, 4)).square().mean().backward()
        optimizer.step()


def built(net: nn.Module, name: str, **more: object) -> torch.optim.Optimizer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        more |= {"num_iterations": 10} if name == "Ranger21" else {}
        return build_optimizer(net.named_parameters(), {"type": name, "lr": 0.01, **more})


@pytest.mark.parametrize("name", [*SAMPLE, *FREE, "Muon"])
@pytest.mark.filterwarnings("ignore")
def test_resumed_equals_uninterrupted(name: str) -> None:
    """To the bit, with the checkpoint in the mode for use, as the trainer writes it."""
    if name in SAMPLE:
        pytest.importorskip("pytorch_optimizer")
    net = network()
    optimizer = built(net, name)
    begin([optimizer])
    train(net, optimizer, 1, 2, 3)
    with resting([optimizer], exactly=False):
        file = io.BytesIO()
        torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    train(net, optimizer, 4, 5)
    other = network()
    other.load_state_dict(saved["net"])
    resumed = built(other, name)
    load_optimizer_state({"g": other}, resumed, saved["optimizer"])
    begin([resumed])
    train(other, resumed, 4, 5)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    assert not torch.equal(net[5].weight, network()[5].weight)


@pytest.mark.parametrize("name", FREE)
def test_weights_rest_and_come_back(name: str) -> None:
    pytest.importorskip("schedulefree")
    net = network()
    optimizer = built(net, name)
    begin([optimizer])
    train(net, optimizer, *range(9))
    before = [p.detach().clone() for p in net.parameters()]
    with resting([optimizer]):
        assert not all(torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))
    train(net, optimizer, 4)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("LBFGS", "a closure"),
        ("SAM", "a closure"),
        ("AdaHessian", "needs gradients of gradients"),
        ("NorMuon", "groups that are marked use_muon"),
        ("Lookahead", "is made of another optimizer"),
        ("Fromage", "non-commercial"),
        ("Nero", "non-commercial"),
        ("SparseAdam", "sparse gradients"),
    ],
)
def test_unusable_ones_say_why_when_options_are_checked(name: str, reason: str) -> None:
    assert name not in OPTIMIZERS
    assert name not in OPTIMIZERS.library_names()
    train = {"total_iter": 1, "optim_g": {"type": name}, "pixel_opt": {"type": "L1Loss"}}
    opt = {"name": "x", "model_type": "RestorationModel", "network_g": {"type": "NAFNet"}, "train": train}
    with pytest.raises(
        OptionError,
        match=rf"^train\.optim_g\.type: {name} cannot be used: it .*{reason}",
    ):
        checked(opt)


@pytest.mark.parametrize("name", ["SequentialLR", "ChainedScheduler", "LambdaLR", "MultiplicativeLR"])
def test_schedulers_made_of_others_say_so(name: str) -> None:
    assert name not in SCHEDULERS.library_names()
    with pytest.raises(UserError, match=f"no scheduler is called '{name}' that could be used here: it is made of"):
        SCHEDULERS.get(name)


def test_other_packages_are_offered_by_name() -> None:
    pytest.importorskip("pytorch_optimizer")
    offered = set(library.of_others())
    assert {*SAMPLE, "AdamWScheduleFree"} <= offered
    assert not offered & {"Fromage", "Nero", "SAM", "BaseOptimizer", "SGDScheduleFreeReference", "Optimizer"}
    assert "Did you mean 'Lion'?" in OPTIMIZERS.unknown("Loin")


def test_without_the_packages_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "OTHERS", ("no_such_package",))
    assert library.optimizer("Lion") is None
    assert "pip install 'relume[optimizers]'" in OPTIMIZERS.unknown("Lion")


# ------------------------------------------------------------------ Muon
def test_muon_is_torchs_on_matrices() -> None:
    for kind in ("original", "match_rms_adamw"):
        torch.manual_seed(0)
        ours, theirs = (nn.Linear(5, 9, bias=False) for _ in range(2))
        theirs.load_state_dict(ours.state_dict())
        settings = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "adjust_lr_fn": kind}
        first = Muon([{"params": ours.parameters(), "use_muon": True}], **settings)
        second = torch.optim.Muon(theirs.parameters(), **settings)
        for i in range(4):
            for net, optimizer in ((ours, first), (theirs, second)):
                torch.manual_seed(i)
                optimizer.zero_grad()
                net(torch.rand(3, 5)).square().mean().backward()
                optimizer.step()
        torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-7)


def test_muon_is_adamw_on_the_rest() -> None:
    ours, theirs = network(), network()
    first = Muon([{"params": ours.parameters(), "use_muon": False}], lr=0.01, weight_decay=0.1)
    second = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    train(ours, first, 1, 2, 3)
    train(theirs, second, 1, 2, 3)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_iteration_gives_nearly_orthogonal_matrices() -> None:
    torch.manual_seed(0)
    for shape in ((4, 9), (9, 4), (6, 6)):
        matrix = torch.randn(shape)
        values = torch.linalg.svdvals(orthogonalised(matrix, (3.4445, -4.775, 2.0315), 8, 1e-7).float())
        assert values.min() > 0.5 and values.max() < 1.4


@pytest.mark.parametrize(("convolutions", "muons"), [("flatten", ["2", "5"]), ("adamw", ["5"])])
def test_which_parameters_are_muons(convolutions: str, muons: list[str]) -> None:
    net = network()
    optimizer = built(
        net, "Muon", convolutions=convolutions, adamw_lr=0.003, param_groups=[{"params": "^0", "lr": 0.5}]
    )
    names = {id(p): n for n, p in net.named_parameters()}
    found = {names[id(p)]: (g["use_muon"], g["lr"]) for g in optimizer.param_groups for p in g["params"]}
    assert sorted(found) == sorted(names.values())
    assert [n for n, (use, _) in found.items() if use] == [f"{n}.weight" for n in muons]
    assert found["0.weight"] == (False, 0.5)
    assert found["6.weight"] == (False, 0.003)
    assert found["5.weight"] == (True, 0.01)
    train(net, optimizer, 1, 2)
