"""A training loop that does, per iteration, what BasicSR's does and nothing else: the benchmark's peer for the whole of ours.

    python tests/minimal_loop.py FOLDER ITERATIONS

One process reads pairs of PNG files by OpenCV, cuts, flips and turns them; the main process runs the network forward and
backward, takes a step of Adam, averages parameters one after another, and reads the loss off for the log.
"""

from __future__ import annotations

import copy
import random
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

PATCH, SCALE, BATCH = 64, 2, 4
FEATURES, BLOCKS = 16, 2


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.res_scale = 1.0
        self.conv1 = nn.Conv2d(FEATURES, FEATURES, 3, 1, 1)
        self.conv2 = nn.Conv2d(FEATURES, FEATURES, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(torch.relu(self.conv1(x))) * self.res_scale


class Network(nn.Module):
    """MSRResNet x2 as its paper and BasicSR have it, written down plainly; the weights are those of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, FEATURES, 3, 1, 1)
        self.body = nn.Sequential(*[Block() for _ in range(BLOCKS)])
        self.upconv1 = nn.Conv2d(FEATURES, FEATURES * SCALE**2, 3, 1, 1)
        self.pixel_shuffle = nn.PixelShuffle(SCALE)
        self.conv_hr = nn.Conv2d(FEATURES, FEATURES, 3, 1, 1)
        self.conv_last = nn.Conv2d(FEATURES, 3, 3, 1, 1)
        self.lrelu = nn.LeakyReLU(0.1, inplace=True)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight).data.mul_(0.1)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.lrelu(self.conv_first(x)))
        y = self.lrelu(self.pixel_shuffle(self.upconv1(y)))
        y = self.conv_last(self.lrelu(self.conv_hr(y)))
        return y + F.interpolate(x, scale_factor=SCALE, mode="bilinear", align_corners=False)


class Pairs(Dataset):
    def __init__(self, folder: Path) -> None:
        self.gt = sorted((folder / "gt").iterdir())
        self.lq = sorted((folder / "lq").iterdir())

    def __len__(self) -> int:
        return len(self.gt)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        gt, lq = (cv2.imread(str(p[index])).astype(np.float32) / 255.0 for p in (self.gt, self.lq))
        side = PATCH // SCALE
        top, left = (random.randint(0, n - side) for n in lq.shape[:2])
        lq = lq[top : top + side, left : left + side]
        gt = gt[SCALE * top : SCALE * (top + side), SCALE * left : SCALE * (left + side)]
        mirror, flip, turn = (random.random() < 0.5 for _ in range(3))
        made = {}
        for name, image in (("lq", lq), ("gt", gt)):
            image = image[:, ::-1] if mirror else image
            image = image[::-1] if flip else image
            image = image.transpose(1, 0, 2) if turn else image
            made[name] = torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))
        return {**made, "lq_path": str(self.lq[index]), "gt_path": str(self.gt[index])}


def main(folder: Path, iterations: int) -> None:
    torch.set_num_threads(1)
    network = Network()
    average = copy.deepcopy(network).eval()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.9, 0.99))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    data = Pairs(folder)
    sampler = RandomSampler(data, replacement=True, num_samples=BATCH * iterations)
    for i, batch in enumerate(DataLoader(data, BATCH, sampler=sampler, num_workers=1, drop_last=True)):
        optimizer.zero_grad()
        loss = (network(batch["lq"]) - batch["gt"]).abs().mean()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            of_step = dict(network.named_parameters())
            for name, mine in average.named_parameters():
                mine.mul_(0.999).add_(of_step[name], alpha=0.001)
        scheduler.step()
        logged = {"l_pix": loss.detach().mean().item()}
        if i % 100 == 0:
            print(i, logged, scheduler.get_last_lr(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
