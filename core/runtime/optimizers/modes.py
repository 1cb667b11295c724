"""Optimizers whose networks have one set of weights to train with and another to be used with, as the schedule-free ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch


def with_modes(optimizers: Iterable[torch.optim.Optimizer]) -> list[Any]:
    """The optimizers that have methods ``train`` and ``eval``, which turn the weights into the ones and the others."""
    return [o for o in optimizers if callable(getattr(o, "train", None)) and callable(getattr(o, "eval", None))]


def begin(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Turn the weights into those that are trained, before the first step, and after a state was loaded."""
    for optimizer in with_modes(optimizers):
        optimizer.train()


@contextlib.contextmanager
@torch.no_grad()
def resting(optimizers: Iterable[torch.optim.Optimizer], exactly: bool = True) -> Iterator[None]:
    """Inside, networks have the weights to be used, and states of optimizers say so.

    Args:
        exactly: afterwards the weights are as before, to the bit. Otherwise they are what a run begins with that loads what is
            saved inside: the same but for rounding, so that a resumed run and an uninterrupted one do not part.
    """
    ones = with_modes(optimizers)
    parameters = [p for o in ones for g in o.param_groups for p in g["params"]] if exactly else []
    before = [p.detach().clone() for p in parameters]
    for optimizer in ones:
        optimizer.eval()
    try:
        yield
    finally:
        begin(ones)
        for p, value in zip(parameters, before, strict=True):
            p.copy_(value)
