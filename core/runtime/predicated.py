"""Steps that the device itself takes back: an optimizer's step counts or not by a tensor that Python never reads."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

SKIPS = (torch.optim.Adam, torch.optim.AdamW)
"""Optimizers whose fused kernels leave everything as it is when told ``found_inf``."""
INITIAL = {"mu_product": 1.0}
"""What optimizers begin to remember with, where that is not zero."""
KNOWN = (*("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adadelta", "Adagrad", "SGD"),)
"""Optimizers that begin to remember with zeros, or `INITIAL`."""
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def part(x: Tensor) -> Tensor:
    """This rank's part of a tensor of any shape."""
    own: Tensor = x.to_local() if hasattr(x, "to_local") else x
    return own


def local(x: Tensor) -> Tensor:
    """This rank's part of a tensor of any shape, without its graph."""
    return part(x).detach()


@torch.no_grad()
def put_back(sound: Tensor, new: Sequence[Tensor], old: Sequence[Tensor]) -> None:
    """Where `sound`, a boolean scalar, is false, give `new` the values of `old`, in place and bit for bit.

    On a GPU a few launches do it for all tensors: a choice between integers is exact whatever numbers they stand for.
    """
    kinds: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for n, o in zip(map(local, new), map(local, old), strict=True):
        if not n.is_cuda:
            torch.where(sound, n, o, out=n)
            continue
        kind = INTEGERS.get(n.dtype.itemsize) if n.is_floating_point() or n.dtype in INTEGERS.values() else None
        if kind is None or n.dim() == 0:
            n.copy_(torch.where(sound, n, o))
        else:
            lists = kinds.setdefault(kind, ([], []))
            lists[0].append(n.view(kind))
            lists[1].append(o.view(kind))
    for kind, (after, before) in kinds.items():
        chosen(sound.to(kind), after, before)


def chosen(sound: Tensor, new: list[Tensor], old: list[Tensor]) -> None:
    """`new` becomes ``sound * new + (1 - sound) * old``; all are integers of one dtype, in pairs of one shape."""
    torch._foreach_mul_(new, sound)
    torch._foreach_add_(new, torch._foreach_mul(old, 1 - sound))


