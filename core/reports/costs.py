"""What a network costs: parameters, multiply-accumulates, seconds and memory of a forward pass and of a training step."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ..errors import UserError, in_one_line
from ..inference.tiling import size_multiple
from ..runtime.precision import Amp, autocast

ROUNDS = 3
"""Timed rounds, of which the fastest counts; those that are compared take turns."""


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
        height, width: of the input, a batch of one.
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
    step: float | None
    step_memory: int | None


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


def parameters(network: nn.Module) -> int:
    """How many there are."""
    return sum(p.numel() for p in network.parameters())


def macs(network: nn.Module, image: Tensor) -> int:
    """Multiply-accumulates of a forward pass.

    Raises:
        UserError: the network does not take such an input.
    """
    counter = FlopCounterMode(display=False)
    with explained(network, image), torch.no_grad(), counter:
        network(image)
    return int(counter.get_total_flops()) // 2


@contextlib.contextmanager
def explained(network: nn.Module, image: Tensor) -> Iterator[None]:
    """Inside, an error says which network did not take which input."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        shape = " x ".join(map(str, image.shape))
        raise UserError(
            f"network_g: {type(network).__name__} cannot be run on one image of {shape}: {in_one_line(e)}"
        ) from e


def forward(network: nn.Module, image: Tensor, amp: Amp) -> Callable[[], Any]:
    """A job: one pass without gradients."""

    def job() -> None:
        with torch.no_grad(), autocast(image.device, amp):
            network(image)

    return job


def step(network: nn.Module, image: Tensor, amp: Amp) -> Callable[[], Any]:
    """A job: forward, mean absolute value as the loss, backward, an update by Adam."""
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.0)

    def job() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(image.device, amp):
            made = [t for t in tree_leaves(network(image)) if isinstance(t, Tensor) and t.requires_grad]
            loss = sum((t.float().abs().mean() for t in made), torch.zeros((), device=image.device))
        loss.backward()
        optimizer.step()

    return job


def timed(jobs: Sequence[Callable[[], Any]], device: torch.device) -> list[float]:
    """Shortest seconds of each, in turns, after a call that is not timed."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    for job in jobs:
        job()
    times = [float("inf")] * len(jobs)
    for _ in range(ROUNDS):
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
    networks: Sequence[nn.Module], channels: Sequence[int], size: tuple[int, int], setting: Setting, device: torch.device,
    training: bool = True,
) -> list[Cost]:  # fmt: skip
    """The cost of each network on one input size; they take turns.

    Args:
        channels: of each network's input.
        size: height and width, rounded up to what each network takes.
        training: also measure a step.

    Raises:
        UserError: a network does not take such an input.
    """
    images, counted, used = list[Tensor](), list[int](), list[nn.Module]()
    form = torch.channels_last if setting.channels_last else torch.contiguous_format
    for network, channel in zip(networks, channels, strict=True):
        multiple = size_multiple(network)
        h, w = (-(-side // multiple) * multiple for side in size)
        image = torch.rand(1, channel, h, w, device=device).to(memory_format=form)
        network.to(memory_format=form)
        images.append(image)
        counted.append(macs(network.eval(), image))
        used.append(torch.compile(network) if setting.compiled else network)  # type: ignore[arg-type]
    passes = [forward(n, x, setting.amp) for n, x in zip(used, images, strict=True)]
    seconds = timed(passes, device)
    memory = [peak(job, device) for job in passes] if not setting.compiled else [0] * len(passes)
    steps: list[float | None] = [None] * len(used)
    held: list[int | None] = [None] * len(used)
    if training:
        for network, image in zip(networks, images, strict=True):
            with explained(network, image):
                step(network.train(), image, setting.amp)()
        jobs = [step(n.train(), x, setting.amp) for n, x in zip(used, images, strict=True)]
        steps = [*timed(jobs, device)]
        held = [peak(job, device) for job in jobs] if not setting.compiled else held
    return [
        Cost(setting.name, int(x.shape[2]), int(x.shape[3]), m, f, b, s, t)
        for x, m, f, b, s, t in zip(images, counted, seconds, memory, steps, held, strict=True)
    ]


def input_channels(block: Mapping[str, Any]) -> int:
    """Channels of a network's input, as its option block says under one of the usual names; else 3."""
    for key in ("in_channels", "in_chans", "in_ch", "num_in_ch", "inp_channels", "img_channel", "in_nc", "n_colors"):
        if isinstance(block.get(key), int):
            return int(block[key])
    return 3
