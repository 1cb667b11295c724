"""Where optimizers come from that are not ours: torch, and the packages pytorch_optimizer and schedulefree where installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import torch

from ...errors import UserError, did_you_mean

CLOSURE = "asks for the loss several times in a step (a closure), which a training here computes once"
TWICE = "needs gradients of gradients, which training here does not keep"
NETWORK = "needs the network itself, where parameters are what training here gives"
MUON_GROUPS = "needs parameter groups that are marked use_muon; Muon divides the parameters by itself"
WRAPPER = "is made of another optimizer, which no option file can say"
PICKLED = "keeps objects in its state that need code to be read, which a checkpoint never runs"
LICENCE = "has a licence for non-commercial use only"

REFUSED: dict[str, str] = {
    **dict.fromkeys(("LBFGS", "AliG", "SAM", "GSAM", "LookSAM", "FriendlySAM", "WSAM", "BSAM"), CLOSURE),
    **dict.fromkeys(("AdamWScheduleFreeClosure", "RAdamScheduleFreeClosure", "SGDScheduleFreeClosure"), CLOSURE),
    **dict.fromkeys(("AdaHessian", "SophiaH"), TWICE),
    **dict.fromkeys(("LOMO", "AdaLOMO", "AdamMini"), NETWORK),
    **dict.fromkeys(("AdaGO", "AdaMuon", "DistributedMuon", "MuonClip", "NorMuon"), MUON_GROUPS),
    **dict.fromkeys(
        ("Lookahead", "Magma", "OrthoGrad", "PCGrad", "SafeFP16Optimizer", "ScheduleFreeWrapper", "TRAC"), WRAPPER
    ),
    **dict.fromkeys(("AdaShift", "Conda", "SCION", "SCIONLight", "ScalableShampoo"), PICKLED),
    **dict.fromkeys(("Fromage", "Nero"), LICENCE),
    **dict.fromkeys(("DeMo", "SpectralSphere"), "takes matrices only, and networks here have other parameters too"),
    "SparseAdam": "takes sparse gradients only, and those of networks here are dense",
}
"""Optimizers that cannot be used, and why."""
OTHERS = ("pytorch_optimizer", "schedulefree")
"""Packages that are looked in after torch."""
LEFT_OUT = ("Reference", "Paper")
"""Endings of schedulefree's names of classes that are there to be read."""


def optimizer(name: str) -> Callable[..., Any] | None:
    """The class of this name in torch, or else in the other packages; None where there is none.

    Raises:
        UserError: there is one, which cannot be used here.
    """
    if name in REFUSED:
        raise UserError(f"{name} cannot be used: it {REFUSED[name]}")
    found = _of(torch.optim, name)
    for package in () if found else OTHERS:
        if not found and (module := _imported(package)) is not None:
            found = _of(module, name)
    return found


def of_torch() -> Iterable[str]:
    """Names of torch's."""
    return [name for name in dir(torch.optim) if name not in REFUSED and _of(torch.optim, name)]


def of_others() -> Iterator[str]:
    """Names of the other packages', as far as they are installed."""
    for module in filter(None, map(_imported, OTHERS)):
        yield from (name for name in dir(module) if name not in REFUSED and _of(module, name))


def advice(name: str) -> str:
    """What else to say of a name that is nowhere."""
    missing = [package for package in OTHERS if importlib.util.find_spec(package) is None]
    if missing:
        return f"There are more in {' and '.join(missing)}: pip install 'relume[optimizers]'."
    return did_you_mean(name, of_others()).strip()


def _imported(package: str) -> ModuleType | None:
    try:
        return importlib.import_module(package)
    except ImportError:
        return None


def _of(module: ModuleType, name: str) -> Callable[..., Any] | None:
    found = getattr(module, name, None) if name.isidentifier() and not name.endswith(LEFT_OUT) else None
    is_one = isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
    return found if is_one and found is not torch.optim.Optimizer and not name.startswith("Base") else None
