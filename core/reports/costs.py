"""What a network costs: parameters, multiply-accumulates, seconds and memory of a forward pass and of a training step."""

from __future__ import annotations

import contextlib
import math
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from ...archs import ARCHS
from ..errors import UserError, in_one_line
from ..inference.network import channels_innermost, innermost
from ..runtime.precision import Amp, autocast
from .calls import Call

ROUNDS = 3
"""Timed rounds at most, of which the fastest counts; those that are compared take turns."""


@dataclass(frozen=True)
class Setting:
    """How a network is run: memory format, compiled or not, mixed precision."""

    name: str = "eager"
    channels_last: bool = False
    compiled: bool = False
    amp: Amp = "off"


@dataclass(frozen=True)
class Cost:
    """What one network costs on inputs of one size, in one setting.

    Attributes:
        height, width: height and width of the input, a batch of one.
        macs: multiply-accumulates of a forward pass, as torch's FlopCounterMode counts (half its FLOPs).
        forward, step: seconds of a forward pass without gradients, and of one with backward and an optimizer's update.
        forward_memory, step_memory: bytes of tensors at most, the network's own aside.
    """

    setting: str
    height: int
    width: int
    macs: int
    forward: float
    forward_memory: int
    step: float
    step_memory: int


class Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make inside, and how many were alive at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.most: int = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            given = any(
                isinstance(a, Tensor) and a.untyped_storage().data_ptr() == storage.data_ptr()
                for a in tree_leaves(args)
            )
            key = storage.data_ptr()
            if given or not key or key in self._known:
                continue
            self._known.add(key)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._gone, key, storage.nbytes())
        return made

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def parameter_count(network: nn.Module) -> int:
    """How many there are."""
    return sum(p.numel() for p in network.parameters())


def macs(network: nn.Module, *inputs: Any) -> int:
    """Multiply-accumulates of a forward pass.

    Raises:
        UserError: the network does not take such an input.
    """
    found = macs_of_shapes(network, *inputs)
    if found is None:
        with explained(network, inputs):
            found = counted(network, inputs)
    return found


def macs_of_shapes(network: nn.Module, *inputs: Any) -> int | None:
    """Multiply-accumulates of a forward pass that is not computed; None where tensors' shapes are not enough to count them.

    Of networks of others none are counted so: they may keep the tensors without values that they are called with.
    """
    if not ARCHS.ships(type(network)):
        return None
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as fake:
            return counted(network, tree_map(lambda x: fake.from_tensor(x) if isinstance(x, Tensor) else x, inputs))
    except Exception:  # it looks at values, has an operator that says no shapes, or refuses the input
        return None


def counted(network: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Half the FLOPs that torch counts in a call."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(*inputs)
    return int(counter.get_total_flops()) // 2


@contextlib.contextmanager
def explained(network: nn.Module, inputs: tuple[Any, ...]) -> Iterator[None]:
    """Inside, an error says which network did not take which input.

    Raises:
        UserError: what is done inside fails.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        shapes = " and ".join(" x ".join(map(str, x.shape)) for x in inputs if isinstance(x, Tensor))
        raise UserError(
            f"network_g: {type(network).__name__} cannot be run on an input of {shapes}: {in_one_line(e)}"
        ) from e


def forward(network: nn.Module, inputs: tuple[Any, ...], amp: Amp) -> Callable[[], Any]:
    """A job: one pass without gradients."""

    def job() -> None:
        with torch.no_grad(), autocast(inputs[0].device, amp):
            network(*inputs)

    return job


def step(network: nn.Module, inputs: tuple[Any, ...], amp: Amp) -> Callable[[], Any]:
    """A job: forward, mean absolute value as the loss, backward, an update by Adam."""
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.0)
    device = inputs[0].device

    def job() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, amp):
            made = [t for t in tree_leaves(network(*inputs)) if isinstance(t, Tensor) and t.requires_grad]
            loss = sum((t.float().abs().mean() for t in made), torch.zeros((), device=device))
        loss.backward()
        optimizer.step()

    return job


def timed(jobs: Sequence[Callable[[], Any]], device: torch.device, until: float = math.inf) -> list[float]:
    """Shortest seconds of each, in turns: one round, and more of them up to `ROUNDS` while there is time for them.

    Args:
        jobs: what is timed, called before, so that what happens once is not timed.
        until: the time of ``time.monotonic()`` at which measuring ends.
    """

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    times = [math.inf] * len(jobs)
    for number in range(ROUNDS):
        if number and time.monotonic() + sum(times) > until:
            break
        for i, job in enumerate(jobs):
            began = now()
            job()
            times[i] = min(times[i], now() - began)
    return times


def peak(job: Callable[[], Any], device: torch.device) -> int:
    """Bytes that a job holds at most beyond what there was before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        job()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - before
    with Peak() as counted:
        job()
    return int(counted.most)


def cost(
    calls: Sequence[Call], size: tuple[int, int], setting: Setting, device: torch.device, until: float = math.inf
) -> list[Cost]:
    """The cost of each network on one input size; they take turns.

    Args:
        size: height and width, rounded up to what each network takes.
        until: the time of ``time.monotonic()`` at which measuring ends: whatever is measured, it is measured once; again
            only while there is time.

    Raises:
        UserError: a network does not take such an input.
    """
    networks: list[Any] = []
    for call in calls:
        if setting.channels_last:
            channels_innermost(call.network)
        networks.append(torch.compile(call.network) if setting.compiled else call.network)
    passes = [given(call, size, setting, training=False) for call in calls]
    counts = [macs(call.network.eval(), *inputs) for call, inputs in zip(calls, passes, strict=True)]
    jobs = [forward(n, x, setting.amp) for n, x in zip(networks, passes, strict=True)]
    memory = [warmed(job, n, x, setting, device) for job, n, x in zip(jobs, networks, passes, strict=True)]
    seconds = timed(jobs, device, until)
    inputs = [given(call, size, setting, training=True) for call in calls]
    jobs = [step(n.train(), x, setting.amp) for n, x in zip(networks, inputs, strict=True)]
    for job, network, x in zip(jobs, networks, inputs, strict=True):
        with explained(network, x):
            job()  # Adam makes its averages, which are the optimizer's own
    held = [warmed(job, n, x, setting, device) for job, n, x in zip(jobs, networks, inputs, strict=True)]
    steps = timed(jobs, device, until)
    sizes = [call.size(*size) for call in calls]
    return [
        Cost(setting.name, at[0], at[1], m, f, b, s, t)
        for at, m, f, b, s, t in zip(sizes, counts, seconds, memory, steps, held, strict=True)
    ]


def given(call: Call, size: tuple[int, int], setting: Setting, training: bool) -> tuple[Any, ...]:
    """What a network is called with, in the setting's memory format."""
    inputs = call.inputs(*size, training)
    return tuple(innermost(x) if isinstance(x, Tensor) else x for x in inputs) if setting.channels_last else inputs


def warmed(
    job: Callable[[], Any], network: nn.Module, inputs: tuple[Any, ...], setting: Setting, device: torch.device
) -> int:
    """Do a job a first time; the bytes that it holds, which are not known (0) of a compiled network."""
    with explained(network, inputs):
        if setting.compiled:
            job()
            return 0
        return peak(job, device)
