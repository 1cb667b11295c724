"""Whole training steps as CUDA graphs: what a step launches is recorded once for each shape, and launched again as one."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import UserError

log = logging.getLogger("relume")
T = TypeVar("T")
Batches = Sequence[dict[str, Any]]
WARM_UP = 3
"""Steps of each shape that run without a graph before one is recorded: what they compile, tune or allocate stays."""
MOST_GRAPHS = 8
"""Shapes that are recorded."""
MOST_KEYS = 64
"""Different kinds of steps after which no more are counted: they seem to differ in every step."""
aten = torch.ops.aten
WAITS = frozenset(
    (
        *(aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.bincount),
        *(aten._unique2, aten.unique_dim, aten.unique_consecutive),
        *(
            aten.linalg_eigh,
            aten._linalg_eigh,
            aten._linalg_svd,
            aten.linalg_eig,
            aten._linalg_eigvals,
            aten.linalg_lstsq,
        ),
    )
)
"""Operations that bring numbers to the host, or sizes that follow from them."""


class Unrepeatable(UserError):
    """A step depends on what a graph does not hold; the message says on what."""


class Recorder(Protocol):
    """Records what a step does on the device, and does it again."""

    def warming(self) -> contextlib.AbstractContextManager[Any]:
        """Entered around the steps before."""

    def record(self, compute: Callable[[], T]) -> T:
        """Take a step and record it. Where that fails, everything on the device is as before."""

    def replay(self) -> None:
        """Take it again, on the same tensors."""


class CUDARecorder:
    """A CUDA graph.

    Args:
        device: device of the step.
        pool: pool of the memory, which graphs of other shapes share: nothing of one is used after another has run.
    """

    def __init__(self, device: torch.device, pool: Any) -> None:
        self.device, self.pool = device, pool
        self.graph: Any = torch.cuda.CUDAGraph()

    @contextlib.contextmanager
    def warming(self) -> Any:
        """On a stream of its own, as the recording will be."""
        side, current = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            yield
        current.wait_stream(side)

    def record(self, compute: Callable[[], T]) -> T:
        """See `Recorder`; nothing runs until the end."""
        # Threads that load data may do meanwhile what a stream that records may not.
        with torch.cuda.graph(self.graph, pool=self.pool, capture_error_mode="thread_local"):
            result = compute()
        self.graph.replay()
        return result

    def replay(self) -> None:
        self.graph.replay()


@dataclass
class Recorded(Generic[T]):
    """A step of one kind."""

    recorder: Recorder
    inputs: Batches = field(default_factory=list)
    """The micro-batches, whose tensors always lie in the same place."""
    result: T | None = None
    """What the step returned, whose tensors every replay fills anew; None until it is recorded."""
    steps: int = 0
    """Steps taken so far without a graph."""


class StepGraphs(Generic[T]):
    """Takes steps as they come, or by the graph of their kind once that is recorded; what is computed is the same.

    A step is given as a function of its micro-batches that may do on the host only what is the same in all steps of its kind:
    what else changes, it reads from tensors that stay where they are.

    Args:
        device: device of the step.
        make: a new recorder.
        watched: whether the steps before are watched for what cannot be recorded, which compiled networks do not allow.

    Attributes:
        why_not: why no step is recorded any more; None while there is no reason.
        replayed: steps that were taken by a graph.
    """

    def __init__(self, device: torch.device, make: Callable[[], Recorder], watched: bool = True) -> None:
        self.device, self.make, self.watched = device, make, watched
        self.why_not: str | None = None
        self.replayed = 0
        self.kinds: dict[Hashable, Recorded[T]] = {}

    def take(
        self, kind: Hashable, prepare: Callable[[], Batches], compute: Callable[[Batches, bool], T]
    ) -> tuple[T, bool]:
        """Take a step.

        Args:
            kind: what else it depends on; steps that agree in this, and whose micro-batches have the same shapes, have a graph.
            prepare: function that sets the generators of random numbers, and gives the micro-batches; called before `compute`.
            compute: the step, of its micro-batches, and of whether it is being recorded.

        Returns:
            What `compute` returns, and whether its tensors belong to a graph: then the next step overwrites them.
        """
        batches = prepare()
        recorded = self.known((kind, shapes_of(batches)))
        if recorded is None:
            return compute(batches, False), False
        if recorded.result is not None:
            fill(recorded.inputs, batches)
            recorded.recorder.replay()
            self.replayed += 1
            return recorded.result, True
        if recorded.steps < WARM_UP:
            recorded.steps += 1
            return self._warm(recorded, batches, compute), False
        return self._record(recorded, batches, compute, prepare)

    def known(self, kind: Hashable) -> Recorded[T] | None:
        """The step of a kind, new or not; None where none is to be recorded."""
        if self.why_not is not None:
            return None
        if kind not in self.kinds and len(self.kinds) < MOST_KEYS:
            if len(self.kinds) == MOST_KEYS - 1:
                log.info("train.cuda_graph: there are over %d kinds of steps; further ones are not recorded", MOST_KEYS)
            self.kinds[kind] = Recorded(self.make())
        found = self.kinds.get(kind)
        full = sum(r.result is not None for r in self.kinds.values()) >= MOST_GRAPHS
        return None if full and found is not None and found.result is None else found

    def _warm(self, recorded: Recorded[T], batches: Batches, compute: Callable[[Batches, bool], T]) -> T:
        with recorded.recorder.warming():
            if not self.watched or recorded.steps < WARM_UP:  # constants are uploaded by the first step
                return compute(batches, False)
            drawn = host_generators(self.device)
            with Watch(self.device) as watch:
                result = compute(batches, False)
        if watch.found is not None:
            self.give_up(watch.found)
        elif drawn != host_generators(self.device):
            self.give_up("it draws random numbers on the host")
        return result

    def _record(
        self,
        recorded: Recorded[T],
        batches: Batches,
        compute: Callable[[Batches, bool], T],
        prepare: Callable[[], Batches],
    ) -> tuple[T, bool]:
        recorded.inputs = [type(batch)({k: placed(v) for k, v in batch.items()}) for batch in batches]
        try:
            recorded.result = recorded.recorder.record(lambda: compute(recorded.inputs, True))
        except Exception as e:
            if isinstance(e, torch.OutOfMemoryError):
                raise
            self.give_up(str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__)
            return compute(prepare(), False), False
        self.replayed += 1
        log.info("train.cuda_graph: steps of %s are one graph each from now on", said(batches))
        return recorded.result, True

    def give_up(self, why: str) -> None:
        """Record nothing any more, which the log says once."""
        if self.why_not is None:
            log.warning("train.cuda_graph: steps are taken without a graph: %s", why)
        self.why_not = why
        self.kinds.clear()

    def forget(self) -> None:
        """Record everything anew: tensors that steps change are no longer the same."""
        self.kinds.clear()


class Watch(TorchDispatchMode):
    """Looks for what a graph cannot hold.

    Args:
        device: device of what is computed inside.

    Attributes:
        found: the first such thing, in words; None where there was none.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.found: str | None = None

    supports_higher_order_operators = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.found is None:
            self.found = self.wrong(func, args, kwargs or {}, out)
        return out

    def wrong(self, func: Any, args: Any, kwargs: Mapping[str, Any], out: Any) -> str | None:
        """What is wrong with an operation; None where nothing is."""
        packet = getattr(func, "_overloadpacket", func)
        if packet in WAITS and any(self.ours(a) for a in args):
            return f"it waits for the device ({packet})"
        if packet is aten.lift_fresh and self.ours(args[0]) and args[0].numel() > 0:
            return "it brings numbers from the host (torch.tensor)"
        if packet in (aten._to_copy, aten.copy_) and self.device.type != "cpu" and self.ours(out):
            source = args[1] if packet is aten.copy_ else args[0]
            if source.device.type == "cpu":
                return f"it brings numbers from the host ({packet})"
        if packet is aten.index and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            return "it takes a selection whose size the device decides (a boolean mask)"
        if kwargs.get("generator") is not None:
            return "it draws from a generator of its own"
        return None

    def ours(self, value: Any) -> bool:
        """Whether something is a tensor of the device."""
        return isinstance(value, Tensor) and value.device.type == self.device.type


