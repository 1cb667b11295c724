"""What every network may say of itself to the models that call it."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..annotations import declared


class NetworkTraits:
    """What Relume asks of a network besides a call, and what holds for one that says nothing.

    A registered ``nn.Module`` may have any of these; `core.annotations.declared` reads them.
    """

    size_multiple: int = 1
    """What height and width of the input must be a multiple of: images are padded for it, and tiles begin there."""
    result_output: int = 0
    """Of several outputs, the place of the one that is *the* result; -1 is the last."""
    draws_in_evaluation: bool = False
    """Whether evaluation draws from torch's global generators: `Inference` then seeds them for each picture."""
    backbone: nn.Module | None = None
    """The part that ``freeze_backbone`` leaves untrained."""
    flow_estimator: nn.Module | None = None
    """The part that ``flow_first`` trains alone; the network takes ``warp_only`` for that."""
    img_resolution: int | None = None
    """Side of the images that a generator makes."""
    img_channels: int | None = None
    """Channels of the images that a generator makes."""
    label_dim: int | None = None
    """Classes of a generator; 0 without."""


def network_trait(net: object, name: str) -> Any:
    """What a network says of itself (see `NetworkTraits`), also when it is wrapped (DDP, compiled, averaged)."""
    while not hasattr(net, name) and isinstance(inner := getattr(net, "module", None), nn.Module):
        net = inner  # what wraps networks calls them `module`
    return declared(net, name, NetworkTraits)
