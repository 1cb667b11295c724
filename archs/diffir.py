"""DiffIR: a restorer modulated by a short prior, which stage 1 takes from the ground truth and stage 2 makes by diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.annotations import Repeats
from ..core.errors import UserError
from . import ARCHS
from .blocks import refuse_unfit
from .latent_diffusion import BetaSchedule, Denoiser, Diffusion, beta_schedule
from .restormer import RestormerBody

FEATURES = 64
PRIOR = 4 * FEATURES
"""Length of the prior vector, 256 as in the original."""


class ResidualBlock(nn.Module):
    """``x + conv(leaky_relu(conv(x)))``. (B, C, H, W) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class PriorExtraction(nn.Module):
    """Compact prior extraction network (DiffIR's CPEN): images -> vector (B, 4 features).

    Args:
        channels: channels of each image.
        features: channels of its first layers.
        n_encoder_res: residual blocks.
        folds: side, for each image, of the blocks of pixels that become channels; 4 each for images of one size.
    """

    def __init__(self, channels: Sequence[int], features: int, n_encoder_res: int, folds: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.folds = tuple(folds)

        def conv(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.1, inplace=True)]

        def linear(length: int) -> list[nn.Module]:
            return [nn.Linear(length, length), nn.LeakyReLU(0.1, inplace=True)]

        n = features
        self.E = nn.Sequential(
            *conv(sum(c * k * k for c, k in zip(channels, folds, strict=True)), n),
            *[ResidualBlock(n) for _ in range(n_encoder_res)],
            *conv(n, 2 * n),
            *conv(2 * n, 2 * n),
            *conv(2 * n, 4 * n),
            nn.AdaptiveAvgPool2d(1),
        )
        self.mlp = nn.Sequential(*linear(4 * n), *linear(4 * n))

    def forward(self, *images: Tensor) -> Tensor:
        """Images (B, C_i, k_i H, k_i W), where k_i is an image's fold -> (B, 4 features)."""
        folded = []
        for image, channels, fold in zip(images, self.channels, self.folds, strict=True):
            refuse_unfit(image, channels, fold)
            folded.append(F.pixel_unshuffle(image, fold))
        stacked = torch.cat(folded, dim=1)  # the channels of each image together, in their order
        return self.mlp(self.E(stacked.contiguous(memory_format=torch.channels_last)).flatten(1))


