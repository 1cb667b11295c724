"""Mixed precision, as options name it."""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import torch

Amp = Literal["off", "bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


MANY = 100_000
"""Parameters from which on a network takes minutes in fp16 on a CPU."""


def usable(amp: Amp, device: torch.device, parameters: int = MANY) -> Amp:
    """`amp`, or bf16 in place of fp16 for a network with so many parameters on a CPU, whose fp16 is tens of times slower.

    >>> usable("fp16", torch.device("cpu")), usable("fp16", torch.device("cpu"), 1000), usable("off", torch.device("cpu"))
    ('bf16', 'fp16', 'off')
    """
    return "bf16" if amp == "fp16" and device.type == "cpu" and parameters >= MANY else amp


def in_words(amp: str) -> str:
    """What is computed in: ``float32`` where `amp` is ``off``."""
    return "float32" if amp == "off" else amp


def autocast(device: torch.device, amp: Amp) -> contextlib.AbstractContextManager[Any]:
    """Inside: what can be computed in `amp` is; everything in float32 where it is ``off``."""
    return torch.autocast(device.type, dtype=DTYPES[amp]) if amp != "off" else contextlib.nullcontext()
