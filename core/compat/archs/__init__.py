"""``basicsr.archs``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ....archs import build_network as _build

__all__ = ["build_network"]


def build_network(opt: Mapping[str, Any]) -> nn.Module:
    """The network of a block."""
    return _build(opt)
