"""Devices other than the CPU: which there are, which one a run takes, and what is asked of each under another name."""

from __future__ import annotations

from typing import Any, Literal

import torch

from ..errors import UserError

Device = Literal["auto", "cpu", "cuda", "xpu", "mps"]
KINDS = ("cuda", "xpu", "mps", "cpu")
"""Kinds of device, in the order in which ``auto`` takes what there is: NVIDIA's and AMD's GPUs, Intel's, Apple's."""


def available(kind: str) -> bool:
    """Whether torch sees a device of a kind."""
    if kind == "cuda":
        return torch.cuda.is_available()
    if kind == "xpu":
        return torch.xpu.is_available()
    return torch.backends.mps.is_available() if kind == "mps" else kind == "cpu"


def chosen(asked: str = "auto", use_cpu: bool = False) -> torch.device:
    """The device that the options ask for.

    Args:
        asked: kind of device that is asked for, see `Device`.
        use_cpu: whether ``num_gpu: 0`` is given.

    Raises:
        UserError: it is not here, or ``num_gpu: 0`` asks for another.
    """
    if use_cpu and asked not in ("auto", "cpu"):
        raise UserError(f"device: {asked}, but num_gpu: 0 asks for the CPU; leave one of them out", key="device")
    kind = "cpu" if use_cpu else asked
    if kind == "auto":
        kind = next(k for k in KINDS if available(k))
    if not available(kind):
        here = ", ".join(k for k in KINDS if available(k))
        raise UserError(
            f"device: torch sees no {kind} here; there is {here} (auto takes the first of these)", key="device"
        )
    return torch.device(kind, 0) if kind in ("cuda", "xpu") else torch.device(kind)


def module(device: torch.device) -> Any:
    """torch's module of a kind of device, ``torch.cuda``; None of the CPU."""
    return getattr(torch, device.type) if device.type in KINDS[:-1] else None


def name(device: torch.device) -> str:
    """What a device is called, in words; empty for those without a name."""
    own = module(device)
    return str(own.get_device_name(device)) if hasattr(own, "get_device_name") else ""


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all it was asked to."""
    if device.type == "mps":
        torch.mps.synchronize()
    elif (own := module(device)) is not None:
        own.synchronize(device)


def seed(value: int) -> None:
    """Seed the generators of every device that is in use."""
    for own in (torch.cuda, torch.xpu):
        if own.is_initialized():
            own.manual_seed(value)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(value)


def held(device: torch.device) -> int | None:
    """Bytes that tensors hold on a device now; None on a CPU."""
    if device.type == "mps":
        return int(torch.mps.current_allocated_memory())
    own = module(device)
    return None if own is None else int(own.memory_allocated(device))


def most_held(device: torch.device) -> int | None:
    """Most bytes that tensors have held so far (on Apple's, what its driver holds now); None on a CPU."""
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    own = module(device)
    return None if own is None else int(own.max_memory_allocated(device))


def there_is(device: torch.device) -> int | None:
    """Bytes that a device has; None on a CPU."""
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    own = module(device)
    return None if own is None else int(own.get_device_properties(device).total_memory)
