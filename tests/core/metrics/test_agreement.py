"""Our metrics beside other libraries' on the same images; the table is in docs/metrics.md."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import relume
from relume.core.metrics import calculate_metric
from relume.core.metrics.generative import Moments, frechet_distance, inception_score, kernel_distance, precision_recall

DOCS = Path(relume.__file__).parent / "docs" / "metrics.md"
SIDE, COUNT = 192, 12
"""Of the images, and how many pairs of them."""


def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """RGB images of 8 bits: photographs of scikit-image with noise and blur, and plain noise."""
    from skimage import data, filters

    sources = [data.astronaut, data.coffee, data.chelsea]
    for seed in range(COUNT):
        rng = np.random.default_rng(seed)
        whole = sources[seed % 3]()
        y, x = (rng.integers(0, n - SIDE) for n in whole.shape[:2])
        clean = whole[y : y + SIDE, x : x + SIDE]
        blurred = filters.gaussian(clean, rng.random() * 2, channel_axis=2) * 255
        noisy = np.clip(blurred + rng.normal(0, rng.random() * 30, clean.shape), 0, 255)
        yield noisy.astype(np.uint8), np.ascontiguousarray(clean)


def tensors(*images: np.ndarray, scale: float = 1.0) -> list[torch.Tensor]:
    return [torch.from_numpy(i / 255.0 * scale).permute(2, 0, 1)[None] for i in images]


def own(kind: str, **options: Any) -> Callable[[np.ndarray, np.ndarray], float]:
    def score(x: np.ndarray, y: np.ndarray) -> float:
        return calculate_metric({"img": x, "img2": y}, {"type": kind, "color_order": "rgb", **options})

    def plain(x: np.ndarray, y: np.ndarray) -> float:
        return calculate_metric({"img": x, "img2": y}, {"type": kind, **options})

    return plain if kind.endswith("_skimage") else score


def skimage_psnr(x: np.ndarray, y: np.ndarray) -> float:
    from skimage import metrics

    return float(metrics.peak_signal_noise_ratio(y, x))


def skimage_gaussian(x: np.ndarray, y: np.ndarray) -> float:
    from skimage import metrics

    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    return float(metrics.structural_similarity(x.astype(float), y.astype(float), channel_axis=2, **options))


def skimage_flat(x: np.ndarray, y: np.ndarray) -> float:
    from skimage import metrics

    return float(metrics.structural_similarity(x.astype(float), y.astype(float), channel_axis=2, data_range=255))


def msssim_of_pytorch_msssim(x: np.ndarray, y: np.ndarray) -> float:
    import pytorch_msssim

    return float(pytorch_msssim.ms_ssim(*tensors(x, y), data_range=1.0))


def ssim_of_pytorch_msssim(x: np.ndarray, y: np.ndarray) -> float:
    import pytorch_msssim

    return float(pytorch_msssim.ssim(*tensors(x, y), data_range=1.0))


def of_torchmetrics(name: str) -> Callable[[np.ndarray, np.ndarray], float]:
    def score(x: np.ndarray, y: np.ndarray) -> float:
        image = pytest.importorskip("torchmetrics.image")
        return float(getattr(image, name)(data_range=1.0)(*tensors(x, y)))

    return score


def torchmetrics_mae(x: np.ndarray, y: np.ndarray) -> float:
    regression = pytest.importorskip("torchmetrics.regression")
    return float(regression.MeanAbsoluteError()(*[t.contiguous() for t in tensors(x, y, scale=255)]))


IMAGES = {  # by ours and theirs: both functions, and how far apart they may be
    ("calculate_psnr", "scikit-image"): (own("psnr"), skimage_psnr, 1e-10),
    ("calculate_psnr", "torchmetrics"): (own("psnr"), of_torchmetrics("PeakSignalNoiseRatio"), 1e-4),
    ("calculate_ssim", "scikit-image"): (own("ssim"), skimage_gaussian, 1e-9),
    ("calculate_ssim", "pytorch-msssim"): (own("ssim"), ssim_of_pytorch_msssim, 1e-5),
    ("calculate_ssim_skimage", "scikit-image"): (own("ssim_skimage"), skimage_flat, 1e-9),
    ("calculate_msssim", "pytorch-msssim"): (own("msssim"), msssim_of_pytorch_msssim, 1e-9),
    ("calculate_mae", "torchmetrics"): (own("mae"), torchmetrics_mae, 1e-4),
}


def fid(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    theirs = fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), verbose=False)
    a, b = Moments.of(x), Moments.of(y)
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance), next(iter(theirs.values()))


def kid(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    from torch_fidelity.metric_kid import kid_features_to_metric

    theirs = kid_features_to_metric(x, y, kid_subset_size=len(x), kid_subsets=1, verbose=False)
    return float(kernel_distance(x, y, 1, len(x)).mean()), theirs["kernel_inception_distance_mean"]


def inception(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    from torch_fidelity.metric_isc import isc_features_to_metric

    theirs = isc_features_to_metric(x, splits=1, shuffle=False)
    return float(inception_score(x, 1, None).mean()), theirs["inception_score_mean"]


def recall(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    from torch_fidelity.metric_prc import prc_features_to_metric

    theirs = prc_features_to_metric(y, x, verbose=False)
    return sum(precision_recall(x, y)), theirs["precision"] + theirs["recall"]


SETS = {
    "FID": (fid, 1e-6),
    "KID": (kid, 1e-9),
    "InceptionScore": (inception, 1e-5),
    "Precision, Recall": (recall, 1e-6),
}


def table() -> dict[tuple[str, str], tuple[float, float]]:
    """By ours and theirs: the largest difference, and how large it may be."""
    images = list(pairs())
    found = {k: (max(abs(a(*p) - b(*p)) for p in images), most) for k, (a, b, most) in IMAGES.items()}
    pytest.importorskip("torch_fidelity")
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(24, 24)) / 4
    x, y = (torch.from_numpy((rng.normal(size=(200, 24)) + shift) @ mixing) for shift in (0.0, 0.3))
    for name, (both, most) in SETS.items():
        mine, theirs = both(x, y)
        found[name, "torch-fidelity"] = abs(mine - float(theirs)), most
    return found


@pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="slow; set RELUME_SLOW_TESTS=1")
def test_the_table_holds() -> None:
    found = table()
    rows = re.findall(
        r"^\| `?([\w, ]+?)`? \| ([\w-]+) \|.*\| ([\d.e-]+) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE
    )
    stated = {(ours, theirs): float(most) for ours, theirs, most in rows}
    assert set(stated) == set(found)
    for key, (difference, most) in found.items():
        assert stated[key] == most, key
        assert difference <= most, (key, difference)


if __name__ == "__main__":
    for (ours, theirs), (difference, most) in table().items():
        print(f"{ours:24} {theirs:16} {difference:.2e} {most:g}")
