"""DiffIR: a restorer modulated by a short prior, which stage 1 takes from the ground truth and stage 2 makes by diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        inp_channels: channels of all images together.
        features: channels of its first layers.
        n_encoder_res: residual blocks.
    """

    def __init__(self, inp_channels: int, features: int, n_encoder_res: int) -> None:
        super().__init__()
        self.inp_channels = inp_channels

        def conv(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.1, inplace=True)]

        def linear(length: int) -> list[nn.Module]:
            return [nn.Linear(length, length), nn.LeakyReLU(0.1, inplace=True)]

        n = features
        self.E = nn.Sequential(
            *conv(16 * inp_channels, n),
            *[ResidualBlock(n) for _ in range(n_encoder_res)],
            *conv(n, 2 * n),
            *conv(2 * n, 2 * n),
            *conv(2 * n, 4 * n),
            nn.AdaptiveAvgPool2d(1),
        )
        self.mlp = nn.Sequential(*linear(4 * n), *linear(4 * n))

    def forward(self, *images: Tensor) -> Tensor:
        """Images (B, C_i, H, W) of one size, multiples of 4, whose channels make `inp_channels` -> (B, 4 features)."""
        stacked = torch.cat(images, dim=1)
        refuse_unfit(stacked, self.inp_channels, 4)
        folded = F.pixel_unshuffle(stacked, 4)  # 16 channels for each of the images', in their order
        return self.mlp(self.E(folded.contiguous(memory_format=torch.channels_last)).flatten(1))


@ARCHS.register()
class DiffIRS1(nn.Module):
    """DiffIR's stage 1 (Xia et al., ICCV 2023): restoration with a prior that knows the ground truth; stage 2's teacher.

    ``forward(lq, gt)``: (B, inp_channels, H, W) and (B, out_channels, H, W), H and W multiples of 8. In evaluation mode it
    returns the restored image (B, out_channels, H, W), not clamped; in training mode ``(image, [z])`` with the prior z
    (B, 256). `gt` may be any other estimate of the clean image. ``prior(lq, gt)`` is z alone. Loads the original's weights.

    Args:
        n_encoder_res: residual blocks of the prior's encoder.
        use_checkpoint: keep less for the backward pass and compute it again; slower.

    The other arguments are those of `Restormer`.

    Raises:
        UserError: settings that do not make four levels, or fewer channels in than out; `forward` without `gt`, or with
            images of other channels or sizes.
    """

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
    ) -> None:
        super().__init__()
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
        )
        self.E = PriorExtraction(inp_channels + out_channels, FEATURES, n_encoder_res)

    def forward(self, lq: Tensor, gt: Tensor | None = None) -> Tensor | tuple[Tensor, list[Tensor]]:
        if gt is None:
            raise UserError(
                "DiffIRS1 takes its prior from the ground truth, or from another estimate of it; none was given. "
                "DiffIRS2 restores without."
            )
        z = self.prior(lq, gt)
        restored = self.G(lq, z)
        return (restored, [z]) if self.training else restored

    def prior(self, lq: Tensor, gt: Tensor) -> Tensor:
        """The prior (B, 256) of the images that `forward` takes."""
        refuse_unfit(lq, self.G.inp_channels, self.size_multiple)
        refuse_unfit(gt, self.G.out_channels, self.size_multiple)
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

    Loads the original's weights, which name the denoiser and the encoder twice, and stage 1's (not strictly): ``G`` is
    the same.

    Args:
        n_encoder_res: residual blocks of the condition's encoder.
        n_denoise_res: layers of the denoiser after its first.
        linear_start: variance of the noise of the first step.
        linear_end: of the last step.
        timesteps: steps of the diffusion.
        beta_schedule_type: how the variances go from start to end; see `beta_schedule`.
        use_checkpoint: keep less for the backward pass and compute it again; slower.

    The other arguments are those of `Restormer`.

    Raises:
        UserError: settings that do not make four levels, fewer channels in than out, no timesteps; training without z_S1;
            images of other channels or sizes.
    """

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
        timesteps: int = 4,
        beta_schedule_type: BetaSchedule = "linear",
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
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
        )
        self.condition = PriorExtraction(inp_channels, FEATURES, n_encoder_res)
        self.denoise = Denoiser(PRIOR, n_denoise_res, timesteps)
        self.diffusion = Diffusion(beta_schedule(beta_schedule_type, timesteps, linear_start, linear_end))
        self.register_load_state_dict_pre_hook(drop_aliases)

    def forward(
        self, lq: Tensor, z: Tensor | None = None, only_prior: bool = False, noise: Tensor | None = None
    ) -> Tensor | tuple[Tensor | None, list[Tensor]]:
        if not self.training:
            noise = torch.randn((len(lq), PRIOR), device=lq.device) if noise is None else noise
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
