"""Components that inherit from nothing of Relume's train: those of docs/own_components.md, and the barest possible."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from runs import REPO, forked, train

from relume.core import cli
from relume.core.imaging.image_io import imwrite

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


def write_files(folder: Path) -> None:
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")


def write_masked_pairs(folder: Path) -> None:
    """Four pairs for training and two for validation with their masks, where the page's option file looks for them."""
    rng = np.random.RandomState(0)
    for part, count in (("train", 4), ("val", 2)):
        for i in range(count):
            gt = rng.randint(0, 256, (40, 45, 3), np.uint8)
            mask = np.zeros((40, 45, 1), np.uint8)
            mask[5 * i + 3 : 5 * i + 20, 7:30] = 255
            for kind, image in (("lq", gt * (mask == 0)), ("gt", gt), ("mask", mask)):
                imwrite(folder / f"data/{part}/{kind}/{i}.png", image)


def test_the_page_trains_and_tests_pictures_with_a_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    write_masked_pairs(tmp_path)
    shorter = ["train:total_iter=2", "train:scheduler:hold=1", "val:val_freq=2"]
    assert cli.main(["train", "-opt", "masks.yml", "--force_yml", *shorter]) == 0
    (scores,) = [line["metrics"] for line in results(tmp_path, "masks") if "metrics" in line]
    opt = yaml.safe_load((tmp_path / "experiments/masks/masks.yml").read_text())
    weights = "experiments/masks/models/net_g_2.pth"
    alone = {k: opt[k] for k in ("model_type", "num_gpu", "plugins", "network_g")}
    alone |= {"name": "alone", "path": {"pretrain_network_g": weights}, "datasets": {"val": opt["datasets"]["val"]}}
    alone["val"] = {"inputs": ["lq", "mask"], "metrics": {"psnr": opt["val"]["metrics"]["psnr"]}}
    (tmp_path / "alone.yml").write_text(yaml.safe_dump(alone), encoding="utf-8")
    assert cli.main(["test", "-opt", "alone.yml"]) == 0
    found = [
        json.loads(line) for line in Path("results/alone/visualization/held_out_scores.jsonl").read_text().splitlines()
    ]
    assert np.mean([line["psnr"] for line in found]) == pytest.approx(scores["psnr"], abs=1e-3)


def test_the_page_trains_with_all_its_components_from_one_option_file(tmp_path: Path) -> None:
    assert len(FILES) == 9
    write_files(tmp_path)
    shorter = ["train:total_iter=2", "train:scheduler:hold=1", "val:val_freq=2", "logger:print_freq=1"]
    done = forked([str(REPO / "train.py"), "-opt", "own.yml", "--force_yml", *shorter], tmp_path, [os.environ])
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
    data["num_worker_per_gpu"] = 2 if part == "all" else 0
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
