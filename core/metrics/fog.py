"""Perceptual fog density (FADE: Choi, You and Bovik, IEEE TIP 24(11), 2015): how far an image's patches are from clear.

Twelve features of every 8x8 patch are compared with those of clear and of foggy photographs by Mahalanobis distances:
D = mean distance to the clear ones / (1 + mean distance to the foggy ones). Written from the authors' Matlab release,
whose way with roundings and borders is kept, since the statistics were measured with it.
"""

from __future__ import annotations

import numpy as np

from ..imaging.opencv import cv2
from .fog_statistics import CLEAR_COVARIANCE, CLEAR_MEAN, FOGGY_COVARIANCE, FOGGY_MEAN

PATCH = 8
GRAY = (0.298936021293775, 0.587043074451121, 0.114020904255103)
"""Matlab's rgb2gray."""

LOG_OF_GAUSSIAN_SIGMA = 3.25
SEMISATURATION = 0.1
NOISE = {
    "gray": 9.225496406318721e-4 * 255,
    "yellow_blue": 8.969246659629488e-4 * 255,
    "red_green": 2.069284034165411e-4 * 255,
}
"""Contrast energies that are noise (Groen et al., J. Vision 2013)."""


def fog_density(rgb: np.ndarray) -> float:
    """D of an image (H, W, 3) with whole-number values in [0, 255], H and W at least 8; above 0, about 1 in haze."""
    features = patch_features(rgb)
    clear = _mean_distance(features, CLEAR_MEAN, CLEAR_COVARIANCE)
    foggy = _mean_distance(features, FOGGY_MEAN, FOGGY_COVARIANCE)
    return clear / (foggy + 1)