@ARCHS.register()
class DiffIRS1(nn.Module):
    """DiffIR's stage 1 (Xia et al., ICCV 2023): restoration with a prior that knows the ground truth; stage 2's teacher.

    ``forward(lq, gt)``: (B, inp_channels, H, W) and (B, out_channels, H, W), H and W multiples of 8. In evaluation mode it
    returns the restored image (B, out_channels, H, W), not clamped; in training mode ``(image, [z])`` with the prior z
    (B, 256). `gt` may be any other estimate of the clean image. ``prior(lq, gt)`` is z alone. Loads the original's weights.

    With a `scale` above 1 it is the original's network for super-resolution: `gt` and the output are so many times as large.

    Args:
        n_encoder_res: residual blocks of the prior's encoder.
        scale: output size / input size.
        use_checkpoint: keep less for the backward pass and compute it again; slower.

    The other arguments are those of `Restormer`.

    Raises:
        UserError: settings that do not make four levels, or fewer channels in than out; `forward` without `gt`, or with
            images of other channels or sizes.
    """

    sees_whole = "attention over the whole picture"
    size_multiple = 8

    def __init__(
        self,
        n_encoder_res: int = 6,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: Literal["WithBias", "BiasFree"] = "WithBias",
        use_checkpoint: bool = False,
        scale: Literal[1, 2, 3, 4, 8] = 1,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.G = RestormerBody(
            inp_channels=inp_channels,
            out_channels=out_channels,
            dim=dim,
            num_blocks=num_blocks,
            num_refinement_blocks=num_refinement_blocks,
            heads=heads,
            ffn_expansion_factor=ffn_expansion_factor,
            bias=bias,
            LayerNorm_type=LayerNorm_type,
            prior=PRIOR,
            use_checkpoint=use_checkpoint,
            scale=scale,
        )
        folds = (1, scale) if scale > 1 else (4, 4)
        self.E = PriorExtraction((inp_channels, out_channels), FEATURES, n_encoder_res, folds)

    def forward(self, lq: Tensor, gt: Tensor | None = None) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Restore `lq` (B, C, H, W) with the prior of the ground truth.

        Raises:
            UserError: `gt` is None.
        """
        if gt is None:
            raise UserError(
                "DiffIRS1 takes its prior from the ground truth, or from another estimate of it; none was given. "
                "DiffIRS2 restores without."
            )
        z = self.prior(lq, gt)
        restored = self.G(lq, z)
        return (restored, [z]) if self.training else restored

    def prior(self, lq: Tensor, gt: Tensor) -> Tensor:
        """The prior (B, 256) of the images that `forward` takes.

        Raises:
            UserError: the ground truth is not `scale` times as large as the input.
        """
        refuse_unfit(lq, self.G.inp_channels, self.size_multiple)
        refuse_unfit(gt, self.G.out_channels, self.size_multiple)
        wanted = tuple(self.scale * side for side in lq.shape[-2:])
        if gt.shape[-2:] != wanted:
            given = "{}x{}".format(*gt.shape[-2:])
            raise UserError(
                f"DiffIRS1 of scale {self.scale} needs a ground truth of {wanted[0]}x{wanted[1]}; got {given}"
            )
        return self.E(lq, gt)


@ARCHS.register()
class DiffIRS2(nn.Module):
    """DiffIR's stage 2 (Xia et al., ICCV 2023): the prior is made by diffusion, conditioned on the input alone.

    ``forward(lq)`` in evaluation mode: (B, inp_channels, H, W), H and W multiples of 8 -> (B, out_channels, H, W), not
    clamped. In training mode ``forward(lq, z_S1)`` diffuses stage 1's prior (B, 256), makes it anew and returns
    ``(image, iterates)``: the latent after each reverse step, the last one being the prior that modulated the image.
    ``forward(lq, z_S1, only_prior=True)`` returns ``(None, iterates)`` without restoring, for the first phase of training,
    in which only the diffusion learns. `noise`, standard normal (B, 256), is what the prior is made from; without it each
    call draws one from torch's global generator.

    With a `scale` above 1 it is the original's network for super-resolution: the output is so many times as large.

    Loads the original's weights, which name the denoiser and the encoder twice, and stage 1's (not strictly): ``G`` is
    the same.

    Args:
        n_encoder_res: residual blocks of the condition's encoder.
        n_denoise_res: layers of the denoiser after its first.
        linear_start: variance of the noise of the first step.
        linear_end: variance of the noise of the last step.
        timesteps: steps of the diffusion.
        beta_schedule_type: how the variances go from start to end; see `beta_schedule`.
        use_checkpoint: keep less for the backward pass and compute it again; slower.
        scale: output size / input size.

    The other arguments are those of `Restormer`.

    Raises:
        UserError: settings that do not make four levels, fewer channels in than out, no timesteps; training without z_S1;
            images of other channels or sizes.
    """

    sees_whole = "attention over the whole picture"
    size_multiple = 8

    def __init__(
        self,
        n_encoder_res: int = 6,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: Literal["WithBias", "BiasFree"] = "WithBias",
        n_denoise_res: int = 1,
        linear_start: float = 0.1,
        linear_end: float = 0.99,
        timesteps: Repeats = 4,
        beta_schedule_type: BetaSchedule = "linear",
        use_checkpoint: bool = False,
        scale: Literal[1, 2, 3, 4, 8] = 1,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.G = RestormerBody(
            inp_channels=inp_channels,
            out_channels=out_channels,
            dim=dim,
            num_blocks=num_blocks,
            num_refinement_blocks=num_refinement_blocks,
            heads=heads,
            ffn_expansion_factor=ffn_expansion_factor,
            bias=bias,
            LayerNorm_type=LayerNorm_type,
            prior=PRIOR,
            use_checkpoint=use_checkpoint,
            scale=scale,
        )
        self.condition = PriorExtraction((inp_channels,), FEATURES, n_encoder_res, (1,) if scale > 1 else (4,))
        self.denoise = Denoiser(PRIOR, n_denoise_res, timesteps)
        self.diffusion = Diffusion(beta_schedule(beta_schedule_type, timesteps, linear_start, linear_end))
        self.register_load_state_dict_pre_hook(drop_aliases)

    def forward(
        self, lq: Tensor, z: Tensor | None = None, only_prior: bool = False, noise: Tensor | None = None
    ) -> Tensor | tuple[Tensor | None, list[Tensor]]:
        """Restore `lq` (B, C, H, W); in training also the estimates of the prior `z`.

        Raises:
            UserError: the network trains, and `z` is None.
        """
        if not self.training:
            noise = torch.randn((lq.shape[0], PRIOR), device=lq.device) if noise is None else noise
            return self.G(lq, self.reverse(lq, noise.to(lq.dtype))[-1])
        if z is None:
            raise UserError("DiffIRS2 is trained on the priors of stage 1; none was given. Use the DiffIRS2 model.")
        iterates = self.reverse(
            lq, self.diffusion.noised(z, torch.randn_like(z) if noise is None else noise.to(z.dtype))
        )
        return (None if only_prior else self.G(lq, iterates[-1])), iterates

    def reverse(self, lq: Tensor, x: Tensor) -> list[Tensor]:
        """All reverse steps from the noisy latent `x` (B, 256), conditioned on the image: what each gave, newest last.

        The steps take the posterior's mean and add no noise, as the original's do.
        """
        condition = self.condition(lq)
        iterates: list[Tensor] = []
        for t in reversed(range(self.diffusion.timesteps)):
            x = self.diffusion.step(x, self.denoise(x, t, condition), t)
            iterates.append(x)
        return iterates


def drop_aliases(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Before loading: forget the second names that the original's state dicts have for `denoise` and `condition`."""
    aliases = (f"{prefix}diffusion.model.", f"{prefix}diffusion.condition.")
    for key in [k for k in state if k.startswith(aliases)]:
        del state[key]
