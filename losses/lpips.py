"""Learned perceptual image patch similarity as a loss."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ..core.errors import UserError, require
from ..core.ops.frozen import WithFrozenNetwork
from ..core.ops.precision import full_precision
from . import LOSSES
from .common import Reduction, checked_choice, comparable, reduced
from .pretrained import pretrained_state, read_state

Net = Literal["alex", "vgg", "squeeze"]

TRUNKS = {"alex": ("alexnet", 31), "vgg": ("vgg16", 16), "squeeze": ("squeezenet1_1", 17)}
"""torchvision's name, and the smallest image side that leaves something to compare at the deepest layer."""


def build_lpips(owner: str, net: Net, weights: str | None) -> nn.Module:
    """The network of the lpips package, version 0.1, with its calibrated heads and the trunk of `pretrained_state`.

    The package itself would initialise a whole classifier, then download. On the meta device it does neither.
    """
    package = require("lpips", owner)
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore", UserWarning)  # it calls torchvision with argument names of 2022
        network: nn.Module = package.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    heads = read_state(owner, Path(str(package.__file__)).parent / "weights" / "v0.1" / f"{net}.pth")
    network.load_state_dict(heads, strict=False, assign=True)
    trunk = network.get_submodule("net")
    # Layers keep their torchvision numbers within slices: slice2.5.weight is features.5.weight.
    names = {key: "features." + key.split(".", 1)[1] for key in trunk.state_dict()}
    shapes = {names[key]: value.shape for key, value in trunk.state_dict().items()}
    state = pretrained_state(owner, weights, lambda: _url(net, owner), shapes)
    trunk.load_state_dict({key: state[name] for key, name in names.items()}, assign=True)
    return network


def _url(net: str, owner: str) -> str:
    models = require("torchvision.models", owner)
    return str(models.get_model_weights(TRUNKS[net][0])["IMAGENET1K_V1"].url)


@LOSSES.register()
class LPIPSLoss(WithFrozenNetwork):
    """LPIPS (Zhang et al., CVPR 2018): calibrated distances of normalised features. Runs in float32.

    Args:
        loss_weight: factor of the result.
        reduction: ``mean`` or ``sum`` over the batch, or ``none`` for one value per image, (B,).
        net: ``vgg`` is the usual trunk to train against, ``alex`` the usual one to report, ``squeeze`` the smallest.
        range_norm: images are in [-1, 1], not in [0, 1].
        weights: a file with a state dict of torchvision's ``vgg16``, ``alexnet`` or ``squeezenet1_1``; torchvision's
            ImageNet weights, downloaded once into torch's hub cache, when omitted; ``random`` for fixed random ones.

    Raises:
        UserError: lpips is missing, no weights file, or images too small or not of 3 channels.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        reduction: Reduction = "mean",
        net: Net = "vgg",
        range_norm: bool = False,
        weights: str | None = None,
    ) -> None:
        checked_choice("LPIPSLoss", "net", net, Net)
        super().__init__(build_lpips("LPIPSLoss", net, weights))
        self.loss_weight = loss_weight
        self.reduction = checked_choice("LPIPSLoss", "reduction", reduction, Reduction)
        self.smallest_side = TRUNKS[net][1]
        self.range_norm = range_norm

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar, of images (B, 3, H, W) in [0, 1].

        Raises:
            UserError: the images do not have 3 channels, or are too small.
        """
        pred, target = comparable("LPIPSLoss", pred, target)
        if pred.shape[1] != 3 or min(pred.shape[-2:]) < self.smallest_side:
            raise UserError(
                f"LPIPSLoss: images need 3 channels and at least {self.smallest_side} pixels a side; "
                f"these are {tuple(pred.shape[1:])}"
            )
        with full_precision(pred):
            distances: Tensor = self.network(pred, target.detach(), normalize=not self.range_norm)
        return self.loss_weight * reduced(distances.flatten(), self.reduction)
