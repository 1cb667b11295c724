"""A CUDA graph on a CPU: every operation of a step is recorded with its tensors and its numbers, and run again as it was.

As with a real one, Python is not asked again: numbers of the host stay what they were, and tensors where they were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from relume.core.runtime import predicated
from relume.core.runtime.step_graph import Watch

T = TypeVar("T")


class Recording(TorchDispatchMode):
    """Notes what is computed inside; raises RuntimeError for what a graph cannot hold."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.watch = Watch(torch.device("cpu"))
        self.made: set[int] = set()
        """Storages made inside."""
        self.before: dict[int, tuple[Tensor, Tensor]] = {}
        """Others that were changed, with what they held."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tensors(args, kwargs)
        changes = func._schema.is_mutable or "batch_norm" in func._schema.name
        for t in given if changes else ():
            if (place := t.untyped_storage()._cdata) not in self.made and place not in self.before:
                self.before[place] = (t, t.detach().clone())
        out = func(*args, **kwargs)
        if (wrong := self.watch.wrong(func, args, kwargs, out)) is not None:
            raise RuntimeError(wrong)
        old = {t.untyped_storage()._cdata for t in given}
        new = [t for t in tensors(out) if t.untyped_storage()._cdata not in old]
        self.made |= {t.untyped_storage()._cdata for t in new}
        if changes or new or not tensors(out):  # views are where they were
            self.tape.append((func, args, kwargs, new))
        return out


def tensors(*values: Any) -> list[Tensor]:
    """All tensors in nested values."""
    return [t for t in tree_flatten(values)[0] if isinstance(t, Tensor)]


@contextlib.contextmanager
def checking() -> Iterator[None]:
    """Inside, optimizers look at their settings as they do where a GPU records."""

    def check(self: torch.optim.Optimizer) -> None:
        if not all(g["capturable"] for g in self.param_groups):
            raise RuntimeError("Attempting CUDA graph capture of step(), but param_groups' capturable is False")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predicated, "recording", lambda: True)
        patch.setattr(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", check)
        yield


class TapeRecorder:
    """A `step_graph.Recorder` for a CPU.

    Attributes:
        every: all of them, for tests to look at.
    """

    every: list[TapeRecorder] = []

    def __init__(self) -> None:
        self.tape: list[Any] = []
        self.replays = 0
        self.every.append(self)

    def warming(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def record(self, compute: Callable[[], T]) -> T:
        recording = Recording()
        try:
            with recording, checking():
                result = compute()
        except BaseException:
            with torch.no_grad():
                for tensor, value in recording.before.values():
                    tensor.data.copy_(value)
            raise
        self.tape = recording.tape
        return result

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, new in self.tape:
            found = tensors(func(*args, **kwargs))
            place = {id(t) for t in tensors(args, kwargs)}
            fresh = [t for t in found if id(t) not in place]
            if new:
                for own, value in zip(new, fresh[-len(new) :], strict=True):
                    own.data.copy_(value)
