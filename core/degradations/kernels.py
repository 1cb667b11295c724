"""Blur kernels of Real-ESRGAN (Wang et al. 2021, arXiv:2107.10833): (k, k) float64 arrays that sum to 1, k odd."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UserError, require
from .draws import Draws

Range = Sequence[float]
"""Least and largest value; the same twice for a constant."""


def mesh_grid(kernel_size: int) -> np.ndarray:
    """(k, k, 2) positions (x, y) in pixels from the centre.

    Raises:
        UserError: `kernel_size` is even, or below 1.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise UserError(f"kernel size {kernel_size}: must be odd, so that the kernel has a centre")
    axis = np.arange(kernel_size) - (kernel_size - 1) / 2
    return np.stack(np.meshgrid(axis, axis), axis=-1)


def _distance(
    kernel_size: int, sig_x: float, sig_y: float, theta: float, grid: np.ndarray | None, isotropic: bool
) -> np.ndarray:
    """Squared Mahalanobis distance x^T S^-1 x of every position, (k, k)."""
    if grid is None:
        grid = mesh_grid(kernel_size)
    if isotropic:
        return np.asarray((grid**2).sum(axis=-1) / sig_x**2)
    cos, sin = np.cos(theta), np.sin(theta)
    x, y = grid[..., 0], grid[..., 1]
    return np.asarray(((cos * x + sin * y) / sig_x) ** 2 + ((cos * y - sin * x) / sig_y) ** 2)


def _normalised(kernel: np.ndarray) -> np.ndarray:
    return np.asarray(kernel / kernel.sum())


def bivariate_Gaussian(  # noqa: N802 - as BasicSR calls it
    kernel_size: int,
    sig_x: float,
    sig_y: float,
    theta: float,
    grid: np.ndarray | None = None,
    isotropic: bool = True,
) -> np.ndarray:
    """exp(-q / 2), q being the squared distance in units of the standard deviations.

    Args:
        kernel_size: k, odd.
        sig_x: standard deviation along the first axis, in pixels; along both when isotropic.
        sig_y: standard deviation along the second axis, in pixels.
        theta: angle of the first axis, in radians.
        grid: (k, k, 2) positions; those of `mesh_grid` when omitted.
        isotropic: ignore `sig_y` and `theta`.
    """
    return _normalised(np.exp(-0.5 * _distance(kernel_size, sig_x, sig_y, theta, grid, isotropic)))


def bivariate_generalized_Gaussian(  # noqa: N802 - as BasicSR calls it
    kernel_size: int,
    sig_x: float,
    sig_y: float,
    theta: float,
    beta: float,
    grid: np.ndarray | None = None,
    isotropic: bool = True,
) -> np.ndarray:
    """exp(-q^beta / 2): a Gaussian for beta 1, more pointed below, flatter above. Arguments as of `bivariate_Gaussian`."""
    return _normalised(np.exp(-0.5 * _distance(kernel_size, sig_x, sig_y, theta, grid, isotropic) ** beta))


def bivariate_plateau(
    kernel_size: int,
    sig_x: float,
    sig_y: float,
    theta: float,
    beta: float,
    grid: np.ndarray | None = None,
    isotropic: bool = True,
) -> np.ndarray:
    """1 / (1 + q^beta). Arguments as of `bivariate_Gaussian`."""
    return _normalised(1 / (1 + _distance(kernel_size, sig_x, sig_y, theta, grid, isotropic) ** beta))


def circular_lowpass_kernel(cutoff: float, kernel_size: int, pad_to: int = 0) -> np.ndarray:
    """The ideal low-pass filter in two dimensions, c J1(c r) / (2 pi r), which rings: some of its weights are negative.

    Args:
        cutoff: c, radians per pixel, up to pi.
        kernel_size: k, odd.
        pad_to: side to which it is padded with zeros, odd; none for 0.
    """
    radius = np.sqrt((mesh_grid(kernel_size) ** 2).sum(axis=-1))
    centre = (kernel_size - 1) // 2
    radius[centre, centre] = 1.0  # replaced by the limit below
    special = require("scipy.special", "sinc kernels")
    kernel = cutoff * special.j1(cutoff * radius) / (2 * np.pi * radius)
    kernel[centre, centre] = cutoff**2 / (4 * np.pi)
    return padded(_normalised(kernel), pad_to)


