"""Diffusion of a short latent vector in a few steps, as DiffIR uses it."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..core.errors import UserError

BetaSchedule = Literal["linear", "cosine", "sqrt_linear", "sqrt"]
Float64s = npt.NDArray[np.float64]


def beta_schedule(kind: BetaSchedule, timesteps: int, start: float = 1e-4, end: float = 2e-2) -> Float64s:
    """Variances of the noise added in each step, in float64.

    Args:
        kind: "linear" is linear in the standard deviation (latent diffusion's, Rombach et al., 2022), "sqrt_linear" in the
            variance, "sqrt" its root, "cosine" that of Nichol and Dhariwal (2021), which has no start and end.
        timesteps: number of steps.
        start: first variance.
        end: last variance.

    Raises:
        UserError: an unknown kind, or no timesteps.
    """
    if timesteps < 1:
        raise UserError(f"timesteps is {timesteps}, but must be at least 1")
    if kind == "linear":
        return np.linspace(math.sqrt(start), math.sqrt(end), timesteps) ** 2
    if kind == "sqrt_linear":
        return np.linspace(start, end, timesteps)
    if kind == "sqrt":
        return np.sqrt(np.linspace(start, end, timesteps))
    if kind == "cosine":
        offset = 8e-3
        angle = (np.arange(timesteps + 1) / timesteps + offset) / (1 + offset) * math.pi / 2
        kept = np.cos(angle) ** 2
        return np.clip(1 - kept[1:] / kept[:-1], 0, 0.999)
    raise UserError(f"no beta schedule is called '{kind}'. Known: linear, cosine, sqrt_linear, sqrt.")


class Diffusion(nn.Module):
    """Coefficients of the forward process and of its posterior (Ho et al., DDPM, 2020, eqs. 4 and 7), one per step.

    The buffers are those that the original's checkpoints hold, in float32; the ones used here are read in `noised` and
    `step`.

    Raises:
        UserError: a first step without noise, or so many or such strong ones that float32 cannot tell what is left.
    """

    alphas_cumprod: Tensor
    posterior_mean_coef1: Tensor
    posterior_mean_coef2: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor

    def __init__(self, betas: Float64s) -> None:
        super().__init__()
        self.timesteps = len(betas)
        alphas = 1 - betas
        kept = np.cumprod(alphas)
        if not (betas[0] > 0 and np.float32(kept[-1]) > 0):
            raise UserError(
                f"timesteps, linear_start, linear_end: {self.timesteps} steps with variances from {betas[0]:.3g} to "
                f"{betas[-1]:.3g}: the first must add some noise, and the last leave something of the signal in float32"
            )
        # Buffers under the names of the original, whose checkpoints hold them, in float32 after float64 arithmetic.
        before = np.append(1.0, kept[:-1])
        variance = betas * (1 - before) / (1 - kept)
        buffers = {
            "betas": betas,
            "alphas_cumprod": kept,
            "alphas_cumprod_prev": before,
            "sqrt_alphas_cumprod": np.sqrt(kept),
            "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - kept),
            "log_one_minus_alphas_cumprod": np.log(1 - kept),
            "sqrt_recip_alphas_cumprod": np.sqrt(1 / kept),
            "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / kept - 1),
            "posterior_variance": variance,
            "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
            "posterior_mean_coef1": betas * np.sqrt(before) / (1 - kept),
            "posterior_mean_coef2": (1 - before) * np.sqrt(alphas) / (1 - kept),
        }
        for name, values in buffers.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32))

    def noised(self, z: Tensor, noise: Tensor) -> Tensor:
        """`z` (B, L) after all steps of the forward process, `noise` being standard normal of the same shape."""
        return self.sqrt_alphas_cumprod[-1] * z + self.sqrt_one_minus_alphas_cumprod[-1] * noise

    def step(self, x: Tensor, x0: Tensor, t: int) -> Tensor:
        """Mean of the posterior one step before `t`, given the estimate `x0` of the start; all (B, features), as `x`."""
        return self.posterior_mean_coef1[t] * x0 + self.posterior_mean_coef2[t] * x


class DenoisingLayer(nn.Module):
    """Linear layer and leaky ReLU, under the original's name (there is no residual in it). (B, L) -> (B, L)."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.resmlp = nn.Sequential(nn.Linear(length, length), nn.LeakyReLU(0.1, inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.resmlp(x)


class Denoiser(nn.Module):
    """Estimates the clean latent from a noisy one, the step and a condition.

    Args:
        length: L of latent and condition.
        layers: `DenoisingLayer` after the first.
        timesteps: steps of the process; the step enters as the number ``t / (10 timesteps)``.
    """

    def __init__(self, length: int, layers: int, timesteps: int) -> None:
        super().__init__()
        self.max_period = 10 * timesteps
        self.resmlp = nn.Sequential(
            nn.Linear(2 * length + 1, length),
            nn.LeakyReLU(0.1, inplace=True),
            *[DenoisingLayer(length) for _ in range(layers)],
        )

    def forward(self, x: Tensor, t: int, condition: Tensor) -> Tensor:
        """Noisy latent (B, L), step counted from 0, condition (B, L) -> clean latent (B, L)."""
        time = x.new_full((x.shape[0], 1), t / self.max_period)
        return self.resmlp(torch.cat([condition, time, x], dim=1))
