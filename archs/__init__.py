"""Architectures: one file per family, selected by ``type`` in a ``network_*`` block. What is not here may be in the `zoo`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..core.registry import Registry
from . import zoo

ARCHS = Registry("architecture", "relume.archs", library=zoo.find, library_names=zoo.names, library_advice=zoo.advice)


def build_network(opt: Mapping[str, Any]) -> nn.Module:
    """Build the network that ``opt = {type: Name, **constructor_arguments}`` describes. `opt` is not modified.

    Raises:
        UserError: unknown type, unknown or missing argument.
    """
    network: nn.Module = ARCHS.build(opt)
    return network