def host_generators(device: torch.device) -> tuple[Any, ...]:
    """The states of the host's generators of random numbers, without that of the device that computes."""
    of_torch = b"" if device.type == "cpu" else torch.default_generator.get_state().numpy().tobytes()
    name, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), (name, np.asarray(keys).tobytes(), *rest), of_torch


def shapes_of(batches: Batches) -> Hashable:
    """What of micro-batches a graph depends on: all but the values of tensors, and texts."""
    return tuple(tuple((name, kind_of(value)) for name, value in sorted(batch.items())) for batch in batches)


def kind_of(value: Any) -> Hashable:
    """What a graph depends on of an item of a batch."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.stride(), value.device
    if isinstance(value, (str, list, tuple, dict)):
        return type(value).__name__
    return repr(value)


def placed(value: Any) -> Any:
    """A copy of a tensor, in the same layout, whose place is its own; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    copy = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
    return copy.copy_(value)


def fill(inputs: Batches, batches: Batches) -> None:
    """Give the tensors of a graph's micro-batches the values of others."""
    for own, batch in zip(inputs, batches, strict=True):
        for name, value in batch.items():
            if isinstance(value, Tensor):
                own[name].copy_(value, non_blocking=True)


def said(batches: Batches) -> str:
    """The shapes of the first micro-batch, in words.

    >>> said([{"lq": torch.zeros(2, 3, 8, 8), "lq_path": ["a", "b"]}])
    'lq 2x3x8x8'
    """
    tensors = {k: v for k, v in batches[0].items() if isinstance(v, Tensor) and v.dim() > 1}
    return ", ".join(f"{k} {'x'.join(map(str, v.shape))}" for k, v in tensors.items()) or "this kind"
