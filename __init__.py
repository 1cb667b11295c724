"""Relume: config-driven training for image restoration, frame interpolation and one-step generation."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.load import load, load_model

__all__ = ["__version__", "load", "load_model"]
__version__ = "0.1.0"

# OpenMP's threads wait by spinning, which takes the cores from other processes with work: loading processes, a second run. On
# two busy cores a training step was measured 3 to 30 times slower than with threads that sleep. The variable takes effect if
# torch is not loaded yet; a value that is set already stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    """`load` and `load_model` bring torch and all of Relume with them, and are imported when they are first asked for."""
    if name in ("load", "load_model"):
        from .core import load as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
