"""What every network may say of itself to the models that call it."""

from __future__ import annotations

from torch import nn


class NetworkTraits:
    """What Relume asks of a network besides a call, and what holds for one that says nothing.

    A registered ``nn.Module`` may have any of these; `core.annotations.declared` reads them.
    """

    size_multiple: int = 1
    """What height and width of the input must be a multiple of: images are padded for it, and tiles begin there."""
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
    conditional: bool = False
    """Whether a discriminator takes the input, enlarged, before the channels of the image that it judges."""
