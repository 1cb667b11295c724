"""How many loading processes keep one GPU busy, by what degrades: samples a second of one, against those that a step takes."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from relume.core.imaging.opencv import cv2
from relume.datasets import build_dataset
from relume.datasets.kept import Pool, Shelf

from .common import Row, section
from .reading import per_second, radiance_files


class Step(NamedTuple):
    """A training step on a GPU: what it takes in float32 by counting, no measurement."""

    system: str
    samples: int
    seconds: float
    """The largest of bytes at 3.0 TB/s, launches at 4 us (``tools/kernel_traffic.py``, fused) and arithmetic at 60 TFLOP/s."""


SUPER_RESOLUTION = Step("Real-ESRNet, 12 x 256", 12, 0.088)
DENOISING = Step("Restormer, 8 x 128", 8, 0.044)
RESTORATION = Step("NAFNet, 8 x 256", 8, 0.022)
UNDERWATER = Step("Phaseformer, 4 x 256", 4, 0.022)
HDR = Step("DiffIR, stage 1, 8 x 512", 8, 0.549)
PHOTOGRAPHS: dict[str, Any] = {"type": "RealESRGANDataset", "source": "skimage", "gt_size": 256}
LIST = [{"type": "blur"}, {"type": "noise"}, {"type": "compress"}]
"""A short list of operations, at the size of the target."""


def kept(block: dict[str, Any]) -> Any:
    """A training set whose photographs stay in memory decoded."""
    dataset: Any = build_dataset(block, phase="train")
    source = dataset.photographs[0][0]
    source.keep(Shelf(Pool(1 << 28), len(source.files)))
    return dataset


def noise(root: str, side: int) -> Any:
    """Gaussian noise on patches of HDR's inputs, which are read from PNG files each time."""
    block = {"type": "Dataset_GaussianDenoising", "dataroot_gt": f"{root}/lq", "gt_size": side, "geometric_augs": True}
    return build_dataset(block, phase="train")


def pairs(root: str, on: bool) -> Any:
    """HDR pairs, PNG and Radiance files."""
    block = {"type": "LDR_HDR_PairedDataset", "dataroot_lq": f"{root}/lq", "dataroot_gt": f"{root}/gt", "gt_size": 512}
    return build_dataset({**block, "dgain": 2.0, "gamma": 1.8, "transfer": "pq", "on_device": on}, phase="train")


def chains(root: str) -> dict[str, tuple[Callable[[], Any], Step]]:
    """What a loading process does for a sample, and the step that it is for."""
    water = {"type": "SyntheticUnderwaterDataset", "source": "skimage", "gt_size": 256}
    listed = {**PHOTOGRAPHS, "degradations": LIST, "scale": 1, "pad_size": 256}
    return {
        "Real-ESRGAN's chain": (partial(kept, {**PHOTOGRAPHS, "degradation": {}}), SUPER_RESOLUTION),
        "the same left to the model": (partial(kept, PHOTOGRAPHS), SUPER_RESOLUTION),
        "BSRGAN's": (partial(kept, {**PHOTOGRAPHS, "degradations": [{"type": "bsrgan"}]}), SUPER_RESOLUTION),
        "blur, noise, JPEG": (partial(kept, listed), RESTORATION),
        "Gaussian noise, 128 x 128": (partial(noise, root, 128), DENOISING),
        "Gaussian noise, 256 x 256": (partial(noise, root, 256), RESTORATION),
        "water": (partial(kept, water), UNDERWATER),
        "water, on_device": (partial(kept, {**water, "on_device": True}), UNDERWATER),
        "HDR pairs, pq": (partial(pairs, root, False), HDR),
        "HDR pairs, pq, on_device": (partial(pairs, root, True), HDR),
    }


@section("workers")
def workers() -> list[Row]:
    """Best of two on one thread; a row's last cell is how many such processes one GPU takes."""
    threads, of_opencv = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        with tempfile.TemporaryDirectory() as root:
            radiance_files(root, 512)
            rows: list[Row] = []
            for what, (build, step) in chains(root).items():
                made = max(per_second(build(), 36) for _ in range(2))
                taken = step.samples / step.seconds
                rows.append(
                    (what, f"{made:.0f} samples/s", f"{taken:.0f} taken by {step.system}", f"{math.ceil(taken / made)}")
                )
            return rows
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(of_opencv)
