"""Run train.py for real, in its own processes, and compare what runs leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import torch
import yaml

import relume

REPO = Path(relume.__file__).resolve().parent


def options(name: str = "toy", **changes: Any) -> dict[str, Any]:
    """Options of a run of seconds; `changes` by dotted path with ``__`` for dots (``train__accumulate=2``)."""
    opt: dict[str, Any] = {
        "name": name,
        "model_type": "RestorationModel",
        "num_gpu": 0,
        "manual_seed": 7,
        "plugins": [str(REPO / "tests" / "toy.py")],
        "datasets": {
            "train": {"type": "ToyDataset", "batch_size_per_gpu": 2, "num_worker_per_gpu": 0},
            "val": {"name": "held_out", "type": "ToyDataset", "length": 3, "num_worker_per_gpu": 0},
        },
        "network_g": {"type": "ToyNet"},
        "train": {
            "total_iter": 12,
            "optim_g": {"type": "Adam", "lr": 0.01},
            "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [12], "restart_weights": [1], "eta_min": 1e-5},
            "pixel_opt": {"type": "ToyLoss"},
        },
        "val": {"val_freq": 4, "metrics": {"score": {"type": "toy_score", "better": "higher"}}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 5},
    }
    for path, value in changes.items():
        block = opt
        *parents, last = path.split("__")
        for parent in parents:
            block = block.setdefault(parent, {})
        block[last] = value
    return opt


def train(
    folder: Path, opt: Mapping[str, Any], *arguments: str, env: Mapping[str, str] | None = None, ranks: int = 1
) -> subprocess.CompletedProcess[str]:
    """``python train.py`` (or torchrun with several ranks) in `folder`, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "opt.yml").write_text(yaml.safe_dump(dict(opt), sort_keys=False))
    launch = [sys.executable]
    if ranks > 1:
        launch += ["-m", "torch.distributed.run", f"--nproc_per_node={ranks}", "--master_port=0", "--rdzv_backend=c10d"]
        launch += ["--rdzv_endpoint=localhost:0"]
        arguments = (*arguments, "--launcher", "pytorch")
    command = [*launch, str(REPO / "train.py"), "-opt", "opt.yml", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **(env or {})}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def records(root: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` of the experiment in `root`."""
    return [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]


def weights(root: Path, which: int | str, key: str = "g") -> dict[str, dict[str, torch.Tensor]]:
    """The weights in ``models/net_<key>_<which>.pth`` of the experiment in `root`, without what they say of themselves."""
    entries = torch.load(root / "models" / f"net_{key}_{which}.pth", weights_only=True)
    assert entries.pop("relume")["iteration"] == (which if isinstance(which, int) else ANY)
    return entries


def outcome(folder: Path, name: str = "toy", iteration: int = 12) -> dict[str, Any]:
    """Everything of a finished run that must not depend on how it got there, times and paths left out."""
    root = folder / "experiments" / name
    state = torch.load(root / "training_states" / f"{iteration}.state", weights_only=True)
    return {
        "weights": weights(root, iteration),
        "best": weights(root, "best"),
        "state": {k: v for k, v in state.items() if k != "world_size"},
        "records": [{k: v for k, v in r.items() if not k.startswith("perf/")} for r in records(root)],
        "scores": (root / "visualization" / "held_out_scores.jsonl").read_text(),
    }


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Paths at which two nested structures differ; tensors are compared bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [f"{where}: tensors differ by up to {(a - b).abs().max():.3g}"]
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        missing = [f"{where}.{k}: only in one" for k in a.keys() ^ b.keys()]
        return missing + [d for k in a.keys() & b.keys() for d in differences(a[k], b[k], f"{where}.{k}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return [f"{where}: {len(a)} and {len(b)} entries"]
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}[{i}]")]
    return [] if a == b else [f"{where}: {a!r} and {b!r}"]
