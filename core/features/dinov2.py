"""DINOv2's ViT-S/14: what self-supervision on many images made of them, 384 numbers."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from ...archs.dinov2 import DINOv2, whole_patches
from ..annotations import Range
from ..errors import UserError
from ..hub import published
from ..imaging.normalisation import IMAGENET
from . import FEATURES
from .base import FeatureExtractor, verified_state

PUBLISHED = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_{}pretrain.pth"


@FEATURES.register(name="dinov2_vits14")
class DINOv2Features(FeatureExtractor):
    """The class token of DINOv2 ViT-S/14 (Oquab et al., 2023), by its published weights.

    Images are resized (bilinear, antialiased) so that their shorter side is `input_size` and their aspect is kept, but for
    rounding to whole patches of 14 pixels; then normalised by ImageNet's statistics. A grey image counts as RGB.

    Args:
        weights: the published file, of the model that `registers` tells; or ``random``, for tests.
        sha256: what that file's SHA-256 must be, or begin with.
        input_size: a multiple of 14.
        registers: whether it is the model with four register tokens.

    Raises:
        UserError: the weights are missing, others, or do not fit; `input_size` is no multiple of 14.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        weights: str,
        sha256: str | None = None,
        input_size: Annotated[int, Range(least=14)] = 224,
        registers: bool = False,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = DINOv2(num_register_tokens=4 * registers)
        if input_size % self.network.patch_size:
            raise UserError(
                f"dinov2_vits14: input_size must be a multiple of {self.network.patch_size}, not {input_size}"
            )
        self.input_size = input_size
        mean, std = IMAGENET
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        if published(weights):
            url = PUBLISHED.format("reg4_" if registers else "")
            self._load(verified_state("dinov2_vits14", weights, sha256, f"Fetch {url} and put it there"))
        self.dim = self.network.norm.weight.numel()
        self.seal("dinov2_vits14", input_size=input_size)

    def _load(self, state: dict[str, Tensor]) -> None:
        for key, value in self.network.state_dict().items():
            if key not in state or state[key].shape != value.shape:
                found = tuple(state[key].shape) if key in state else "nothing"
                raise UserError(
                    f"dinov2_vits14: weights: {key} should have shape {tuple(value.shape)}, there is {found}"
                )
        unknown = sorted(state.keys() - self.network.state_dict().keys())
        if unknown:
            raise UserError(f"dinov2_vits14: weights: {unknown[0]} does not belong to this network; see 'registers'")
        self.network.load_state_dict(state)

    def prepared(self, images: Tensor) -> Tensor:
        """What the network gets: (B, C, H, W) in [-1, 1] -> (B, 3, H', W'), multiples of 14, normalised."""
        height, width = images.shape[-2:]
        size = whole_patches(height, width, self.input_size, self.network.patch_size)
        resized = F.interpolate(images.expand(-1, 3, -1, -1), size, mode="bilinear", antialias=True)
        return ((resized + 1) / 2 - self.mean) / self.std

    def features(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(self.prepared(images))
        return found
