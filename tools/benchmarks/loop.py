"""A whole training, process and workers, against a minimal loop that does per iteration what BasicSR's does."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .common import REPO, Job, Row, memory_row, paired, resident_mib, seconds, section, time_row
from .framework import photographs

FEW, ITERATIONS, ROUNDS = 100, 300, 3
"""Iterations of a first run, whose time is that of the start; how many more a second does; pairs of both."""
PATCH, SCALE, BATCH = 64, 2, 4
NETWORK: dict[str, Any] = {"type": "MSRResNet", "num_feat": 16, "num_block": 2, "upscale": SCALE}


def spent_by(command: list[str], folder: str) -> tuple[float, float]:
    """User and system time of a command and of all its workers, on one thread each, and the largest MiB of the process itself.

    Raises:
        RuntimeError: the command fails; with what it said.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(  # nosec B603
            [sys.executable, *command], cwd=folder, stdout=said, stderr=subprocess.STDOUT, env=environment
        )
        largest = 0.0
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            largest = max(largest, resident_mib(process.pid))
            time.sleep(0.02)
        _, status, usage = ended
        process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait for it again
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{said.read()}")
    return usage.ru_utime + usage.ru_stime, largest


def ours(folder: str, iterations: int) -> list[str]:
    """The command of our training."""
    file = Path(folder) / "loop.yml"
    # The same work as minimal_loop.py: same pictures, crops, network, loss, schedule and average.
    train = {
        "type": "PairedImageDataset",
        "dataroot_lq": f"{folder}/lq",
        "dataroot_gt": f"{folder}/gt",
        "gt_size": PATCH,
        "use_hflip": True,
        "use_rot": True,
        "batch_size_per_gpu": BATCH,
        "num_worker_per_gpu": 1,
        "dataset_enlarge_ratio": 100,
    }
    schedule = {"type": "TrueCosineAnnealingLR", "T_max": iterations, "eta_min": 0}
    options = {
        "name": f"loop_{iterations}",
        "model_type": "SRModel",
        "scale": SCALE,
        "manual_seed": 0,
        "datasets": {"train": train},
        "network_g": NETWORK,
        "train": {
            "total_iter": iterations,
            "ema_decay": 0.999,
            "optim_g": {"type": "Adam", "lr": 2e-4, "betas": [0.9, 0.99]},
            "scheduler": schedule,
            "pixel_opt": {"type": "L1Loss"},
        },
        "logger": {"print_freq": 100, "save_checkpoint_freq": 100000},
    }
    file.write_text(json.dumps(options))  # JSON is YAML
    return [str(REPO / "train.py"), "-opt", str(file)]


def step(network: nn.Module) -> Job:
    """Forward and backward of all iterations, alone."""
    lq, gt = torch.rand(BATCH, 3, PATCH // SCALE, PATCH // SCALE), torch.rand(BATCH, 3, PATCH, PATCH)

    def run() -> None:
        for _ in range(ITERATIONS):
            network.zero_grad(set_to_none=True)
            (network(lq) - gt).abs().mean().backward()

    return run


@section("loop")
def loop() -> list[Row]:
    """300 iterations of a tiny MSRResNet, beyond the start; and what of them is neither forward nor backward."""
    from minimal_loop import Network

    from relume.archs import build_network

    spent: list[list[float]] = [[], []]
    most = [0.0, 0.0]
    # Runs of two lengths in turn; their difference is free of the time that a start takes.
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder), 32, 256)
        halve(Path(folder) / "lq")
        minimal = str(REPO / "tests" / "minimal_loop.py")
        for turn in range(ROUNDS):
            commands = [lambda n: ours(folder, n), lambda n: [minimal, folder, str(n)]]
            for which in (0, 1) if turn % 2 == 0 else (1, 0):
                (few, _), (many, peak) = (spent_by(commands[which](n), folder) for n in (FEW, FEW + ITERATIONS))
                spent[which].append(many - few)
                most[which] = max(most[which], peak)
    # Forward and backward pass alone show what is left for the loops themselves.
    mine = statistics.median(spent[0])
    theirs = mine * statistics.median(b / a for a, b in zip(*spent, strict=True))
    inner, of_theirs = paired(2 * ROUNDS + 1, step(build_network(NETWORK)), step(Network()))
    what = f"MSRResNet x2, {ITERATIONS} iterations"
    return [
        time_row(f"{what}, process and worker", mine, theirs, "minimal loop"),
        (f"{what}, of it", seconds(mine), f"{seconds(inner)} forward, backward", f"{100 * inner / mine:.0f} %"),
        time_row(f"{what}, neither forward nor backward", mine - inner, theirs - of_theirs, "minimal loop"),
        memory_row(f"{what}, peak of the process", *most, "minimal loop"),
    ]


def halve(folder: Path) -> None:
    """Write every picture of a folder at half its size."""
    from relume.core.imaging.opencv import cv2

    for path in folder.iterdir():
        image = cv2.imread(str(path))
        cv2.imwrite(
            str(path), cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
        )
