"""Deep image structure and texture similarity (DISTS), as a loss and as a score."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError, expanded
from ..core.imaging.normalisation import IMAGENET
from ..core.ops.frozen import WithFrozenNetwork
from ..core.ops.precision import full_precision
from . import LOSSES
from .common import comparable
from .pretrained import read_state
from .vgg import VGGFeatures

LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
CHANNELS = (3, 64, 128, 256, 512, 512)
"""Channels of the image itself and of `LAYERS`."""
STABILISER = 1e-6
SMALLEST_SIDE = 16
"""What leaves a pixel at the deepest layer."""


class L2Pool(nn.Module):
    """Blurred pooling of energies: sqrt of x^2 averaged by a 3 x 3 Hann window, at every other pixel."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        window = torch.tensor([0.5, 1.0, 0.5])
        kernel = torch.outer(window, window)
        self.register_buffer("kernel", (kernel / kernel.sum())[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2))."""
        channels = x.shape[1]
        energy = F.conv2d(x.square(), self.kernel.expand(channels, -1, -1, -1), stride=2, padding=1, groups=channels)
        return (energy + 1e-12).sqrt()


class DISTSNetwork(nn.Module):
    """VGG16 with `L2Pool` for max pooling, and the weights alpha (structure's partner, of means) and beta of each channel.

    Args:
        weights: weights of channels, see `DISTSLoss`.
        vgg_weights: weights of the network, see `DISTSLoss`.
    """

    alpha: Tensor
    beta: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, weights: str | None, vgg_weights: str | None) -> None:
        super().__init__()
        self.vgg = VGGFeatures("vgg16", LAYERS, "DISTSLoss", vgg_weights)
        for i, name in enumerate(self.vgg.names):
            if name.startswith("pool"):
                self.vgg.features[i] = L2Pool()
        state = weights_of_channels(weights)
        total = state["alpha"].sum() + state["beta"].sum()
        for name in ("alpha", "beta"):
            self.register_buffer(name, state[name].flatten() / total, persistent=False)
        for name, values in zip(("mean", "std"), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """1 - similarity of images (B, 3, H, W) in [0, 1]: (B,)."""
        alike: list[Tensor] = []
        for a, b in zip(self.features(x), self.features(y), strict=True):
            of_mean, of_structure = similarities(a.flatten(2), b.flatten(2))
            start = sum(part.shape[1] for part in alike)
            share = slice(start, start + a.shape[1])
            alike.append(self.alpha[share] * of_mean + self.beta[share] * of_structure)
        return 1 - torch.cat(alike, 1).sum(1)

    def features(self, x: Tensor) -> list[Tensor]:
        """The image itself, (B, 3, H, W), and its five layers, (B, C, h, w) each."""
        return [x, *self.vgg((x - self.mean) / self.std).values()]


def similarities(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Similarities of each channel's means (texture) and deviations (structure), (B, C, N) to (B, C) each; equations 4, 5."""
    mx, my = x.mean(2), y.mean(2)
    dx, dy = x - mx[..., None], y - my[..., None]
    of_mean = (2 * mx * my + STABILISER) / (mx.square() + my.square() + STABILISER)
    energies = dx.square().mean(2) + dy.square().mean(2)
    return of_mean, (2 * (dx * dy).mean(2) + STABILISER) / (energies + STABILISER)


def weights_of_channels(weights: str | None) -> Mapping[str, Tensor]:
    """The published alpha and beta, (1475,) each: from a file, or from the package dists-pytorch.

    Raises:
        UserError: neither is there, or the file is another. Without them there is no such score.
    """
    if weights is None:
        found = importlib.util.find_spec("DISTS_pytorch") or importlib.util.find_spec("dists_pytorch")
        folders = [Path(f) for f in (found.submodule_search_locations or ())] if found else []
        path = next((f / "weights.pt" for f in folders if (f / "weights.pt").is_file()), None)
        if path is None:
            raise UserError(
                "DISTSLoss: the published weights of its 1475 channels are not here. Install the package dists-pytorch, or "
                "give their file (weights.pt of the original repository) as 'weights'"
            )
    else:
        path = expanded(weights)
    state = read_state("DISTSLoss", path)
    for name in ("alpha", "beta"):
        found_here = state.get(name)
        if not isinstance(found_here, Tensor) or found_here.numel() != sum(CHANNELS):
            raise UserError(f"DISTSLoss: {path} does not fit: {name} should have {sum(CHANNELS)} entries")
    return {name: state[name].detach().float() for name in ("alpha", "beta")}


@LOSSES.register()
class DISTSLoss(WithFrozenNetwork):
    """DISTS (Ding et al., IEEE TPAMI 2022): similarity of structure and texture of VGG16's features. Runs in float32.

    Args:
        loss_weight: factor of the result.
        weights: a file with ``alpha`` and ``beta``, the published weights of channels; those of the installed package
            dists-pytorch when omitted.
        vgg_weights: a file with a state dict of torchvision's ``vgg16``; torchvision's ImageNet weights, downloaded once into
            torch's hub cache, when omitted; ``random`` for fixed random ones, for tests.

    Raises:
        UserError: no weights, or images too small or not of 3 channels.
    """

    network: DISTSNetwork

    def __init__(self, loss_weight: float = 1.0, weights: str | None = None, vgg_weights: str | None = None) -> None:
        super().__init__(DISTSNetwork(weights, vgg_weights))
        self.loss_weight = loss_weight

    def score(self, x: Tensor, y: Tensor) -> Tensor:
        """DISTS of each pair of images (B, 3, H, W) in [0, 1]: (B,), 0 for equal ones, with gradients to both.

        Figures in papers are of images whose shorter side was first resized to 256.

        Raises:
            UserError: the images do not have 3 channels, or are too small.
        """
        x, y = comparable("DISTSLoss", x, y)
        if x.shape[1] != 3 or min(x.shape[-2:]) < SMALLEST_SIDE:
            raise UserError(
                f"DISTSLoss: images need 3 channels and at least {SMALLEST_SIDE} pixels a side; these are {tuple(x.shape[1:])}"
            )
        with full_precision(x):
            scores: Tensor = self.network(x, y)
        return scores

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.loss_weight * self.score(pred, target.detach()).clamp(min=0).mean()
