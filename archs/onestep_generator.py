"""A generator that turns noise into an image in one step, and how it preconditions the U-Net that it wraps.

Time t runs from 0, noise z, to 1, data x, along x_t = (1 - t) z + t x. A preconditioning says what the U-Net F sees at (x_t, t)
and how its output becomes the prediction of x. All but the legacy ones go through the denoiser of Karras et al. (2022, eq. 7)

    D(x, sigma) = c_skip x + c_out F(c_in x, ln(sigma) / 4),    with sigma_data = s:
    c_skip = s^2 / (sigma^2 + s^2),  c_out = sigma s / sqrt(sigma^2 + s^2),  c_in = 1 / sqrt(sigma^2 + s^2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ..core.annotations import Count, Names, NonNegative, Positive, Share
from ..core.errors import UserError, did_you_mean
from ..core.ops.precision import at_least_float32
from . import ARCHS
from .edm_unet import DecoderType, EmbeddingType, EncoderType, SongUNet

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
"""Range of noise levels that EDM's networks were trained on."""
TINY = 1e-5
"""Number that keeps a division by 1 - t, and the logarithm of sigma, finite at the end of the path."""


@dataclass(frozen=True)
class Denoiser:
    """D with labels filled in. Levels are (B, 1, 1, 1).

    Args:
        network: F(x, c_noise) -> image in float32; x (B, C, H, W), c_noise (B,).
        sigma_data: standard deviation of the data.
    """

    network: Callable[[Tensor, Tensor], Tensor]
    sigma_data: float

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.skip(sigma) * x + self.correction(x, sigma)

    def skip(self, sigma: Tensor) -> Tensor:
        """The factor c_skip of the input at noise levels `sigma`, of their shape."""
        return self.sigma_data**2 / (sigma.square() + self.sigma_data**2)

    def correction(self, x: Tensor, sigma: Tensor) -> Tensor:
        """c_out F(c_in x, c_noise), (B, C, H, W) as `x`, at noise levels `sigma` (B, 1, 1, 1)."""
        norm = (sigma.square() + self.sigma_data**2).sqrt()
        return sigma * self.sigma_data / norm * self.network(x / norm, sigma.log().flatten() / 4)


