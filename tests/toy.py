"""A plugin for tests: a small network with every kind of state, a dataset drawn on the fly, and accidents on demand.

``RELUME_TEST_ACCIDENT=<where>:<count>`` ends the process with SIGKILL at the count-th visit to a place: ``loss`` (in the
middle of a step), ``metric`` (in the middle of a validation), ``write`` (half-way through a file of a checkpoint).
``RELUME_TEST_SIGNAL=<where>:<count>:<number>`` sends this process a signal there instead.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from relume.archs import ARCHS
from relume.core.metrics import metric
from relume.core.runtime import checkpoint
from relume.datasets import DATASETS
from relume.losses import LOSSES

visits: Counter[str] = Counter()


def accident(where: str) -> None:
    """Die, or receive a signal, if this is the place and time."""
    visits[where] += 1
    if os.environ.get("RELUME_TEST_RANK", os.environ.get("RANK", "0")) != os.environ.get("RANK", "0"):
        return
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        return
    for variable, default in (("RELUME_TEST_ACCIDENT", 9), ("RELUME_TEST_SIGNAL", 15)):
        place, _, rest = os.environ.get(variable, "").partition(":")
        count, _, number = rest.partition(":")
        if place == where and visits[where] == int(count):
            os.kill(os.getpid(), int(number or default))


@ARCHS.register()
class ToyNet(nn.Module):
    """Convolutions, a normalisation with buffers, dropout: everything that must survive a resume."""

    def __init__(self, width: int = 8, dropout: float = 0.1, norm: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.BatchNorm2d(width) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(width, 3, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


@DATASETS.register()
class ToyDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Images drawn from the index, noise and crops from the global generators (as a BasicSR dataset would)."""

    def __init__(self, length: int = 12, gt_size: int = 12, phase: str = "train", poison: int | None = None) -> None:
        self.length = length
        self.gt_size = gt_size
        self.phase = phase
        self.poison = poison

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        full = np.random.RandomState(index).rand(3, 24, 24).astype(np.float32)
        if self.phase != "train":
            gt = torch.from_numpy(full[:, :17, :19].copy())
            return {"lq": (gt * 0.8).clamp(0, 1), "gt": gt, "lq_path": f"img{index:03d}.png"}
        top, left = random.randint(0, 24 - self.gt_size), random.randint(0, 24 - self.gt_size)
        gt = torch.from_numpy(full[:, top : top + self.gt_size, left : left + self.gt_size].copy())
        noise = 0.1 * np.random.randn(*gt.shape).astype(np.float32) + 0.05 * torch.randn(gt.shape).numpy()
        lq = gt + torch.from_numpy(noise.astype(np.float32))
        if index == self.poison:
            lq[0, 0, 0] = float("nan")
        return {"lq": lq, "gt": gt, "lq_path": f"img{index:03d}.png"}


@DATASETS.register()
class ToyTriplets(torch.utils.data.Dataset[dict[str, Any]]):
    """Three frames of a drifting texture that depend on the index only; frames and middle are exact to the pixel."""

    def __init__(self, length: int = 12, gt_size: int = 16, phase: str = "train") -> None:
        self.length = length
        self.gt_size = gt_size
        self.phase = phase

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        texture = np.random.RandomState(index).rand(3, 40, 40).astype(np.float32)
        height, width = (self.gt_size, self.gt_size) if self.phase == "train" else (13, 19)
        steps = [index % 3 + k * (1 + index % 4) for k in range(3)]
        images = [torch.from_numpy(texture[:, s : s + height, s : s + width].copy()) for s in steps]
        names = {f"{key}_path": f"triplet{index:03d}_{key}.png" for key in ("img0", "gt")}
        return {"img0": images[0], "gt": images[1], "img1": images[2], "timestep": np.float32(0.5), **names}


@LOSSES.register()
class ToyLoss(nn.Module):
    """Mean absolute difference; a place for accidents."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        accident("loss")
        return self.loss_weight * (pred - target).abs().mean()


@metric("higher")
def toy_score(img: np.ndarray, img2: np.ndarray) -> float:
    """Minus the mean absolute difference of two images; a place for accidents."""
    accident("metric")
    return -float(np.abs(img.astype(np.float64) - img2.astype(np.float64)).mean())


def _write_and_perhaps_die(path: Any, fill: Any) -> str:
    def torn(file: Any) -> None:
        file.write(b"half a file")
        file.flush()
        accident("write")
        file.seek(0)
        file.truncate()
        fill(file)

    return _write(path, torn)


if checkpoint.write_atomically.__module__ == checkpoint.__name__:
    _write = checkpoint.write_atomically
    if "write:" in os.environ.get("RELUME_TEST_ACCIDENT", ""):
        checkpoint.write_atomically = _write_and_perhaps_die
