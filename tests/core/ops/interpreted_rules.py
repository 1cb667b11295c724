"""What must hold of every op with kernels beside its numbers, in the interpreter: prints JSON.

By op: what was not refused well of wrong arguments; whether memory formats give the same numbers; launches under a word for
this op alone; axes of grids that grow with the data and have little room; and kernels whose faults its
self-test does not see.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"
os.environ["RELUME_KERNELS"] = "on"

import torch
from fused_cases import CASES
from interpreted_ops import run, worst
from torch import Tensor

from relume.core import ops
from relume.core.errors import UserError
from relume.core.ops import launching, self_test
from relume.core.ops.modes import FORCED

Tensors = list[Tensor | None]
RIGHT = launching.launch
MODULES = [importlib.import_module(f"relume.core.ops.{p.stem}") for p in sorted(Path(ops.__path__[0]).glob("*.py"))]
KERNELS = [module for module in MODULES if module.__name__.endswith("_triton")]
CPU = torch.device("cpu")


def launch_by(function: Callable[..., None]) -> None:
    for module in KERNELS:
        module.launch = function  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------------------------------- wrong arguments
def wrong(tensors: Tensors) -> Iterator[tuple[str, Tensors]]:
    """Calls with one argument of another device, dtype or shape."""
    several = sum(t is not None for t in tensors) > 1
    for i, t in enumerate(tensors):
        if t is None:
            continue
        longer = {
            f"longer {axis}": torch.randn(*t.shape[:axis], n + 1, *t.shape[axis + 1 :])
            for axis, n in enumerate(t.shape)
        }
        elsewhere = {"elsewhere": torch.empty(t.shape, device="meta")} if several else {}
        flat = t.flatten() if t.dim() > 1 else t[None]
        for what, other in {**elsewhere, "double": t.double(), "whole": t.long(), "flat": flat, **longer}.items():
            yield f"argument {i} {what}", [other if j == i else given for j, given in enumerate(tensors)]


def names(op: str) -> set[str]:
    """Names of arguments of the op's public functions."""
    module = sys.modules[self_test.CASES[op][0].__module__]
    public = [f for name, f in inspect.getmembers(module, inspect.isfunction) if not name.startswith("_")]
    return {name for f in public for name in inspect.signature(f).parameters}


def badly_refused(op: str, function: Callable[..., Any], tensors: Tensors, quick: bool) -> list[str]:
    """Wrong calls that neither gave what the plain form gives nor were refused in one line with an argument's name."""
    found = []
    for what, given in wrong(tensors):
        if quick and "elsewhere" not in what and "flat" not in what:
            continue
        try:
            y = called(function, given, "on")
        except UserError as e:
            said = str(e)
            if "\n" in said or not names(op) & set(re.findall(r"\w+", said)):
                found.append(f"{what}: {said}")
        except Exception as e:
            found.append(f"{what}: {type(e).__name__}: {e}")
        else:
            if worst([y], [called(function, given, "off").double()]) > 1e-5:
                found.append(f"{what}: another result")
    return found


def called(function: Callable[..., Any], tensors: Tensors, mode: str) -> Tensor:
    os.environ["RELUME_KERNELS"] = mode
    with torch.no_grad():
        y = function(*tensors)
    result: Tensor = y[0] if isinstance(y, tuple) else y
    return result


# -------------------------------------------------------------------------------------------------------------- layouts
def by_layout(function: Callable[..., Any], tensors: Tensors) -> float:
    """How far results and gradients are from those of contiguous tensors, where the last axis is the outermost in memory, and
    where maps lie channels last."""
    turned = [None if t is None else t.transpose(0, -1).contiguous().transpose(0, -1) for t in tensors]
    last = [t if t is None or t.dim() != 4 else t.contiguous(memory_format=torch.channels_last) for t in tensors]
    expected = [t.double() for t in run("on", function, tensors)]
    return max(worst(run("on", function, given), expected) for given in (turned, last))


