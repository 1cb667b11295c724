"""Descents kept as CUDA graphs: thousands of small kernels, launched at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .descent import Descent
from .scaling import HARD, Solution

Replay = Callable[[], None]
"""Function that repeats what was recorded, on the same memory."""


@dataclass(frozen=True)
class Recorded:
    """A descent on memory of its own: problems are copied in, the replay fills `solution`."""

    descent: Descent
    solution: Solution
    replay: Replay


class Graphs:
    """CUDA graphs of descents, one for each combination of shapes, precision and iterations that came along.

    Costs, marginals, alpha and epsilon may differ from call to call: they are copied into the graph's memory. The first
    problem of a kind is solved three times.

    Args:
        keep: largest number of graphs; the oldest are given up.
    """

    def __init__(self, keep: int = 4) -> None:
        self.keep = keep
        self.recorded: dict[Hashable, Recorded] = {}

    def run(self, descent: Descent, plan: Tensor | None, kernel: bool) -> Solution:
        """``descent.run(plan, kernel)``, shapes included, by a graph where that is possible."""
        asks = (descent.outer.tol > 0 or descent.inner.tol > 0) and not descent.outer.there
        fixed = not asks and not isinstance(descent.spread, Tensor)
        if not (kernel and plan is None and fixed and capturable(descent.logits)):
            return descent.run(plan, kernel)
        key = kind(descent)
        if key not in self.recorded:
            while len(self.recorded) >= self.keep:
                del self.recorded[next(iter(self.recorded))]
            own = copied(descent)
            self.recorded[key] = Recorded(own, *record(own))
        found = self.recorded[key]
        for mine, theirs in zip(contents(found.descent), contents(descent), strict=True):
            mine.copy_(theirs)
        found.replay()
        potentials, result, iters, steps = found.solution
        counts = (n.clone() if isinstance(n, Tensor) else n for n in (iters, steps))
        return Solution(type(potentials)(*(p.clone() for p in potentials)), result.clone(), *counts)


def capturable(logits: Tensor) -> bool:
    """Whether work on the device of `logits`, of any shape, can become a graph, and is not being recorded already."""
    return logits.is_cuda and not torch.cuda.is_current_stream_capturing()


def kind(descent: Descent) -> Hashable:
    """What a graph is good for: everything that decides which kernels are launched on which shapes."""
    shapes = tuple((t.shape, t.dtype, t.device) for t in contents(descent))
    sides = tuple(type(s) for s in (descent.first, descent.second))
    return shapes, sides, descent.outer, descent.inner, descent.warm_start, descent.spread > HARD and descent.spread


def contents(descent: Descent) -> list[Tensor]:
    """The tensors that a descent reads: logits (n, m), two structures, and numbers and marginals of any shape."""
    structures = descent.first.source, descent.second.source
    return [descent.logits, *structures, descent.coefficient, descent.a, descent.b]


def copied(descent: Descent) -> Descent:
    """The same with memory of its own."""
    logits, first, second, coefficient, a, b = (t.clone() for t in contents(descent))
    structures = descent.first.remade(first), descent.second.remade(second)
    own = replace(descent, logits=logits, coefficient=coefficient, a=a, b=b)
    return replace(own, first=structures[0], second=structures[1])


def afresh(descent: Descent) -> Solution:
    """Run on the same memory without anything that structures remember of what was in it before."""
    first, second = (side.remade(side.source) for side in (descent.first, descent.second))
    return replace(descent, first=first, second=second).run(None, True)


def record(descent: Descent) -> tuple[Solution, Replay]:
    """Capture a run: where its solution will be, and what does it again. Kernels are compiled by two runs before."""
    side = torch.cuda.Stream(descent.logits.device)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            afresh(descent)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        solution = afresh(descent)
    return solution, graph.replay
