"""The framework: what the trainer, the loader, checkpoints and the start cost."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .common import REPO, Row, best_of, section


@section("trainer")
def overhead() -> list[Row]:
    """What the trainer adds to a step: forward, backward and Adam of a network of a hundred tensors, with it and without.

    The network is small, so that what it computes does not hide in its own variance what the trainer adds.
    """
    from relume.core.guard import Guard
    from relume.core.models.restoration import RestorationModel
    from relume.core.runtime.optimizers import build_optimizer
    from relume.core.trainer import Trainer
    from relume.core.training.parts import Parts
    from relume.losses import build_loss
    from relume.schedulers import build_scheduler

    # A trainer without data set, files or log around a small network, and the bare loop beside it.
    device = torch.device("cpu")
    batch = {"lq": torch.rand(2, 3, 8, 8), "gt": torch.rand(2, 3, 8, 8), "lq_path": ["a", "b"]}
    network, bare = (nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(50))) for _ in range(2))
    model = RestorationModel({"g": network}, {"pixel": build_loss({"type": "L1Loss"})})
    optimizer = build_optimizer(model.named_parameters("g"), {"type": "Adam", "lr": 1e-4})
    options: Any = {
        "manual_seed": 0,
        "train": {
            "accumulate": 1,
            "amp": "off",
            "grad_clip_norm": None,
            "grad_clip_value": None,
            "use_grad_clip": False,
        },
    }
    parts: Any = Parts(
        model=model,
        networks={"g": network},
        ema=None,
        optimizers={"g": optimizer},
        schedulers={"g": build_scheduler(optimizer, None)},
        loader=iter(lambda: batch, None),
        evaluator=None,  # type: ignore[arg-type]
        checkpoints=None,
        logger=None,
        guard=Guard(3, Path("."), device),
        device=device,  # type: ignore[arg-type]
    )
    trainer = Trainer(parts, options)
    theirs = torch.optim.Adam(bare.parameters(), lr=1e-4)

    def plain() -> None:
        theirs.zero_grad(set_to_none=True)
        (bare(batch["lq"]) - batch["gt"]).abs().mean().backward()
        theirs.step()

    # The difference, as a share of a usual step.
    ours, peer = best_of(200, trainer.step, plain)
    share = 100 * (ours - peer) / 0.050
    label = "trainer overhead, of a 50 ms step (target: <= 2 %)"
    return [(label, f"{(ours - peer) * 1e3:.2f} ms", f"{peer * 1e3:.2f} ms bare loop", f"{share:.1f} %")]


def photographs(folder: Path, count: int, side: int) -> None:
    """Pairs of PNG files to load."""
    from relume.core.imaging.image_io import imwrite

    generator = torch.Generator().manual_seed(0)
    for name in ("lq", "gt"):
        for i in range(count):
            smooth = nn.functional.interpolate(
                torch.rand(1, 3, 16, 16, generator=generator), size=(side, side), mode="bicubic"
            )
            imwrite(folder / name / f"{i:05d}.png", smooth[0].clamp(0, 1))


@section("loading")
def loading() -> list[Row]:
    """Images per second through the training loader, by number of workers."""
    from relume.core import options
    from relume.datasets import build_dataset
    from relume.datasets.loading.loader import build_train_loader

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        photographs(Path(name), 32, 512)
        peer = 0.0
        # A training set as the option file of a run describes it, with more and more processes.
        for workers in (0, 1, 2, 4):
            block = {
                "type": "PairedImageDataset",
                "dataroot_lq": f"{name}/lq",
                "dataroot_gt": f"{name}/gt",
                "gt_size": 128,
                "use_hflip": True,
                "use_rot": True,
                "batch_size_per_gpu": 8,
                "num_worker_per_gpu": workers,
            }
            opt = options.check(
                {
                    "name": "bench",
                    "model_type": "RestorationModel",
                    "network_g": {"type": "MSRResNet"},
                    "datasets": {"train": block},
                    "train": {"total_iter": 100},
                }
            )
            dataset = build_dataset(opt.datasets.train, phase="train", scale=1)
            loader = build_train_loader(
                dataset,
                opt.datasets.train,
                seed=0,
                rank=0,
                world=1,
                accumulate=1,
                iteration=0,
                position=0,
                device=torch.device("cpu"),
            )
            # Throughput after the first batches, for which processes had to start.
            for _ in range(max(2, 2 * workers)):
                next(loader)
            began = time.perf_counter()
            for _ in range(25):
                next(loader)
            speed = 25 * 8 / (time.perf_counter() - began)
            loader.close()
            peer = peer or speed
            rows.append(
                (
                    f"loading 512x512 PNG pairs, {workers} worker(s)",
                    f"{speed:.0f} images/s",
                    f"{peer:.0f} images/s in process",
                    f"{speed / peer:.2f} x",
                )
            )
    return rows


@section("checkpoint")
def checkpoint() -> list[Row]:
    """How long a step waits for a checkpoint, against plain ``torch.save``, which promises nothing."""
    from relume.core.runtime.checkpoint import Checkpoints

    tensors = {f"p{i}": torch.rand(1024, 1024) for i in range(25)}
    with tempfile.TemporaryDirectory() as name:
        checkpoints = Checkpoints(Path(name), keep=1)
        ours, peer = best_of(
            3,
            lambda: checkpoints.save(1, {"g": {"params": tensors}}, {"iter": 1}),
            lambda: torch.save({"params": tensors}, f"{name}/plain.pth"),
        )
    return [
        (
            "checkpoint of 100 MiB: synced, checksummed",
            f"{ours:.2f} s",
            f"{peer:.2f} s torch.save",
            f"{ours / peer:.1f} x",
        )
    ]


@section("startup")
def startup() -> list[Row]:
    """From the command to the end of ``--check``, and to the first iteration, against importing torch."""

    def run(*command: str) -> Callable[[], None]:
        return lambda: subprocess.run([sys.executable, *command], cwd=folder, check=True, capture_output=True) and None  # nosec B603

    quickstart = str(REPO / "options" / "quickstart.yml")
    train = str(REPO / "train.py")
    with tempfile.TemporaryDirectory() as folder:
        one = ["--force_yml", "train:total_iter=1", "val:val_freq=null", "datasets={train: {batch_size_per_gpu: 1}}"]
        check, first, peer = best_of(
            3,
            run(train, "-opt", quickstart, "--check"),
            run(train, "-opt", quickstart, *one[:2]),
            run("-c", "import torch"),
        )
    return [
        ("train.py --check (target: < 3 s)", f"{check:.2f} s", f"{peer:.2f} s import torch", f"{check / peer:.1f} x"),
        (
            "train.py, one iteration and a validation",
            f"{first:.2f} s",
            f"{peer:.2f} s import torch",
            f"{first / peer:.1f} x",
        ),
    ]


@section("pairing")
def pairing() -> list[Row]:
    """Matching 20,000 pairs of files, against looking every name up in a list, as BasicSR does."""
    from relume.datasets import build_dataset

    with tempfile.TemporaryDirectory() as name:
        for side in ("lq", "gt"):
            (Path(name) / side).mkdir()
            for i in range(20000):
                (Path(name) / side / f"{i:05d}.png").touch()
        block = {"type": "PairedImageDataset", "dataroot_lq": f"{name}/lq", "dataroot_gt": f"{name}/gt"}
        ours = best_of(1, lambda: build_dataset(block, phase="val"))[0]
        names = [p.name for p in (Path(name) / "lq").iterdir()]
        began = time.perf_counter()
        for i in range(0, 20000, 20):
            assert f"{i:05d}.png" in names
        peer = 20 * (time.perf_counter() - began)
    return [
        (
            "pairing 20,000 files (target: < 1 s)",
            f"{ours:.2f} s",
            f"{peer:.1f} s by list look-up",
            f"{peer / ours:.0f} x",
        )
    ]