class Stepper:
    """Steps an optimizer where a tensor says so.

    Args:
        optimizer: one whose memory is on the device of what it trains is asked nothing; any other waits for the verdict.
        recorded: whether steps are to become parts of a graph, so that rates are read from tensors.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, recorded: bool = False) -> None:
        self.optimizer = optimizer
        self.rates = Rates(optimizer, recorded)
        self.forgot = 0
        """How often it was made to forget all that it remembered."""
        kind = type(optimizer)
        self.known = kind.__module__.startswith("torch.optim") and kind.__name__ in KNOWN
        self.born: Tensor | None = None
        """Whether any step since the optimizer remembers something was sound; None once that is known."""

    def step(self, sound: Tensor) -> None:
        """Step; parameters and what the optimizer remembers stay bit for bit as they were unless `sound`, (), boolean."""
        # Where an optimizer cannot be undone on the device, the host asks whether the update is sound.
        parameters = [p for g in self.optimizer.param_groups for p in g["params"] if p.grad is not None]
        if not self._predicable(parameters):
            if bool(sound):
                self._step()
            return
        # torch's fused kernels skip an update by themselves.
        fresh = [p for p in parameters if not self.optimizer.state.get(p)]
        if self._skips():
            if sound.device.type == "cpu":
                align(self.optimizer, parameters)
            if not fresh:
                self._fused(sound)
                return
        # For the others: copies of everything, the update, and back where it was not sound.
        before = {id(p): remembered(self.optimizer, p) for p in parameters}
        kept = [local(p).clone() for p in parameters]
        memory = {key: {k: local(v).clone() for k, v in state.items()} for key, state in before.items()}
        self._step()
        put_back(sound, parameters, kept)
        new, old = [], []
        for p in parameters:
            for name, value in remembered(self.optimizer, p).items():
                new.append(value)
                earlier = memory[id(p)].get(name)
                old.append(torch.full_like(local(value), INITIAL.get(name, 0.0)) if earlier is None else earlier)
        put_back(sound, new, old)
        # Whether an optimizer has begun depends on whether its first update was sound.
        if fresh and len(fresh) == len(parameters):
            self.born = torch.zeros_like(sound)
        if self.born is not None:
            self.born.logical_or_(sound)

    def settle(self) -> None:
        """Forget what the optimizer began to remember in steps that all were taken back. Waits for the device."""
        if self.born is not None and not bool(self.born):
            self.optimizer.state.clear()
            self.forgot += 1
        self.born = None

    def _step(self) -> None:
        with self.rates.there():
            self.optimizer.step()

    def _predicable(self, parameters: Sequence[Tensor]) -> bool:
        if not self.known or any(g.get("dampening") for g in self.optimizer.param_groups):
            return False
        for p in parameters:
            for value in self.optimizer.state.get(p, {}).values():
                if value is not None and not (isinstance(value, Tensor) and value.device == p.device):
                    return False
        on_host = not all(g.get("fused") or g.get("capturable") for g in self.optimizer.param_groups)
        return not on_host or all(p.device.type == "cpu" for p in parameters) or self._counts_nothing()

    def _counts_nothing(self) -> bool:
        return type(self.optimizer).__name__ == "SGD"

    def _skips(self) -> bool:
        return type(self.optimizer) in SKIPS and all(g.get("fused") for g in self.optimizer.param_groups)

    def _fused(self, sound: Tensor) -> None:
        optimizer: Any = self.optimizer
        optimizer.grad_scale = None
        optimizer.found_inf = (~sound).float()
        try:
            self._step()
        finally:
            del optimizer.grad_scale, optimizer.found_inf


class Rates:
    """The learning rates of an optimizer as its step takes them; schedulers, logs and checkpoints know plain numbers.

    Args:
        optimizer: optimizer whose groups they are.
        in_tensors: whether they are read from tensors on the device, which steps of a graph need.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, in_tensors: bool) -> None:
        self.optimizer = optimizer
        devices = [p.device for g in optimizer.param_groups for p in g["params"][:1]]
        self.rounded = any(d.type == "cuda" for d in devices)
        self.tensors: list[Tensor] = []
        """The rate of each group, or none."""
        if in_tensors:
            # Fused kernels read float64 on a CPU, and float32 on a GPU.
            self.tensors = [
                torch.zeros((), device=d, dtype=torch.float64 if d.type == "cpu" else torch.float32) for d in devices
            ]

    def bring(self) -> None:
        """Give the tensors the rates that are in force."""
        for tensor, group in zip(self.tensors, self.optimizer.param_groups, strict=False):
            tensor.fill_(group["lr"])

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """Inside, the groups have the rates as the step takes them: on a GPU float32, so that a graph's are the same."""
        groups = self.optimizer.param_groups  # which loading a state makes anew
        plain = [g["lr"] for g in groups]
        taken: Sequence[Any] = self.tensors or [float32(lr) if self.rounded else lr for lr in plain]
        # torch lets itself be recorded only where this is set, which fused kernels need for nothing else.
        unmarked = [g for g in groups if g.get("capturable") is False] if self.tensors and recording() else []
        try:
            for group, rate in zip(groups, taken, strict=True):
                group["lr"] = rate
            for group in unmarked:
                group["capturable"] = True
            yield
        finally:
            for group, rate in zip(groups, plain, strict=True):
                group["lr"] = rate
            for group in unmarked:
                group["capturable"] = False


def recording() -> bool:
    """Whether what is launched becomes part of a CUDA graph."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def float32(rate: Any) -> Any:
    """A rate as a number that float32 has; a tensor is left alone.

    >>> float32(0.1)
    0.10000000149011612
    """
    return rate if isinstance(rate, Tensor) else struct.unpack("f", struct.pack("f", rate))[0]


def takes_tensors(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer reads its rates from tensors without bringing them to the host."""
    own = type(optimizer).__module__.startswith("torch.optim") and type(optimizer).__name__ in KNOWN
    return own and all(g.get("fused") or g.get("capturable") for g in optimizer.param_groups)


def align(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> None:
    """Give gradients and optimizer state the memory layout of their parameters, of any shape.

    torch's kernel on a CPU reads them in the order in which they lie in memory.
    """
    for p in parameters:
        strides, grad, state = p.stride(), p.grad, optimizer.state.get(p, {})
        if grad is not None and grad.stride() != strides:
            p.grad = torch.empty_like(p).copy_(grad)
        for name, value in state.items():
            if isinstance(value, Tensor) and value.dim() and value.stride() != strides:
                state[name] = torch.empty_like(p, dtype=value.dtype).copy_(value)


def remembered(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """What an optimizer remembers of a parameter, as tensors of its shape or scalars, by name."""
    return {k: v for k, v in optimizer.state.get(parameter, {}).items() if isinstance(v, Tensor)}
