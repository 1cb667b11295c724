"""One rule for all fused kernels: used where they run, unless the environment variable ``RELUME_KERNELS`` says otherwise.

``off`` never uses them, ``on`` insists on them (an op whose kernel cannot run then stops with one line), ``auto`` or
nothing leaves the choice to each op.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable

from ..errors import UserError, did_you_mean

MODES = ("auto", "off", "on")
DECISIONS: dict[str, str] = {}
"""Of every op that ran in this process, why its fused kernel did not; empty for one that did."""


def use_kernel(op: str, obstacle: Callable[[], str | None]) -> bool:
    """Whether `op` shall run its fused kernel.

    Args:
        op: its name, for the message.
        obstacle: why the kernel cannot run here, or None if it can; asked only when it matters.

    Raises:
        UserError: ``RELUME_KERNELS`` is ``on`` and there is an obstacle, or it is none of the known words.
    """
    mode = os.environ.get("RELUME_KERNELS", "").strip().lower() or "auto"
    if mode not in MODES:
        raise UserError(f"RELUME_KERNELS cannot be '{mode}'.{did_you_mean(mode, MODES)} Accepted: {', '.join(MODES)}.")
    reason = obstacle() if mode != "off" else "RELUME_KERNELS is off"
    DECISIONS[op] = reason or ""
    if mode == "off":
        return False
    if reason and mode == "on":
        raise UserError(f"RELUME_KERNELS=on, but the fused {op} cannot run: {reason}")
    return reason is None


def decisions() -> str:
    """In words, which kernels run, and why others do not; empty where no op with kernels has run."""
    said = (f"{op}: plain PyTorch ({reason})" if reason else f"{op}: fused" for op, reason in DECISIONS.items())
    return "; ".join(said)


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed; it is not imported."""
    return importlib.util.find_spec("triton") is not None