def patch_features(rgb: np.ndarray) -> np.ndarray:
    """log(1 + feature), (patches, 12); NaN where a patch has too few values for one of them, or black areas: the ratio of
    deviation to mean is 0 / 0 there, and the release leaves such patches out."""
    rows, columns = (n // PATCH * PATCH for n in rgb.shape[:2])
    rgb = rgb[:rows, :columns]
    red, green, blue = (np.ascontiguousarray(rgb[..., i]) for i in range(3))
    # Maps of contrast, colour and local statistics.
    opponent = {"red_green": red - green, "yellow_blue": (red + green) / 2 - blue}
    gray = np.floor(rgb @ np.array(GRAY) + 0.5)
    mean = _local_mean(gray)
    deviation = np.sqrt(np.abs(_local_mean(gray * gray) - mean * mean))
    normalised = (gray - mean) / (deviation + 1)
    normalised[np.abs(normalised) < 1e-9] = 0  # rounding, in flat places
    products = _patches(normalised * np.roll(normalised, 1, axis=0))
    rg, yb = _patches(opponent["red_green"]), _patches(opponent["yellow_blue"])
    largest = rgb.max(axis=2)
    energies = {"gray": rgb @ np.array([0.299, 0.587, 0.114]), "yellow_blue": opponent["yellow_blue"]}
    energies["red_green"] = opponent["red_green"]
    # The twelve features of each patch, in the order of the published model.
    columns_of_features = [
        _patches(normalised).var(axis=1, ddof=1),
        _variance_where(products, products >= 0),
        _variance_where(products, products <= 0),
        _patches(deviation).mean(axis=1),
        _patches(np.where(mean > 0, _ratio(deviation, mean), np.nan)).mean(axis=1),
        *(_patches(contrast_energy(channel, NOISE[name])).mean(axis=1) for name, channel in energies.items()),
        _entropy(_patches(gray)),
        _patches(rgb.min(axis=2) / 255).mean(axis=1),
        _patches(_ratio(largest - rgb.min(axis=2), largest)).mean(axis=1),
        np.hypot(rg.std(axis=1, ddof=1), yb.std(axis=1, ddof=1)) + 0.3 * np.hypot(rg.mean(axis=1), yb.mean(axis=1)),
    ]
    result: np.ndarray = np.log1p(np.stack(columns_of_features, axis=1))
    return result


def _patches(image: np.ndarray) -> np.ndarray:
    """(H, W) as (H W / 64, 64)."""
    h, w = image.shape
    result: np.ndarray = image.reshape(h // PATCH, PATCH, w // PATCH, PATCH).swapaxes(1, 2).reshape(-1, PATCH * PATCH)
    return result


def _local_mean(image: np.ndarray) -> np.ndarray:
    taps = np.exp(-np.square(np.arange(-3, 4)) / (2 * (7 / 6) ** 2))
    taps /= taps.sum()
    return np.asarray(cv2.sepFilter2D(image, -1, taps, taps, borderType=cv2.BORDER_REPLICATE))


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where both vanish."""
    result: np.ndarray = np.divide(a, b, out=np.zeros_like(a), where=b > 0)
    return result


def _variance_where(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Unbiased variance along rows of the wanted values; 0 of one value, NaN of none."""
    count = wanted.sum(axis=1)
    mean = _ratio(np.where(wanted, values, 0).sum(axis=1), count.astype(float))
    squares = np.where(wanted, values - mean[:, None], 0.0) ** 2
    return np.where(count > 0, squares.sum(axis=1) / np.maximum(count - 1, 1), np.nan)


def _entropy(patches: np.ndarray) -> np.ndarray:
    """Entropy of each row's histogram of whole numbers in [0, 255], in bits."""
    index = patches.astype(np.int64) + 256 * np.arange(len(patches))[:, None]
    share = np.bincount(index.ravel(), minlength=256 * len(patches)).reshape(-1, 256) / patches.shape[1]
    result: np.ndarray = -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=1)
    return result


def contrast_energy(channel: np.ndarray, noise: float) -> np.ndarray:
    """Rectified, normalised response of a second-derivative filter across and down, less the noise threshold."""
    sigma = LOG_OF_GAUSSIAN_SIGMA
    x = np.arange(-3 * sigma, 3 * sigma + 1e-9)  # 20 taps, one half pixel off the centre as in the release
    gauss = np.exp(-(x**2) / (2 * sigma**2))
    gauss /= gauss.sum()
    taps = (x**2 / sigma**4 - 1 / sigma**2) * gauss
    taps -= taps.mean()
    taps /= (x**2 * taps).sum() / 2
    reach = len(taps) // 2
    # The border is the image's first and last lines once more, not their mirror image.
    tall = np.concatenate([channel[:reach], channel, channel[-reach:]])
    framed = np.ascontiguousarray(np.concatenate([tall[:, :reach], tall, tall[:, -reach:]], axis=1))
    flipped = taps[::-1]  # OpenCV correlates
    across = cv2.filter2D(framed, -1, flipped[None, :], anchor=(reach - 1, 0), borderType=cv2.BORDER_CONSTANT)
    down = cv2.filter2D(framed, -1, flipped[:, None], anchor=(0, reach - 1), borderType=cv2.BORDER_CONSTANT)
    response = np.hypot(across, down)[reach:-reach, reach:-reach]
    largest = response.max()
    saturated = _ratio(response * largest, response + largest * SEMISATURATION) - noise
    return np.where(saturated > 1e-7, saturated, 0.0)


def _mean_distance(features: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    """Mean over patches of the Mahalanobis distance to `mean`, NaN left out.

    The covariance is averaged with that of the patch, for which the release takes the variance of the patch's features
    among themselves, in every entry.
    """
    complete = features[~np.isnan(features).any(axis=1)]
    if len(complete) == 0:
        return float("nan")
    own = complete.var(axis=1, ddof=1)[:, None, None]
    difference = mean - complete
    solved = np.linalg.solve((covariance + own) / 2, difference[..., None])[..., 0]
    return float(np.sqrt((difference * solved).sum(axis=1)).mean())
