"""Components that inherit from nothing of Relume's train: those of docs/own_components.md, and the barest possible."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import REPO, train

PAGE = (REPO / "docs" / "own_components.md").read_text(encoding="utf-8")
FILES = {
    found.group(1): text
    for text in re.findall(r"^```(?:python|yaml)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    if (found := re.match(r"# (\w+\.(?:py|yml))\n", text))
}
BARE = """
from typing import Any

import numpy as np
import torch
from relume.archs import ARCHS
from relume.core.metrics import METRICS
from relume.datasets import DATASETS
from relume.losses import LOSSES


@ARCHS.register()
class BareNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


@LOSSES.register()
class BareLoss(torch.nn.Module):
    def forward(self, pred, target):
        return (pred - target).square().mean()


@DATASETS.register()
class BareDataset(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        gt = torch.from_numpy(np.random.RandomState(index).rand(3, 9, 11).astype(np.float32))
        return {"lq": gt.sqrt(), "gt": gt}


@METRICS.register()
def bare_metric(img: Any, img2: Any, offset: float = 0.0):
    return offset - np.abs(img.astype(float) - img2).mean()
"""


def results(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "experiments" / name / "metrics.jsonl").read_text().splitlines()]


def test_the_page_trains_with_all_its_components_from_one_option_file(tmp_path: Path) -> None:
    assert len(FILES) == 7
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    shorter = ["train:total_iter=2", "train:scheduler:hold=1", "val:val_freq=2", "logger:print_freq=1"]
    command = [sys.executable, str(REPO / "train.py"), "-opt", "own.yml", "--force_yml", *shorter]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    lines = results(tmp_path, "own")
    steps = [line for line in lines if "l_pixel" in line]
    assert len(steps) == 2 and all({"l_detail", "largest_error"} <= set(line) for line in steps)
    assert steps[1]["lr"] == pytest.approx([0.1 * rate for rate in steps[0]["lr"]])
    best = json.dumps(torch.load(tmp_path / "experiments/own/training_states/2.state", weights_only=True)["best"])
    assert "worst" in best and "psnr" in best
    scored = (tmp_path / "experiments/own/visualization/stripes_scores.jsonl").read_text().splitlines()
    assert [json.loads(line)["image"] for line in scored] == ["stripes0", "stripes1", "stripes2"]


@pytest.mark.parametrize("part", ["arch", "loss", "dataset", "metric", "all"])
def test_what_says_nothing_of_itself_trains(part: str, tmp_path: Path) -> None:
    bare = {p: part in (p, "all") for p in ("arch", "loss", "dataset", "metric")}
    (tmp_path / "bare.py").write_text(BARE, encoding="utf-8")
    data = {"type": "BareDataset"} if bare["dataset"] else {"type": "ToyDataset", "length": 4}
    opt = {
        "name": "bare",
        "model_type": "RestorationModel",
        "num_gpu": 0,
        "manual_seed": 3,
        "plugins": [str(REPO / "tests" / "toy.py"), "bare.py"],
        "datasets": {"train": {**data, "batch_size_per_gpu": 2}, "val": {**data, "name": "held_out"}},
        "network_g": {"type": "BareNet" if bare["arch"] else "ToyNet"},
        "train": {
            "total_iter": 2,
            "optim_g": {"type": "Adam", "lr": 0.01},
            "pixel_opt": {"type": "BareLoss" if bare["loss"] else "ToyLoss"},
        },
        "val": {
            "val_freq": 2,
            "metrics": {"score": {"type": "bare_metric" if bare["metric"] else "toy_score", "better": "higher"}},
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2},
    }
    done = train(tmp_path, opt)
    assert done.returncode == 0, done.stderr
    scored = (tmp_path / "experiments/bare/visualization/held_out_scores.jsonl").read_text().splitlines()
    assert len(scored) == 4 and all(json.loads(line)["score"] < 0 for line in scored)
    assert sum("l_pix" in line for line in results(tmp_path, "bare")) == 2
