"""Windows and macOS, as far as they can be had here: see `elsewhere`. What cannot be simulated is listed in docs/install.md."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from runs import REPO

from relume.core.imaging.image_io import imwrite

slow = pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="set RELUME_SLOW_TESTS=1")


def relume(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, str(REPO / "tests/elsewhere.py"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@slow
def test_a_training_runs_resumes_and_is_tested_without_what_windows_has_not(tmp_path: Path) -> None:
    for i in range(6):
        for kind in ("lq", "gt"):
            imwrite(
                tmp_path / f"{kind}/{i}.png", np.random.RandomState(i).randint(0, 256, (48, 48, 3)).astype(np.uint8)
            )
    pair = {"type": "PairedImageDataset", "dataroot_lq": "lq", "dataroot_gt": "gt", "num_worker_per_gpu": 1}
    opt = {
        "name": "elsewhere",
        "model_type": "RestorationModel",
        "num_gpu": 0,
        "datasets": {"train": {**pair, "gt_size": 32, "batch_size_per_gpu": 2}, "val": pair},
        "network_g": {"type": "NAFNet", "width": 4},
        "train": {
            "total_iter": 4,
            "ema_decay": 0.9,
            "optim_g": {"type": "Adam", "lr": 1e-3},
            "pixel_opt": {"type": "L1Loss"},
        },
        "val": {"val_freq": 2, "save_img": True, "metrics": {"psnr": {"type": "calculate_psnr"}}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "keep_checkpoints": 1, "use_tb_logger": True},
    }
    (tmp_path / "o.yml").write_text(yaml.safe_dump(opt))
    for arguments in (
        ("train", "-opt", "o.yml"),
        ("train", "-opt", "o.yml", "--auto_resume", "--force_yml", "train:total_iter=6"),
        ("test", "-opt", "o.yml"),
        ("infer", "-i", "lq", "-o", "out", "--weights", "experiments/elsewhere/models/net_g_best.pth"),
        ("runs",),
    ):
        found = relume(tmp_path, *arguments)
        assert found.returncode == 0, (arguments, found.stdout[-2000:], found.stderr[-2000:])
    models = tmp_path / "experiments/elsewhere/models"
    assert (models / "net_g_6.pth").is_file() and not (models / "net_g_2.pth").exists()
    assert len(list((tmp_path / "out").glob("*.png"))) == 6
