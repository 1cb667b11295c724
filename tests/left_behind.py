"""Folders as runs leave them, written by hand: for tests of what is read from them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from relume.core.imaging.image_io import imwrite

BEGAN = datetime.datetime(2026, 11, 1, 12, tzinfo=datetime.timezone.utc)


def experiment(
    root: Path,
    *,
    total: int = 100,
    reached: int = 100,
    psnr: Sequence[float | None] = (20.0, 22.0, 21.0),
    lr: float = 1e-3,
    outcome: tuple[int, str, str] | None = (0, "complete", "complete"),
    last_loss: float | None = 0.1,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """``experiments/NAME`` of a training with ten records and a few validations; its root."""
    root.mkdir(parents=True)
    opt = {
        "name": root.name,
        "datasets": {"train": {"batch_size_per_gpu": 4}},
        "train": {"total_iter": total, "optim_g": {"type": "Adam", "lr": lr, "betas": [0.9, 0.99]}},
        "val": {"metrics": {"psnr": {"type": "calculate_psnr"}, "lpips": {"type": "calculate_lpips"}}, "best": None},
        **(options or {}),
    }
    (root / f"{root.name}.yml").write_text("# Resolved options\n" + yaml.safe_dump(opt, sort_keys=False))
    lines = []
    steps = [reached * i // 10 for i in range(1, 11)] if reached else []
    for n, i in enumerate(steps):
        moment = (BEGAN + datetime.timedelta(seconds=30 * n)).isoformat()
        loss = last_loss if i == steps[-1] else 1.0 / i
        more = {"perf/time": 1.0, "perf/eta": float(total - i), "perf/wall_clock": moment}
        lines.append(json.dumps({"iter": i, "epoch": 0, "lr": [lr], "l_pix": loss, **more}))
    for n, value in enumerate(psnr if reached else ()):
        at = reached * (n + 1) // len(psnr)
        scores = {"psnr": value, "lpips": None if value is None else 1 / value}
        lines.append(json.dumps({"iter": at, "dataset": "val", "metrics": scores}))
    (root / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
    if outcome is not None:
        code, word, reason = outcome
        words = {"code": code, "outcome": word, "reason": reason, "iteration": reached, "rank": 0, "ranks": 1}
        (root / "exit.json").write_text(json.dumps({**words, "session": "", "attempt": 0, "host": "x", "time": ""}))
    return root


def scored(root: Path, scores: Mapping[str, Mapping[str, float | None]], dataset: str = "val", **more: Any) -> None:
    """Add the scores per picture of a last validation to a run's folder: ``scores[image][metric]``."""
    folder = root / "visualization"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"iter": 100, "image": image, **more.get(image, {}), **each}) for image, each in scores.items()]
    (folder / f"{dataset}_scores.jsonl").write_text("\n".join(rows) + "\n")


def a_test(root: Path, scores: Mapping[str, Mapping[str, float | None]], dataset: str = "val", **more: Any) -> Path:
    """``results/NAME`` of a test with these scores per picture; its root."""
    scored(root, scores, dataset, **more)
    metrics = list(dict.fromkeys(m for row in scores.values() for m in row))
    known = {m: [row[m] for row in scores.values() if row.get(m) is not None] for m in metrics}
    means = {m: float(np.mean(values)) if values else None for m, values in known.items()}
    (root / "metrics.json").write_text(json.dumps({dataset: means}))
    return root


def picture(path: Path, seed: int, side: int = 24) -> np.ndarray:
    """Write an image of noise, (side, side + 8, 3) uint8, and give it."""
    image = np.random.RandomState(seed).randint(0, 256, (side, side + 8, 3), np.uint8)
    imwrite(path, image)
    return image
