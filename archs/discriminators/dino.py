"""A discriminator that looks through a frozen vision transformer, as StyleGAN-T's does (Sauer et al., ICML 2023)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.annotations import Count, NonNegative
from ...core.errors import UserError, require
from ...core.hub import published
from ...core.imaging.normalisation import IMAGENET
from ...core.ops.frozen import WithFrozenNetwork
from ...core.runtime import checkpoint
from ...core.runtime.weights import unwrap
from .. import ARCHS
from ..blocks import refuse_unfit
from ..timm_models import timm_model
from .spectral import SpectralConv2d

REACH = 9
"""Tokens that a head's second convolution sees, in a ring."""


@ARCHS.register()
class DINODiscriminator(WithFrozenNetwork):
    """Small heads on tokens of a frozen transformer, such as one trained by DINO (Caron et al., ICCV 2021).

    (B, 3, H, W) RGB in [0, 1] to logits (B, heads * patches): one for each patch, from each of `blocks`. Images are resized
    (bilinear, antialiased) to whole patches and normalised by ImageNet's statistics. Gradients flow through the backbone to the
    image; the backbone itself is neither trained nor saved, so its file is needed wherever the discriminator is built.

    A head is a spectrally normalised convolution of one token, a residual one of nine tokens in a ring, and one to a logit,
    with group normalisation where StyleGAN-T has batch normalisation: with it, ranks and micro-batches change nothing. The
    differentiable augmentation in front of StyleGAN-T's is left out.

    Args:
        backbone: a vision transformer of timm, with the number of its class and register tokens whatever it is.
        weights: file with its state dict, as timm names it; ``random`` for fixed random ones, for tests.
        blocks: blocks whose tokens heads look at, counted from 0.
        input_size: the shorter side is resized to so many pixels, rounded to whole patches; its own size when omitted.

    Raises:
        UserError: timm, the model, its weights or one of the blocks is not there; images of other than 3 channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str = "vit_small_patch16_224.dino",
        weights: str | None = None,
        blocks: list[NonNegative] = [2, 5, 8, 11],  # noqa: B006 - not modified
        input_size: Count | None = None,
    ) -> None:
        super().__init__(transformer(backbone, weights))
        vit: Any = self.network
        depth, width = len(vit.blocks), int(vit.embed_dim)
        if not blocks or max(blocks) >= depth:
            raise UserError(f"DINODiscriminator: blocks {blocks}: {backbone} has blocks 0 to {depth - 1}")
        self.patch = int(vit.patch_embed.patch_size[0])
        self.blocks, self.input_size = sorted(set(blocks)), input_size
        self.heads = nn.ModuleList(Head(width) for _ in self.blocks)
        for name, value in zip(("mean", "std"), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        refuse_unfit(x, 3, 1)
        factor = self.input_size / min(x.shape[-2:]) if self.input_size else 1.0
        size = [max(1, round(side * factor / self.patch)) * self.patch for side in x.shape[-2:]]
        if list(x.shape[-2:]) != size:
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        vit: Any = self.network
        tokens = vit.forward_intermediates(
            (x - self.mean) / self.std, indices=self.blocks, output_fmt="NLC", intermediates_only=True
        )
        return torch.cat([head(t) for head, t in zip(self.heads, tokens, strict=True)], 1)


class Head(nn.Module):
    """Tokens (B, N, C) to logits (B, N)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = SpectralConv2d(width, width, 1)
        self.first_norm = nn.GroupNorm(1, width)
        self.ring = SpectralConv2d(width, width, (1, REACH))
        self.ring_norm = nn.GroupNorm(1, width)
        self.last = SpectralConv2d(width, 1, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        y = tokens.transpose(1, 2)[:, :, None]
        y = F.leaky_relu(self.first_norm(self.first(y)), 0.2)
        around = y[..., torch.arange(-(REACH // 2), y.shape[-1] + REACH // 2, device=y.device) % y.shape[-1]]
        y = (y + F.leaky_relu(self.ring_norm(self.ring(around)), 0.2)) / 2**0.5
        logits: Tensor = self.last(y)
        return logits.flatten(1)


def transformer(model: str, weights: str | None) -> nn.Module:
    """The backbone.

    Raises:
        UserError: there are no weights, or `model` is no vision transformer; see `DINODiscriminator`.
    """
    owner = "DINODiscriminator"
    if weights is None:
        raise UserError(
            f"{owner}: needs the weights of {model}: save its state dict, timm.create_model('{model}', pretrained=True)."
            "state_dict(), to a file, and give that as 'weights'"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what is random here is not saved, and must be the same in a continuation
        try:
            network = timm_model(owner, model, dynamic_img_size=True)
        except TypeError:  # which other kinds of network do not take
            network = nn.Identity()
    if not isinstance(network, require("timm.models", owner).VisionTransformer):
        raise UserError(
            f"{owner}: {model} is no vision transformer with blocks of tokens, such as vit_small_patch16_224"
        )
    if published(weights):
        content = checkpoint.load(weights)
        own = network.state_dict()
        if not any(v.is_meta for v in own.values()):  # where only shapes are checked, nothing can be loaded
            state = {k: v for k, v in unwrap(content, None, weights).items() if k in own}
            checkpoint.load_weights(network, weights, None, content=state)
    return network