# ---------------------------------------------------------------------------------------------------------------- words
def launches(op: str, function: Callable[..., Any], tensors: Tensors) -> list[int]:
    """How many kernels start where this op alone is on, and where it alone is off. None is run."""
    counts = []
    self_test.FAULTS[op, torch.float32, CPU] = None
    for words in (f"off,{op}=on", f"on,{op}=off"):
        started: list[Any] = []
        launch_by(lambda kernel, *_, started=started, **__: started.append(kernel))
        called(function, tensors, words)
        counts.append(len(started))
    launch_by(RIGHT)
    return counts


# ---------------------------------------------------------------------------------------------------------------- grids
def grids(op: str, function: Callable[..., Any], tensors: list[Tensor]) -> dict[str, list[int]]:
    """By kernel: the largest axes 1 and 2 of its grids. Nothing is run."""
    found: dict[str, list[int]] = {}

    def note(kernel: Any, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
        found[kernel.__name__] = list(map(max, found.get(kernel.__name__, [0, 0]), [*grid[1:], 1, 1]))

    launch_by(note)
    self_test.called(op, "on", function, tensors)
    launch_by(RIGHT)
    return found


def growing(op: str, cases: Callable[[int], Any]) -> list[str]:
    """Kernels with a second or third axis of a grid that grows with pixels, with steps or with samples."""
    function, _ = self_test.CASES[op]
    sizes = [self_test.drawn(self_test.SIZED[op](side, 16), CPU, torch.float32) for side in (8, 24)]
    small, large = (grids(op, function, given) for given in sizes)
    one, several = (batched(op, *cases(batch)[0]) for batch in (1, 3))
    return [k for k, axes in large.items() if axes != small.get(k, axes)] + [k for k in one if one[k] != several[k]]


def batched(op: str, function: Callable[..., Any], tensors: Tensors) -> dict[str, list[int]]:
    given = [t for t in tensors if t is not None]

    def call(*some: Tensor) -> Tensor:
        rest = iter(some)
        y = function(*(None if t is None else next(rest) for t in tensors))
        return y[0] if isinstance(y, tuple) else y

    return grids(op, call, given)


# ----------------------------------------------------------------------------------------------------------- self-tests
def unseen(op: str) -> list[str]:
    """Kernels of the op's self-test that may write something else without its finding out."""
    launched: list[str] = []

    def note(kernel: Any, grid: Any, *args: Any, **constants: Any) -> None:
        launched.append(kernel.__name__)
        RIGHT(kernel, grid, *args, **constants)

    launch_by(note)
    self_test._tried(op, torch.float32, CPU)
    found = []
    for name in dict.fromkeys(launched):

        def broken(kernel: Any, grid: Any, *args: Any, name: str = name, **constants: Any) -> None:
            before = [a.clone() if isinstance(a, Tensor) else None for a in args]
            RIGHT(kernel, grid, *args, **constants)
            for a, b in zip(args, before, strict=True):
                if kernel.__name__ == name and b is not None and a.is_floating_point() and not torch.equal(a, b):
                    a.mul_(1.1).add_(0.1)

        launch_by(broken)
        if self_test._tried(op, torch.float32, CPU) is None:
            found.append(name)
    launch_by(RIGHT)
    return found


def main(quick: bool) -> None:
    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    for op in self_test.CASES:
        torch.manual_seed(0)
        said = report[op] = {} if quick else {"unseen": unseen(op)}
        if op in CASES:
            function, tensors = CASES[op](1)[0]
            said["badly refused"] = badly_refused(op, function, tensors, quick)
            said["launches"] = launches(op, function, tensors)
            said["growing"] = growing(op, CASES[op])
            if not quick:
                said["layout"] = by_layout(function, tensors)
    print(json.dumps(report))


if __name__ == "__main__":
    assert not FORCED
    main("quick" in sys.argv)
