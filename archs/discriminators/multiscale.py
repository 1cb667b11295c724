"""PatchGAN discriminators on several scales of an image (pix2pixHD, Wang et al., CVPR 2018)."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.annotations import Count
from ...core.errors import UserError
from .. import ARCHS
from .patchgan import NormLayer, flat, groups, need_pixels


def half(x: Tensor) -> Tensor:
    """`x`, (B, C, H, W), averaged at every other pixel."""
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


def pyramid(x: Tensor, scales: int) -> list[Tensor]:
    """`x`, (B, C, H, W), and its halved versions, largest first."""
    images = [x]
    while len(images) < scales:
        images.append(half(images[-1]))
    return images


@ARCHS.register()
class MultiscalePatchGANDiscriminatorSN(nn.Module):
    """traiNNer-redux's PatchGANs on `num_d` scales, every kernel spectrally normalised.

    The original returns the mean over scales of the mean logit, a single number: vanilla and hinge losses then see an average.

    Args:
        input_nc: channels of the images.
        ndf: channels of the first layers; they double up to 512.
        n_layers: convolutions of stride 2.
        use_sigmoid: give probabilities instead of logits.
        num_d: number of scales.
        reduce: ``mean`` for that number, ``none`` for the list of maps (B, 1, h, w), which `MultiScaleGANLoss` takes.
    """

    def __init__(
        self,
        input_nc: Count = 3,
        ndf: Count = 64,
        n_layers: Count = 3,
        use_sigmoid: bool = False,
        num_d: Count = 3,
        reduce: Literal["mean", "none"] = "mean",
    ) -> None:
        super().__init__()
        self.input_nc, self.n_layers, self.num_d, self.reduce = input_nc, n_layers, num_d, reduce
        self.layers = nn.ModuleList(
            flat(groups(input_nc, ndf, n_layers, padding=1, spectral=(True, True)), use_sigmoid) for _ in range(num_d)
        )

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        need_pixels(x, self.input_nc, self.n_layers, 1, self.num_d)
        maps = [layer(image) for layer, image in zip(self.layers, pyramid(x, self.num_d), strict=True)]
        return maps if self.reduce == "none" else torch.stack([m.mean() for m in maps]).mean()


@ARCHS.register()
class MultiscaleDiscriminator(nn.Module):
    """pix2pixHD's. (B, input_nc, H, W) to a list over scales, full resolution first, of lists: features, and last the logits.

    Args:
        input_nc: channels of the images.
        ndf: channels of the first layers; they double up to 512.
        n_layers: convolutions of stride 2.
        norm: normalisation of the layers between the first and the last.
        use_sigmoid: give probabilities instead of logits.
        num_D: number of scales.
        getIntermFeat: return all layers, for feature matching, and not the logits alone.
    """

    def __init__(
        self,
        input_nc: Count = 3,
        ndf: Count = 64,
        n_layers: Count = 3,
        norm: Literal["batch", "instance"] = "instance",
        use_sigmoid: bool = False,
        num_D: Count = 3,
        getIntermFeat: bool = False,
    ) -> None:
        super().__init__()
        self.input_nc, self.n_layers, self.num_D, self.getIntermFeat = input_nc, n_layers, num_D, getIntermFeat
        for i in range(num_D):
            layers = groups(input_nc, ndf, n_layers, padding=2, norm=norm)
            if use_sigmoid:
                layers.append([nn.Sigmoid()])
            if getIntermFeat:
                for j, group in enumerate(layers):
                    setattr(self, f"scale{i}_layer{j}", nn.Sequential(*group))
            else:
                setattr(self, f"layer{i}", flat(layers))
        self.groups = n_layers + 2 + use_sigmoid

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        need_pixels(x, self.input_nc, self.n_layers, 2, self.num_D)
        # The original gives the full resolution to the last of them.
        return [self.judge(self.num_D - 1 - i, image) for i, image in enumerate(pyramid(x, self.num_D))]

    def judge(self, scale: int, image: Tensor) -> list[Tensor]:
        """Results of the discriminator of one scale for images (B, C, H, W): logits (B, 1, h, w), after its features if they
        are kept.
        """
        if not self.getIntermFeat:
            return [getattr(self, f"layer{scale}")(image)]
        results = [image]
        for j in range(self.groups):
            results.append(getattr(self, f"scale{scale}_layer{j}")(results[-1]))
        return results[1:]


class HiFaceScale(nn.Module):
    """One scale of `HiFaceGANDiscriminator`: layers called ``model0``, ``model1``, ..."""

    def __init__(self, channels: int, width: int, n_layers: int, norm: str, keep_features: bool) -> None:
        super().__init__()
        spectral, kind = norm.startswith("spectral"), norm.removeprefix("spectral") or "none"
        if kind not in get_args(NormLayer):
            accepted = "spectralinstance, spectralbatch, spectral, instance, batch, none"
            raise UserError(f"HiFaceGANDiscriminator: norm_d cannot be '{norm}'. Accepted: {accepted}.")
        chosen = cast("NormLayer", kind)
        layers = groups(
            channels, width, n_layers - 1, padding=2, norm=chosen, spectral=(False, spectral), bias=chosen == "none"
        )
        self.keep_features = keep_features
        self.count = len(layers)
        for i, group in enumerate(layers):
            normed = 0 < i < len(layers) - 1
            parts = [nn.Sequential(*group[:-1]), group[-1]] if normed else group
            setattr(self, f"model{i}", nn.Sequential(*parts))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(B, C, H, W) -> logits (B, 1, h, w), or a list of the results of all layers, of which those are the last."""
        results = [x]
        for i in range(self.count):
            results.append(getattr(self, f"model{i}")(results[-1]))
        return results[1:] if self.keep_features else results[-1]


@ARCHS.register()
class HiFaceGANDiscriminator(nn.Module):
    """HiFaceGAN's (Yang et al., ACM MM 2020), of an image, or of an image beside its input.

    (B, C, H, W), C = `num_out_ch`, with `num_in_ch` channels of the enlarged input before if `conditional_d`, to a list over
    scales, full resolution first.

    Args:
        num_in_ch: channels of the input.
        num_out_ch: channels of the image that is judged.
        conditional_d: whether the enlarged input is given beside.
        num_d: number of scales.
        n_layers_d: convolutions before the logits, the last of stride 1, the others of stride 2.
        num_feat: channels of the first layers; they double up to 512.
        norm_d: ``spectralinstance``, ``spectralbatch``, ``spectral``, ``instance``, ``batch`` or ``none``.
        keep_features: return all layers of each scale, for feature matching, and not the logits alone.

    Raises:
        UserError: another `norm_d`.
    """

    def __init__(
        self,
        num_in_ch: Count = 3,
        num_out_ch: Count = 3,
        conditional_d: bool = True,
        num_d: Count = 2,
        n_layers_d: Count = 4,
        num_feat: Count = 64,
        norm_d: str = "spectralinstance",
        keep_features: bool = True,
    ) -> None:
        super().__init__()
        self.conditional = conditional_d
        self.channels = num_out_ch + (num_in_ch if conditional_d else 0)
        self.halvings, self.num_d = n_layers_d - 1, num_d
        for i in range(num_d):
            setattr(self, f"discriminator_{i}", HiFaceScale(self.channels, num_feat, n_layers_d, norm_d, keep_features))

    def forward(self, x: Tensor) -> list[Tensor | list[Tensor]]:
        need_pixels(x, self.channels, self.halvings, 2, self.num_d)
        return [getattr(self, f"discriminator_{i}")(image) for i, image in enumerate(pyramid(x, self.num_d))]
