"""``basicsr.archs.swinir_arch``, whose parts other networks are made of: spandrel's copy of it."""

from __future__ import annotations

import importlib
from typing import Any

SOURCE = "spandrel.architectures.SwinIR.__arch.SwinIR"


def __getattr__(name: str) -> Any:
    """A part of SwinIR.

    Raises:
        AttributeError: it has none of this name.
    """
    if name.startswith("__"):
        raise AttributeError(name)
    try:
        return getattr(importlib.import_module(SOURCE), name)
    except AttributeError:
        raise AttributeError(f"SwinIR has no '{name}'") from None
