"""Optimizers: torch's own and those of two libraries, by name, our rule for Muon, and whatever a plugin registers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...annotations import Range, setting
from ...errors import UserError, printable
from ...registry import Registry, unknown_key
from . import library
from .uncompiled import spare_compiler, without_compiler


@dataclass
class OptimizerKeys:
    """Keys of an ``optim_*`` block besides the optimizer's own."""

    param_groups: list[dict[str, Any]] | None = setting(
        None, "Settings for some parameters: [{params: <regular expression on their names>, lr: ..., ...}, ...]."
    )

    def __post_init__(self) -> None:
        for i, group in enumerate(self.param_groups or ()):
            try:
                re.compile(group["params"])
            except (KeyError, TypeError, re.error) as e:
                why = f" ({e})" if isinstance(e, re.error) else ""
                raise ValueError(
                    f"param_groups: entry {i} needs 'params', a regular expression on parameter names{why}"
                ) from e


NamedParameters = Iterable[tuple[str, nn.Parameter]]


OPTIMIZERS = Registry(
    "optimizer",
    "relume.core.runtime.optimizers",
    runtime=("params",),
    library=library.optimizer,
    library_names=library.of_torch,
    further_names=library.of_others,
    library_advice=library.advice,
    ranges={
        **dict.fromkeys(("lr", "weight_decay", "momentum", "lr_decay", "lambd", "eps"), Range(least=0)),
        "betas": Range(least=0, below=1),
    },
)


def counting_there(
    settings: Mapping[str, Any],
    accepted: Iterable[str],
    device: torch.device,
    fusable: bool = True,
    recorded: bool = False,
) -> dict[str, bool]:
    """What has an optimizer take steps that the device can take back: with its counters on a GPU, or in one kernel that skips.

    Args:
        settings: settings of the optimizer; where these say how, nothing is returned.
        accepted: names of its settings.
        device: device of the parameters.
        fusable: whether kernels of torch's take them.
        recorded: whether steps become parts of a graph, in which rates have to be on the device too.
    """
    said = {"fused", "foreach", "capturable"} & settings.keys()
    if device.type not in ("cuda", "cpu") or said or settings.get("differentiable"):
        return {}
    kinds = ("Adam", "AdamW", *(("SGD", "Adagrad") if recorded and device.type == "cuda" else ()))
    fused = {"fused"} & set(accepted) if fusable and settings["type"] in kinds else set()
    return dict.fromkeys(fused or {"capturable"} & set(accepted if device.type == "cuda" else ()), True)


def takes_kernels(parameter: nn.Parameter) -> bool:
    """Whether torch's fused optimizers take a parameter: a real one, and on a CPU a whole one."""
    return parameter.is_floating_point() and not (parameter.device.type == "cpu" and hasattr(parameter, "to_local"))


def build_optimizer(
    parameters: NamedParameters, opt: Mapping[str, Any], recorded: bool = False
) -> torch.optim.Optimizer:
    """Build the optimizer of ``opt = {type: AdamW, lr: 2e-4, ...}`` over named parameters that require gradients.

    ``param_groups`` in `opt` gives some parameters settings of their own: a list of ``{params: <regular expression>, lr: ...,
    weight_decay: ...}``; the first expression found in a parameter's name decides, the rest keep the block's settings.
    ``lr_scale: 0.1`` in such an entry gives a tenth of the rate that the rest has, in every iteration, whatever the scheduler.

    Raises:
        UserError: a value that the optimizer refuses; nothing to optimise; an invalid expression, or one that matches no
            parameter (a typo, most likely).
    """
    named = [(n, p) for n, p in parameters if p.requires_grad]
    if not named:
        raise UserError(f"optimizer {opt.get('type')}: there is no parameter to optimise (everything is frozen)")
    settings = {k: v for k, v in opt.items() if k != "param_groups"}
    accepted = OPTIMIZERS.parameters(settings["type"]) if settings.get("type") in OPTIMIZERS else {}
    for rule in opt.get("param_groups") or () if accepted else ():  # torch takes any key, and does nothing with it
        for key in (k for k in rule if k not in accepted and k not in ("params", "lr_scale")):
            raise UserError(unknown_key(key, f"param_groups ({settings['type']})", [*accepted, "params", "lr_scale"]))
    fusable = all(takes_kernels(p) for _, p in named)
    settings |= counting_there(settings, accepted, named[0][1].device, fusable, recorded)
    rules = [scaled(rule, settings.get("lr")) for rule in opt.get("param_groups") or ()]
    groups = _groups(named, rules)
    divided = getattr(OPTIMIZERS.get(str(settings.get("type"))), "divided", None)
    if divided is not None:
        groups = divided(groups, [p for _, p in named], settings)
    try:
        with without_compiler():
            optimizer: torch.optim.Optimizer = OPTIMIZERS.build(settings, params=groups)
    except (TypeError, ValueError) as e:
        raise UserError(f"optimizer {settings.get('type')}: {e}") from e
    spare_compiler(optimizer)
    return optimizer


def scaled(rule: Mapping[str, Any], lr: float | None) -> dict[str, Any]:
    """An entry of ``param_groups`` with the ``lr`` that follows from ``lr_scale``, which a `Schedule` reads too.

    Raises:
        UserError: the optimizer's block has no ``lr``, or the entry has both.
    """
    if "lr_scale" not in rule:
        return dict(rule)
    if lr is None or "lr" in rule:
        raise UserError(
            f"param_groups: lr_scale of '{rule.get('params')}' needs an lr of the optimizer, and none beside it"
        )
    scale = rule["lr_scale"]
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 <= scale < math.inf:
        raise UserError(f"param_groups: lr_scale of '{rule.get('params')}' must be a number from 0 on, got {scale}")
    return {**rule, "lr": lr * scale}


MATCHING = 2.0
"""Seconds in which a regular expression must have matched a parameter's name, or not."""


def _groups(named: Sequence[tuple[str, nn.Parameter]], rules: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each parameter in exactly one group: that of the first rule matching its name, else the last, ruleless one."""
    # An empty group for each rule, and one for the rest.
    groups = [{**{k: v for k, v in rule.items() if k != "params"}, "params": []} for rule in rules]
    rest: dict[str, Any] = {"params": []}
    try:
        patterns = [re.compile(rule["params"]) for rule in rules]
    except (re.error, KeyError) as e:
        raise UserError(
            f"param_groups: each entry needs 'params', a regular expression on parameter names ({e})"
        ) from e
    if patterns:
        from ..patience import at_most
    # The first rule that matches takes the parameter.
    for name, parameter in named:
        index = None
        for i, pattern in enumerate(patterns):
            with at_most(
                MATCHING, f"param_groups: '{printable(pattern.pattern)}' takes for ever to match '{printable(name)}'"
            ):
                found = pattern.search(name)
            if found:
                index = i
                break
        (rest if index is None else groups[index])["params"].append(parameter)
    # A rule that matches nothing is a mistake.
    for rule, group in zip(rules, groups, strict=True):
        if not group["params"]:
            raise UserError(
                f"param_groups: no parameter's name matches '{rule['params']}'; names look like '{named[0][0]}'"
            )
    return [g for g in (*groups, rest) if g["params"]]
