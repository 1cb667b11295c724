"""Torch's optimizers without torch's compiler, which they import to keep it out of their methods: seconds of every start."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import torch
from torch.optim import Optimizer, optimizer

GUARDED = ("zero_grad", "state_dict", "load_state_dict", "add_param_group")
"""Methods that import the compiler when they are first called."""


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """Inside, optimizers are made without it."""
    guarded = Optimizer.add_param_group
    Optimizer.add_param_group = inspect.unwrap(guarded)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Optimizer.add_param_group = guarded  # type: ignore[method-assign]


def spare_compiler(made: Optimizer) -> None:
    """Have the methods of an optimizer of torch's own do the same without it; others are left as they are."""
    if not type(made).__module__.startswith("torch.optim."):
        return
    for name in GUARDED:
        setattr(made, name, MethodType(inspect.unwrap(getattr(type(made), name)), made))
    made.step = MethodType(step, made)  # type: ignore[method-assign]


def step(self: Optimizer, closure: Callable[[], Any] | None = None) -> Any:
    """A step as the class takes it. With hooks, or where the compiler is there already, it is the class's own."""
    hooks = (self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks)
    everywhere = (optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks)
    if "torch._dynamo" in sys.modules or any(hooks) or any(everywhere):
        return type(self).step(self, closure)
    return plain_step(self, closure)


def plain_step(made: Optimizer, closure: Callable[[], Any] | None = None) -> Any:
    """A step without hooks, and without what torch has around it for its compiler."""
    with torch.set_grad_enabled(bool(made.defaults.get("differentiable"))):
        return inspect.unwrap(type(made).step)(made, *(() if closure is None else (closure,)))
