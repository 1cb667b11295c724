"""PatchGAN discriminators: a logit for each of many overlapping patches (pix2pix, Isola et al., CVPR 2017).

The forks' differ in padding, normalisation, biases and the names of parameters; `groups` makes the layers of all of them.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ...core.annotations import Count
from ...core.errors import UserError
from .. import ARCHS
from .spectral import conv

NormLayer = Literal["none", "batch", "instance"]
KERNEL = 4


def groups(
    channels: int,
    width: int,
    n_layers: int,
    *,
    padding: int,
    norm: NormLayer = "none",
    spectral: tuple[bool, bool] = (False, False),
    bias: bool = True,
    widest: int = 512,
) -> list[list[nn.Module]]:
    """`n_layers` convolutions of stride 2, one of stride 1, and one to the logits, each with what follows it.

    Args:
        channels: channels of the images.
        width: channels of the first layer; they double with each.
        n_layers: number of convolutions that halve the image.
        padding: padding of the 4 x 4 convolutions.
        norm: normalisation of all layers but the first and the last.
        spectral: whether to normalise spectrally the first and last convolution, and those between.
        bias: whether the convolutions between have a bias.
        widest: most channels.
    """
    made: list[list[nn.Module]] = []
    for i in range(n_layers + 1):
        out, first = min(width * 2**i, widest), i == 0
        layer: list[nn.Module] = [
            conv(spectral[not first], channels, out, KERNEL, 2 if i < n_layers else 1, padding, bias=first or bias)
        ]
        if not first and norm != "none":
            layer.append(nn.BatchNorm2d(out) if norm == "batch" else nn.InstanceNorm2d(out))
        made.append([*layer, nn.LeakyReLU(0.2)])
        channels = out
    return [*made, [conv(spectral[0], channels, 1, KERNEL, 1, padding)]]


def flat(layers: list[list[nn.Module]], sigmoid: bool = False) -> nn.Sequential:
    """The layers of all groups, one after the other."""
    return nn.Sequential(*(m for group in layers for m in group), *([nn.Sigmoid()] if sigmoid else []))


def need_pixels(x: Tensor, channels: int, n_layers: int, padding: int, scales: int = 1) -> None:
    """Check that something is left of images (B, C, H, W) after `n_layers` halvings, at the coarsest of `scales`.

    Raises:
        UserError: another number of channels, or too few pixels.
    """
    if x.ndim != 4 or x.shape[1] != channels:
        raise UserError(f"images of the shape {tuple(x.shape)}: this discriminator takes (B, {channels}, H, W)")
    side = int(min(x.shape[-2:]))
    for _ in range(scales - 1):
        side = (side - 1) // 2 + 1
    for stride in [2] * n_layers + [1, 1]:
        side = (side + 2 * padding - KERNEL) // stride + 1
        if side < 1:
            raise UserError(
                f"images of {x.shape[-2]}x{x.shape[-1]} pixels: nothing is left of them after {n_layers} halvings"
                f"{f' at the coarsest of {scales} scales' if scales > 1 else ''}; choose a larger gt_size or fewer layers"
            )


@ARCHS.register(name="Discriminator_PatchGAN")
class DiscriminatorPatchGAN(nn.Module):
    """KAIR's PatchGAN, padded by 2. (B, input_nc, H, W) to logits (B, 1, h, w).

    Args:
        input_nc: channels of the images.
        ndf: channels of the first layer; they double up to 512.
        n_layers: convolutions of stride 2.
        norm_type: normalisation of the layers between the first and the last, and, where it says ``spectral``, of all kernels.
    """

    def __init__(
        self,
        input_nc: Count = 3,
        ndf: Count = 64,
        n_layers: Count = 3,
        norm_type: Literal["spectral", "batch", "instance", "batchspectral", "instancespectral"] = "spectral",
    ) -> None:
        super().__init__()
        self.input_nc, self.n_layers = input_nc, n_layers
        spectral = "spectral" in norm_type
        kind: NormLayer = "batch" if "batch" in norm_type else "instance" if "instance" in norm_type else "none"
        layers = groups(input_nc, ndf, n_layers, padding=2, norm=kind, spectral=(spectral, spectral))
        self.model = nn.Sequential()
        for i, group in enumerate(layers):
            self.model.add_module(f"child{i}", nn.Sequential(*group))
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        need_pixels(x, self.input_nc, self.n_layers, 2)
        y: Tensor = self.model(x)
        return y


@ARCHS.register()
class PatchGANDiscriminatorSN(nn.Module):
    """traiNNer-redux's PatchGAN, every kernel spectrally normalised. (B, input_nc, H, W) to logits (B, 1, h, w).

    Args:
        input_nc: channels of the images.
        ndf: channels of the first layer; they double up to 512.
        n_layers: convolutions of stride 2.
        use_sigmoid: give probabilities instead of logits, which only ``lsgan`` can take.
    """

    def __init__(self, input_nc: Count = 3, ndf: Count = 64, n_layers: Count = 3, use_sigmoid: bool = False) -> None:
        super().__init__()
        self.input_nc, self.n_layers = input_nc, n_layers
        self.model = flat(groups(input_nc, ndf, n_layers, padding=1, spectral=(True, True)), use_sigmoid)

    def forward(self, x: Tensor) -> Tensor:
        need_pixels(x, self.input_nc, self.n_layers, 1)
        y: Tensor = self.model(x)
        return y


@ARCHS.register()
class NLayerDiscriminator(nn.Module):
    """The PatchGAN of pix2pix and CycleGAN. (B, input_nc, H, W) to logits (B, 1, h, w).

    Args:
        input_nc: channels of the images.
        ndf: channels of the first layer; they double up to 8 times as many.
        n_layers: convolutions of stride 2.
        norm: normalisation of the layers between the first and the last.
    """

    def __init__(
        self, input_nc: Count = 3, ndf: Count = 64, n_layers: Count = 3, norm: Literal["batch", "instance"] = "batch"
    ) -> None:
        super().__init__()
        self.input_nc, self.n_layers = input_nc, n_layers
        layers = groups(input_nc, ndf, n_layers, padding=1, norm=norm, bias=norm == "instance", widest=8 * ndf)
        self.model = flat(layers)

    def forward(self, x: Tensor) -> Tensor:
        need_pixels(x, self.input_nc, self.n_layers, 1)
        y: Tensor = self.model(x)
        return y


def initialise(module: nn.Module) -> None:
    """KAIR's: kernels from N(0, 0.02), gains from N(1, 0.02), biases 0."""
    weight = getattr(module, "weight_orig", getattr(module, "weight", None))
    if isinstance(weight, Tensor):
        nn.init.normal_(weight, 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0, 0.02)
        if isinstance(bias := getattr(module, "bias", None), Tensor):
            nn.init.zeros_(bias)
