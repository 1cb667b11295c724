"""Mixed precision, as options name it."""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import torch

Amp = Literal["off", "bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, amp: Amp) -> contextlib.AbstractContextManager[Any]:
    """Inside: what can be computed in `amp` is; everything in float32 where it is ``off``."""
    return torch.autocast(device.type, dtype=DTYPES[amp]) if amp != "off" else contextlib.nullcontext()
