"""The steps of a training: one operation after the other, or, with ``train.cuda_graph``, one graph for each kind of step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..guard import StepReport
from ..models.base import Batch, Model
from ..runtime import distributed
from ..runtime.predicated import takes_tensors
from ..runtime.step_graph import CUDARecorder, Recorder, StepGraphs, Unrepeatable
from .update import Updater

log = logging.getLogger("relume")


@dataclass
class Taken:
    """What a step leaves behind on the host."""

    scalars: dict[str, Tensor | float]
    asked: set[str]
    """The optimizers that it asked for."""
    logged: list[list[str]]
    entries: list[StepReport]

    def again(self, iteration: int, batches: Sequence[Batch]) -> Taken:
        """The same of another step, with copies of the numbers that the device has now."""
        scalars = {k: v.clone() if isinstance(v, Tensor) else v for k, v in self.scalars.items()}
        entries = [e.again(iteration, batches) for e in self.entries]
        return Taken(scalars, set(self.asked), [list(names) for names in self.logged], entries)


def recorder_for(device: torch.device) -> Callable[[], Recorder] | None:
    """What makes recorders of steps on a device; None where there is no such thing."""
    if device.type != "cuda":
        return None
    pool = torch.cuda.graph_pool_handle()
    return lambda: CUDARecorder(device, pool)


class StepTaker:
    """Takes a run's steps.

    Args:
        updater: what a step does.

    Attributes:
        graphs: None where every step is taken as it comes.
    """

    def __init__(self, updater: Updater) -> None:
        self.updater, self.model = updater, updater.parts.model
        self.graphs: StepGraphs[Taken] | None = None
        self._forgot = 0
        train, device = updater.train, updater.parts.device
        if not train.cuda_graph:
            return
        make = recorder_for(device)
        if make is None or (why := without_graphs(updater)):
            reason = f"the device is {device.type}" if make is None else why
            log.warning("train.cuda_graph: steps are taken without a graph: %s", reason)
            return
        self.graphs = StepGraphs(device, make, watched=not train.compile)

    def take(
        self, iteration: int, batches: Sequence[Batch], buffers: Sequence[Tensor] | None, seed: Callable[[], None]
    ) -> tuple[dict[str, Tensor | float], set[str]]:
        """Take a step, and return the scalars that it logs; see `Updater.take`.

        Args:
            seed: function that sets the generators of random numbers; called before the step.
        """
        kind = self.kind(iteration) if self.graphs is not None and not self.model.showing else None
        if self.graphs is None or kind is None:
            seed()
            return self.updater.take(iteration, batches, buffers)

        def prepare() -> list[Batch]:
            seed()
            return [self.model.ready(batch, iteration) for batch in batches]

        taken, of_graph = self.graphs.take(
            kind,
            prepare,
            lambda given, recorded: self._taken(iteration, given, None if recorded else buffers, recorded),
        )
        if of_graph:
            taken = taken.again(iteration, batches)
        self.updater.logged, self.updater.applied = taken.logged, bool(taken.asked)
        self.updater.parts.guard.entries += taken.entries
        return taken.scalars, taken.asked

    def kind(self, iteration: int) -> Hashable | None:
        """What a step depends on besides its micro-batches; None where it cannot be recorded at all."""
        assert self.graphs is not None
        forgot = sum(s.forgot for s in self.updater.steppers.values())
        if forgot != self._forgot:  # what optimizers remember is not where it was
            self.graphs.forget()
            self._forgot = forgot
        try:
            stage = self.model.stage(iteration)
        except Unrepeatable as e:
            self.graphs.give_up(str(e))
            return None
        groups = [g for o in self.updater.parts.optimizers.values() for g in o.param_groups]
        settings = [tuple(sorted((k, repr(v)) for k, v in g.items() if k not in ("params", "lr"))) for g in groups]
        return "stage", stage, tuple(settings)

    def _taken(
        self, iteration: int, batches: Sequence[Batch], buffers: Sequence[Tensor] | None, recorded: bool
    ) -> Taken:
        guard, updater = self.updater.parts.guard, self.updater
        updater.logged, updater.applied = [], False
        first = len(guard.entries)
        try:
            scalars, asked = updater.take(iteration, batches, buffers)
            entries = guard.entries[first:]
        finally:
            del guard.entries[first:]
        if recorded and (numbers := [k for k, v in scalars.items() if not on(v, updater.parts.device)]):
            raise Unrepeatable(f"it logs numbers of the host ({', '.join(numbers)})")
        return Taken(scalars, asked, updater.logged, entries)


def on(value: Tensor | float, device: torch.device) -> bool:
    """Whether something is a tensor, of any shape, on a device."""
    return isinstance(value, Tensor) and value.device.type == device.type


def without_graphs(updater: Updater) -> str | None:
    """Why steps of a run cannot be recorded, whatever they compute; None where they may be."""
    train, model = updater.train, updater.parts.model
    for name, optimizer in updater.parts.optimizers.items():
        if not takes_tensors(optimizer):
            return f"optim_{name} ({type(optimizer).__name__}) reads its rate on the host"
    if distributed.active():
        return "there are several ranks"
    if train.compile in ("reduce-overhead", "max-autotune"):
        return f"compile: {train.compile} makes graphs of its own"
    if train.checkpoint_activations:
        return "checkpoint_activations sets generators of random numbers in the middle of a step"
    return silent_about(type(model))


def silent_about(kind: type[Model]) -> str | None:
    """Why a model's steps are not known to be the same work each time; None where its class says what they depend on."""
    owners = {name: next(i for i, c in enumerate(kind.__mro__) if name in vars(c)) for name in ("stage", "updates")}
    if owners["stage"] <= owners["updates"] and kind.__mro__[owners["stage"]] is not Model:
        return None
    return f"{kind.__name__} does not say what its steps depend on (Model.stage)"