Preconditioning = Callable[[Denoiser, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(D, x_t (B, C, H, W), t (B, 1, 1, 1)) -> prediction of x, and velocity dx_t/dt."""

PRECONDITIONINGS: dict[str, Preconditioning] = {}


def registered(function: Preconditioning) -> Preconditioning:
    """Decorator: files a function under its name, which is what the option ``preconditioning`` selects."""
    PRECONDITIONINGS[function.__name__] = function
    return function


def towards(x: Tensor, target: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The prediction `target`, and the constant velocity that leads there from x at t; both (B, C, H, W) as `x`."""
    return target, (target - x) / (1 - t + TINY)


def linear_sigma(t: Tensor, sigma_data: float) -> Tensor:
    """The noise level of `affine`, `mask` and `none`, which falls linearly from sigma_data to 0; of the shape of `t`."""
    return sigma_data * (1 - t) + TINY


@registered
def flow(denoise: Denoiser, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """D at the noise level that x_t really has: x_t / t = x + sigma z with sigma = (1 - t) / t, kept within EDM's range.

    Shapes are those of `Preconditioning`. At t = 0 the input is sigma_max z, so that weights of a diffusion model are a good
    start.

    At t = 0 the input is sigma_max z, so that weights of a diffusion model are a sensible start.
    """
    sigma = ((1 - t) / t).clamp(SIGMA_MIN, SIGMA_MAX)
    scale = torch.minimum(1 / t, SIGMA_MAX / (1 - t))  # 1 / t, until the noise would exceed sigma_max
    return towards(x, denoise(scale * x, sigma), t)


@registered
def affine(denoise: Denoiser, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """D(x_t, sigma) itself, for a sigma that falls linearly; prediction and velocity, (B, C, H, W) each."""
    return towards(x, denoise(x, linear_sigma(t, denoise.sigma_data)), t)


@registered
def mask(denoise: Denoiser, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """x_t + (1 - t)^2 (D - x_t), exactly x_t at t = 1; prediction and velocity, (B, C, H, W) each."""
    velocity = (1 - t) * (denoise(x, linear_sigma(t, denoise.sigma_data)) - x)
    return x + (1 - t) * velocity, velocity


@registered
def none(denoise: Denoiser, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """x_t + (1 - t) (D - x_t); prediction and velocity, (B, C, H, W) each."""
    velocity = denoise(x, linear_sigma(t, denoise.sigma_data)) - x
    return x + (1 - t) * velocity, velocity


@registered
def legacy_onestep(denoise: Denoiser, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The original's plain generator: sigma = sigma_data for every t, and only the input of F, not the skip, is scaled by
    sigma.

    Shapes are those of `Preconditioning`.
    """
    sigma = torch.full_like(t, denoise.sigma_data)
    return towards(x, denoise.skip(sigma) * x + denoise.correction(sigma * x, sigma), t)


def reported_level(t: Tensor, sigma_data: float) -> Tensor:
    """The noise level sigma_data t of the original's reported run, (B, 1, 1, 1) as `t`; kept off 0, where its own was NaN."""
    return (sigma_data * t).clamp_min(TINY)


@registered
def legacy_mask(denoise: Denoiser, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The original's reported run, (2t - 1) x_t + t (1 - t) D, (B, C, H, W), where D again has only its input scaled."""
    sigma = reported_level(t, denoise.sigma_data)
    denoised = denoise.skip(sigma) * x + denoise.correction(sigma * x, sigma)
    return towards(x, (2 * t - 1) * x + t * (1 - t) * denoised, t)


@registered
def legacy_subtraction(denoise: Denoiser, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The other choice of the original's reported run, x_t + (1 - t) c_out F; two (B, C, H, W), as all of these."""
    sigma = reported_level(t, denoise.sigma_data)
    return towards(x, x + (1 - t) * denoise.correction(sigma * x, sigma), t)


@ARCHS.register()
class OneStepGenerator(nn.Module):
    """Noise -> image in one network evaluation, or a few, by a U-Net of score-based generation (`SongUNet`).

    ``net(x, t=..., class_labels=...)`` predicts the image at the end of the path from its point x at time t; ``net(z)`` is the
    one-step generator. Images are (B, img_channels, H, W) in [-1, 1], not clamped; noise is standard normal. The U-Net may run
    in half precision, under autocast or by its weights' dtype; embedding, norm statistics, softmax and preconditioning stay in
    float32, and so does the result.

    The U-Net is `model`, with EDM's parameter names. The defaults with ``img_resolution: 32, label_dim: 10`` have 61,805,827
    parameters; ``channel_mult: [2, 2, 2]`` is EDM's CIFAR-10 network.

    Args:
        img_resolution: height and width in training. It names the layers and places attention; other sizes work.
        img_channels: channels of the image.
        label_dim: number of classes; 0 is unconditional.
        augment_dim: length of the augmentation label; 0 is none.
        model_channels: base width.
        channel_mult: width of each level over `model_channels`, finest first; each level halves the resolution.
        channel_mult_emb: width of the embedding over `model_channels`.
        num_blocks: residual blocks per level; one more in the decoder.
        attn_resolutions: resolutions that get self-attention.
        dropout: probability, in every block.
        label_dropout: probability with which a sample's class is hidden in training.
        embedding_type: embedding of the noise level.
        channel_mult_noise: width of the noise level's embedding over `model_channels`.
        encoder_type: ``skip`` and ``residual`` add the shrunk image at every level.
        decoder_type: ``skip`` adds up images of every level.
        resample_filter: taps of the filter between levels.
        sigma_data: standard deviation of the data.
        preconditioning: how time becomes a noise level, and the U-Net's output a prediction. ``flow`` is consistent with EDM's
            weights; ``affine``, ``mask`` and ``none`` are the original's, ``legacy_onestep`` (which ignores t), ``legacy_mask``
            and ``legacy_subtraction`` its earlier and inconsistent ones, for comparison.

    Raises:
        UserError: an unknown preconditioning, numbers out of range, sizes or channels that do not fit.
    """

    def __init__(
        self,
        img_resolution: Count,
        img_channels: Count = 3,
        label_dim: NonNegative = 0,
        augment_dim: NonNegative = 0,
        model_channels: Count = 128,
        channel_mult: Sequence[Count] = (1, 2, 2, 2),
        channel_mult_emb: Count = 4,
        num_blocks: Count = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: Share = 0.1,
        label_dropout: Share = 0.0,
        embedding_type: EmbeddingType = "positional",
        channel_mult_noise: Count = 1,
        encoder_type: EncoderType = "standard",
        decoder_type: DecoderType = "standard",
        resample_filter: Sequence[int] = (1, 1),
        sigma_data: Positive = 0.5,
        preconditioning: Annotated[str, Names("|".join(PRECONDITIONINGS), tuple(PRECONDITIONINGS))] = "flow",
    ) -> None:
        super().__init__()
        # Refuse options out of range.
        if preconditioning not in PRECONDITIONINGS:
            hint = did_you_mean(preconditioning, PRECONDITIONINGS)
            known = ", ".join(PRECONDITIONINGS)
            raise UserError(
                f"OneStepGenerator: no preconditioning is called '{preconditioning}'.{hint} Known: {known}."
            )
        numbers: tuple[tuple[str, float, Any], ...] = (
            ("img_resolution", img_resolution, Count),
            ("img_channels", img_channels, Count),
            ("label_dim", label_dim, NonNegative),
            ("augment_dim", augment_dim, NonNegative),
            ("model_channels", model_channels, Count),
            ("the number of channel_mult", len(channel_mult), Count),
            *(("channel_mult", mult, Count) for mult in channel_mult),
            ("channel_mult_emb", channel_mult_emb, Count),
            ("num_blocks", num_blocks, Count),
            ("dropout", dropout, Share),
            ("label_dropout", label_dropout, Share),
            ("channel_mult_noise", channel_mult_noise, Count),
            ("sigma_data", sigma_data, Positive),
        )
        for name, value, kind in numbers:
            (accepted,) = kind.__metadata__
            if value not in accepted:
                raise UserError(f"OneStepGenerator: {name} must be {accepted}, not {value}")
        # The network inside.
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.label_dim = label_dim
        self.sigma_data = sigma_data
        self.preconditioning = preconditioning
        self.model = SongUNet(
            img_resolution=img_resolution,
            img_channels=img_channels,
            label_dim=label_dim,
            augment_dim=augment_dim,
            model_channels=model_channels,
            channel_mult=channel_mult,
            channel_mult_emb=channel_mult_emb,
            num_blocks=num_blocks,
            attn_resolutions=attn_resolutions,
            dropout=dropout,
            label_dropout=label_dropout,
            embedding_type=embedding_type,
            channel_mult_noise=channel_mult_noise,
            encoder_type=encoder_type,
            decoder_type=decoder_type,
            resample_filter=resample_filter,
        )

    def forward(
        self,
        x: Tensor,
        t: Tensor | float = 0.0,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """Prediction of the image, (B, img_channels, H, W).

        Args:
            x: point on the path, (B, img_channels, H, W); noise where t = 0.
            t: time in [0, 1], a number or (B,).
            class_labels: (B, label_dim) one-hot, or (B,) int64; no class when None.
            augment_labels: (B, augment_dim).

        Raises:
            UserError: labels or sizes that the network does not take.
        """
        return self._predict(x, t, class_labels, augment_labels)[0]

    def velocity(
        self,
        x: Tensor,
        t: Tensor | float = 0.0,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """dx_t / dt of the preconditioning, same arguments and shape as `forward`."""
        return self._predict(x, t, class_labels, augment_labels)[1]

    def denoise(
        self,
        x: Tensor,
        sigma: Tensor | float,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """D(x, sigma), the prediction of the data in x = data + sigma noise, whatever the preconditioning is.

        `sigma` is positive, a number or (B,); the others as in `forward`.
        """
        wide = self._checked(x)
        return self._denoiser(class_labels, augment_labels)(wide, per_sample(sigma, wide))

    @torch.no_grad()
    def sample(self, noise: Tensor, class_labels: Tensor | None = None, steps: int = 1) -> Tensor:
        """Images from noise in `steps` network evaluations at t = 0, 1 / steps, ...; all three (B, ...).

        Each step goes from t towards the prediction as far as the next time demands.

        Raises:
            UserError: less than one step.
        """
        if steps < 1:
            raise UserError(f"OneStepGenerator: steps must be at least 1, not {steps}")
        x = noise
        for step in range(steps):
            predicted = self(x, step / steps, class_labels)
            x = at_least_float32(x) + (predicted - x) / (steps - step)
        return x

    def _predict(
        self, x: Tensor, t: Tensor | float, class_labels: Tensor | None, augment_labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        wide = self._checked(x)
        denoiser = self._denoiser(class_labels, augment_labels)
        return PRECONDITIONINGS[self.preconditioning](denoiser, wide, per_sample(t, wide))

    def _checked(self, x: Tensor) -> Tensor:
        """`x` in float32 at least, if it is a batch of such images."""
        if x.dim() != 4 or x.shape[1] != self.img_channels:
            wanted = f"(B, {self.img_channels}, H, W)"
            raise UserError(f"OneStepGenerator: images of shape {tuple(x.shape)}, but the network is for {wanted}")
        return at_least_float32(x)

    def _denoiser(self, class_labels: Tensor | None, augment_labels: Tensor | None) -> Denoiser:
        def network(x: Tensor, c_noise: Tensor) -> Tensor:
            # Everything around this call is elementwise on float32, which autocast leaves alone.
            x = x.to(self.model.map_layer0.weight.dtype)
            return at_least_float32(self.model(x, c_noise, class_labels, augment_labels))

        return Denoiser(network, self.sigma_data)


def per_sample(value: Tensor | float, x: Tensor) -> Tensor:
    """A number, or one per sample (B,), as (B, 1, 1, 1) in the dtype of `x` (B, C, H, W).

    Raises:
        UserError: another number of them.
    """
    # A number is filled in: an upload would wait for the device.
    values = value.to(x) if isinstance(value, Tensor) else x.new_full((), value)
    if values.numel() not in (1, x.shape[0]):
        raise UserError(
            f"a time or noise level of shape {tuple(values.shape)}; a batch of {x.shape[0]} needs a number or ({x.shape[0]},)"
        )
    return values.reshape(-1, 1, 1, 1).expand(x.shape[0], 1, 1, 1)
