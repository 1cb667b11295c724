"""VGG features: the convolutional part of VGG16 and VGG19, with a name for every layer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..core.errors import UserError, did_you_mean, require
from .pretrained import pretrained_state

CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Convolutions of the five blocks (Simonyan and Zisserman, ICLR 2015)."""
WIDTHS = (64, 128, 256, 512, 512)


def layer_names(vgg_type: str) -> list[str]:
    """``conv1_1``, ``relu1_1``, ``conv1_2``, ..., ``pool5``, in the order of torchvision's ``features``."""
    names = []
    for block, convolutions in enumerate(CONVOLUTIONS[vgg_type], start=1):
        for i in range(1, convolutions + 1):
            names += [f"conv{block}_{i}", f"relu{block}_{i}"]
        names.append(f"pool{block}")
    return names


class VGGFeatures(nn.Module):
    """Activations of the named layers; nothing beyond the deepest of them is built.

    Parameters are named as torchvision names them, ``features.<i>.weight`` and ``.bias``.

    Args:
        vgg_type: ``vgg16`` or ``vgg19``.
        layers: names of `layer_names`.
        owner: which loss asks, for messages.
        weights: see `pretrained.pretrained_state`; torchvision's ImageNet weights when None.

    Raises:
        UserError: no layer or an unknown one, or no weights.
    """

    def __init__(self, vgg_type: str, layers: Iterable[str], owner: str, weights: str | None = None) -> None:
        super().__init__()
        names = layer_names(vgg_type)
        self.wanted = frozenset(layers)
        self.owner = owner
        for layer in self.wanted:
            if layer not in names:
                accepted = ", ".join(names)
                raise UserError(
                    f"{owner}: {vgg_type} has no layer '{layer}'.{did_you_mean(layer, names)} Accepted: {accepted}."
                )
        if not self.wanted:
            raise UserError(f"{owner}: layer_weights is empty; give at least one layer, such as conv5_4: 1")
        self.names = names[: 1 + max(names.index(layer) for layer in self.wanted)]
        with torch.device("meta"):  # no memory and no initialisation for what is assigned right after
            self.features = nn.ModuleList(self._layers())
        shapes = {key: value.shape for key, value in self.state_dict().items()}
        state = pretrained_state(f"{owner} ({vgg_type.upper()})", weights, lambda: _url(vgg_type, owner), shapes)
        self.load_state_dict(state, assign=True)

    def _layers(self) -> Iterable[nn.Module]:
        channels = 3
        for i, name in enumerate(self.names):
            if name.startswith("conv"):
                width = WIDTHS[int(name[4]) - 1]
                yield nn.Conv2d(channels, width, 3, padding=1)
                channels = width
            elif name.startswith("relu"):
                yield nn.ReLU(inplace=self.names[i - 1] not in self.wanted)  # else it would overwrite what is kept
            else:
                yield nn.MaxPool2d(2)

    @property
    def smallest_side(self) -> int:
        """Images need at least this height and width."""
        return int(2 ** sum(name.startswith("pool") for name in self.names))

    def check(self, images: Tensor) -> None:
        """Refuse images (B, C, H, W) that are neither gray nor RGB, or too small for the deepest layer.

        Raises:
            UserError: their channels or sides do not fit.
        """
        if images.shape[1] not in (1, 3):
            raise UserError(f"{self.owner}: images need 1 or 3 channels, these have {images.shape[1]}")
        if min(images.shape[-2:]) < self.smallest_side:
            raise UserError(
                f"{self.owner}: images of {images.shape[-2]}x{images.shape[-1]} are too small for {self.names[-1]}, "
                f"which needs {self.smallest_side} pixels"
            )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """`x` (B, 3, H, W), normalised as the weights expect; activations by layer name, shallowest first."""
        kept = {}
        for name, layer in zip(self.names, self.features, strict=True):
            x = layer(x)
            if name in self.wanted:
                kept[name] = x
        return kept


def _url(vgg_type: str, owner: str) -> str:
    models = require("torchvision.models", owner)
    return str(models.get_model_weights(vgg_type)["IMAGENET1K_V1"].url)
