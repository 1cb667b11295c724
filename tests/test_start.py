"""What a training has imported when it ends: nothing that takes seconds and is not used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from runs import REPO

from relume.core.imaging.image_io import imwrite

HEAVY = (
    *("torch._dynamo", "torch._inductor", "torch.onnx", "torch.distributed.tensor", "sympy", "triton", "torchvision"),
    *(
        "tensorboard",
        "matplotlib",
        "skimage",
        "scipy",
        "pandas",
        "spandrel",
        "timm",
        "torchmetrics",
        "PIL",
        "onnxruntime",
    ),
)
NAMED = ("archs.msrresnet", "losses.pixel", "core.models.restoration")
"""What the options here name; of the same families they do not name the following."""
OTHERS = (
    *(
        "archs.edm_unet",
        "archs.vfi",
        "archs.zoo.table",
        "losses.perceptual",
        "losses.ot",
        "datasets.clips",
        "schedulers.linear",
    ),
    *("core.metrics.niqe", "core.models.diffir", "core.features", "core.runtime.optimizers.muon"),
)
RUN = f"""
import sys
import torch
before = set(sys.modules)
sys.path.insert(0, {str(REPO)!r})
from relume.core.cli import main
code = main(["train", "-opt", "run.yml", *sys.argv[1:]])
print("\\nNEW", *sorted(set(sys.modules) - before))
sys.exit(code)
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("arguments", "most"), [(["--check"], 140), ([], 190)])
def test_nothing_is_imported_in_vain(arguments: list[str], most: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for which, side in (("lq", 16), ("gt", 32)):
        imwrite(tmp_path / which / "0.png", rng.integers(0, 255, (side, side, 3), np.uint8, True))
    options = {
        "name": "start",
        "model_type": "RestorationModel",
        "num_gpu": 0,
        "scale": 2,
        "datasets": {
            "train": {
                "type": "PairedImageDataset",
                "dataroot_lq": str(tmp_path / "lq"),
                "dataroot_gt": str(tmp_path / "gt"),
                "gt_size": 16,
                "num_worker_per_gpu": 0,
            }
        },
        "network_g": {"type": "MSRResNet", "num_feat": 4, "num_block": 1, "upscale": 2},
        "train": {"total_iter": 1, "optim_g": {"type": "Adam", "lr": 1e-4}, "pixel_opt": {"type": "L1Loss"}},
    }
    (tmp_path / "run.yml").write_text(json.dumps(options))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    new = set(done.stdout.rpartition("\nNEW ")[2].split())
    assert sorted(new & set(HEAVY)) == []
    ours = {name.removeprefix("relume.") for name in new if name.partition(".")[0] == "relume"}
    assert set(NAMED) <= ours and not ours & set(OTHERS)
    assert 50 < len(ours) < most
