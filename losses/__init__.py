"""Losses: modules that are called as ``loss(pred, target)``, selected by ``type`` in the ``*_opt`` blocks of ``train``.

A loss returns a scalar tensor, or a dict ``{term: scalar tensor}`` when it has several terms; it may offer
``logs() -> dict[str, Tensor]``, values worth logging that are not optimised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..core.registry import Registry

LOSSES = Registry("loss", "relume.losses")


def build_loss(opt: Mapping[str, Any]) -> nn.Module:
    """Build the loss that ``opt = {type: Name, **constructor_arguments}`` describes. `opt` is not modified.

    Raises:
        UserError: unknown type, unknown or missing argument.
    """
    loss: nn.Module = LOSSES.build(opt)
    return loss