def padded(kernel: np.ndarray, size: int) -> np.ndarray:
    """The kernel in the middle of (size, size) zeros; as it is where it has that size or `size` is 0.

    Raises:
        UserError: `size` is even, or smaller than the kernel.
    """
    margin = (size - len(kernel)) // 2 if size else 0
    if margin < 0 or (size and size % 2 == 0):
        raise UserError(
            f"a kernel of {len(kernel)} x {len(kernel)} cannot be padded to {size}: that must be odd and larger"
        )
    return np.pad(kernel, margin)


def pulse(size: int) -> np.ndarray:
    """The kernel that changes nothing, (size, size)."""
    return padded(np.ones((1, 1)), size)


# ------------------------------------------------------------------ drawn kernels
def fresh_draws() -> Draws:
    """Draws for a caller without a sample's seed, from NumPy's global generator."""
    return Draws(int(np.random.randint(2**31)))


def random_mixed_kernels(
    kernel_list: Sequence[str],
    kernel_prob: Sequence[float],
    kernel_size: int = 21,
    sigma_x_range: Range = (0.6, 5),
    sigma_y_range: Range = (0.6, 5),
    rotation_range: Range = (-np.pi, np.pi),
    betag_range: Range = (0.5, 8),
    betap_range: Range = (0.5, 8),
    noise_range: Range | None = None,
    draws: Draws | None = None,
) -> np.ndarray:
    """A kernel of a random type, with parameters drawn uniformly from ranges.

    As in the original, beta comes from [least, 1] or [1, largest] with equal odds: with ``betap_range: [1, 2]`` half of all
    plateau kernels have a beta of exactly 1.

    Args:
        kernel_list: types: ``iso``, ``aniso``, ``generalized_iso``, ``generalized_aniso``, ``plateau_iso``, ``plateau_aniso``.
        kernel_prob: weights of those types.
        kernel_size: k, odd.
        sigma_x_range: standard deviation along the first axis, in pixels.
        sigma_y_range: range of standard deviations along the second axis.
        rotation_range: angle, in radians.
        betag_range: exponent of generalized Gaussians.
        betap_range: exponent of plateaus.
        noise_range: each weight, but a plateau's, is multiplied by a number from here, and the sum made 1 again.
        draws: random numbers of the sample; from NumPy's global generator when omitted.

    Raises:
        UserError: an unknown type.
    """
    draws = draws or fresh_draws()
    kind = draws.choice("type", kernel_list, kernel_prob)
    shape, _, symmetry = kind.rpartition("_")
    if shape not in ("", "generalized", "plateau") or symmetry not in ("iso", "aniso"):
        raise UserError(f"kernel_list: there is no type '{kind}'; iso, aniso, with generalized_ or plateau_ before are")
    isotropic = symmetry == "iso"
    sig_x = sig_y = draws.uniform("sigma_x", *sigma_x_range)
    theta = 0.0
    if not isotropic:
        sig_y = draws.uniform("sigma_y", *sigma_y_range)
        theta = draws.uniform("rotation", *rotation_range)
    if shape:
        low, high = betap_range if shape == "plateau" else betag_range
        beta = draws.uniform("beta", low, 1) if draws.coin("beta_side", 0.5) else draws.uniform("beta", 1, high)
        make = bivariate_plateau if shape == "plateau" else bivariate_generalized_Gaussian
        kernel = make(kernel_size, sig_x, sig_y, theta, beta, isotropic=isotropic)
    else:
        kernel = bivariate_Gaussian(kernel_size, sig_x, sig_y, theta, isotropic=isotropic)
    if noise_range is not None and shape != "plateau":
        unit = torch_uniform(draws, kernel.shape)
        kernel = _normalised(kernel * (noise_range[0] + unit * (noise_range[1] - noise_range[0])))
    return kernel


def torch_uniform(draws: Draws, shape: Sequence[int]) -> np.ndarray:
    """A field of numbers in [0, 1), float64."""
    import torch

    return np.asarray(torch.rand(tuple(shape), generator=draws.generator("noise"), dtype=torch.float64).numpy())


def random_lowpass_kernel(
    kernel_size: int, pad_to: int, draws: Draws, least: float | None = None, most: float = np.pi
) -> np.ndarray:
    """A `circular_lowpass_kernel` with a cutoff from [least, most]; small kernels cannot show the lowest frequencies, so that
    `least` is pi / 3 below 13 pixels and pi / 5 from there on when omitted."""
    if least is None:
        least = np.pi / 3 if kernel_size < 13 else np.pi / 5
    return circular_lowpass_kernel(draws.uniform("omega", least, most), kernel_size, pad_to)
