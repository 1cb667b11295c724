"""Counts what would wait for a GPU inside `Trainer.step`: whatever brings numbers, or sizes that depend on them, to Python.

On a CPU some of these copy nothing, and no tool of torch's sees them: so the functions are replaced by name. What optimizers
read of their own counters, which live on the host, does not count, nor what datasets do before a batch goes to the device.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from relume.core.ops import hosts

METHODS = (
    *("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "__array__", "nonzero"),
    *("masked_select", "unique", "bincount", "equal", "allclose", "is_nonzero", "new_tensor"),
)
FUNCTIONS = ("nonzero", "masked_select", "unique", "bincount", "equal", "allclose", "is_nonzero")
ELSEWHERE = ("torch/optim", "relume/datasets", "torch/utils/data")


@contextlib.contextmanager
def counted() -> Iterator[Counter[str]]:
    """Inside: the waits by name and place."""
    found: Counter[str] = Counter()

    def note(name: str) -> None:
        frame, own = sys._getframe(2), None
        while frame is not None:
            path = str(Path(frame.f_code.co_filename))
            if any(place in path for place in ELSEWHERE) or path.endswith("core/runtime/logger.py"):
                return
            if own is None and "/torch/" not in path and "waits.py" not in path:
                own = f"{'/'.join(Path(path).parts[-2:])}:{frame.f_lineno}"
            frame = frame.f_back  # type: ignore[assignment]
        found[f"{name} in {own}"] += 1

    def noted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(*args: Any, **settings: Any) -> Any:
            note(name)
            return original(*args, **settings)

        return replaced

    def indexed(original: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(self: torch.Tensor, index: Any, *value: Any) -> Any:
            parts = index if isinstance(index, tuple) else (index,)
            if any(isinstance(p, torch.Tensor) and p.dtype in (torch.bool, torch.uint8) for p in parts):
                note("a boolean mask")
            return original(self, index, *value)

        return replaced

    with contextlib.ExitStack() as stack:

        def put(owner: Any, name: str, value: Any) -> None:
            own = name in vars(owner)
            before = getattr(owner, name)
            setattr(owner, name, value)
            stack.callback(lambda: setattr(owner, name, before) if own else delattr(owner, name))

        put(hosts, "asks_freely", lambda x: False)  # what a CPU may ask, a GPU would wait for
        for name in METHODS:
            put(torch.Tensor, name, noted(name, getattr(torch.Tensor, name)))
        for name in ("__getitem__", "__setitem__"):
            put(torch.Tensor, name, indexed(getattr(torch.Tensor, name)))
        for name in FUNCTIONS:
            put(torch, name, noted(name, getattr(torch, name)))
        yield found
