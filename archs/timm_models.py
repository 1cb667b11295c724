"""Networks of timm, by name, for those that look through one."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..core.errors import UserError, require


def timm_model(owner: str, model: str, **options: Any) -> nn.Module:
    """A network of timm without its classifier and with random weights.

    Args:
        owner: component that asks, for messages.
        model: one of ``timm.list_models()``, with or without the tag of its weights.
        options: options of ``timm.create_model``.

    Raises:
        UserError: timm is not installed, or has no such model.
    """
    timm = require("timm", owner)
    if model.split(".")[0] not in timm.list_models():
        raise UserError(f"{owner}: timm has no model '{model}'; timm.list_models() lists them")
    network: nn.Module = timm.create_model(model, pretrained=False, num_classes=0, **options)
    return network
