"""Pictures of trained interpolators: what each makes of held-out frames, and eight times slower motion.

``python tools/interpolation_pictures.py options/vfi/laptop/phase1.yml options/vfi/laptop/phase2.yml --out docs`` writes
``interpolation.jpg``, a row for each validation set (blend, each network, truth), and ``slow_motion.jpg``, seven frames
between two, found by the last network between frames that it has found before. Networks are the newest of each file's
experiment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from relume.core import options
from relume.core.cli import script
from relume.core.errors import UserError
from relume.core.imaging.image_io import imwrite
from relume.core.imaging.visual import grid, to_uint8
from relume.core.inference.halving import frame_at
from relume.core.load import load_model
from relume.core.metrics import calculate_metric
from relume.core.models.base import Batch, Model
from relume.datasets import build_dataset
from relume.datasets.loading.loader import build_eval_loader


@dataclass
class Trained:
    """One option file, and its network as it was last saved."""

    opt: Any
    model: Model

    @property
    def label(self) -> str:
        """The last word of the experiment's name."""
        return str(self.opt.name).split("_")[-1]


def trained(path: Path) -> Trained:
    """The newest weights of the experiment that `path` describes, averaged where there is an average.

    Raises:
        UserError: there are none.
    """
    opt = options.load(path)
    weights = Path(opt.path.experiments_root or "experiments") / opt.name / "models" / "net_g_latest.pth"
    return Trained(opt, load_model(weights, opt, device="cpu"))


def psnr(image: Tensor, truth: Tensor) -> float:
    """PSNR in dB of two images (1, 3, H, W), after rounding to 8 bits."""
    data = {"img": to_uint8(image[0]), "img2": to_uint8(truth[0])}
    return float(calculate_metric(data, {"type": "calculate_psnr"}))


def sample(opt: Any, phase: str, index: int) -> Batch:
    """One sample of a validation set, as a batch.

    Raises:
        UserError: there are not so many.
    """
    dataset = build_dataset(opt.datasets[phase], phase="val", scale=1)
    if not 0 <= index < len(dataset):
        raise UserError(f"--index {index}: {phase} has samples 0 to {len(dataset) - 1}")
    return next(batch for i, batch in enumerate(build_eval_loader(dataset, seed=opt.manual_seed)) if i == index)


def validation_sets(opt: Any) -> list[str]:
    """Keys of the blocks.

    Raises:
        UserError: there are none.
    """
    found = [phase for phase in opt.datasets if phase.startswith("val")]
    if not found:
        raise UserError("datasets: there is no `val` block to take frames from")
    return found


def held_out(runs: Sequence[Trained], index: int) -> Any:
    """A row for each validation set: blend, each network, truth, of its frame `index`."""
    panels: list[Tensor] = []
    labels: list[str] = []
    for phase in validation_sets(runs[-1].opt):
        batch = sample(runs[-1].opt, phase, index)
        blend = runs[-1].model.baselines(batch)["input"]
        outputs = [blend, *(run.model.predict(batch)["output"] for run in runs)]
        names = [f"{runs[-1].opt.datasets[phase].name or phase}: blend", *(run.label for run in runs)]
        panels += [*(o[0] for o in outputs), batch["gt"][0]]
        labels += [*(f"{n}, {psnr(o, batch['gt']):.1f} dB" for n, o in zip(names, outputs, strict=True)), "truth"]
    return grid(panels, len(runs) + 2, labels, 192)


def middle(model: Model, img0: Tensor, img1: Tensor) -> Tensor:
    """The frame half-way between two, all (1, 3, H, W)."""
    return model.predict({"img0": img0, "img1": img1, "timestep": torch.tensor([0.5])})["output"]


def slow_motion(run: Trained, index: int) -> Any:
    """Both frames of one sample of the last validation set, and seven between them."""
    batch = sample(run.opt, validation_sets(run.opt)[-1], index)
    made = {0.0: batch["img0"], 1.0: batch["img1"]}
    frames = [frame_at(k / 8, partial(middle, run.model), made) for k in range(9)]
    labels = ["frame 0", *(f"{k}/8" for k in range(1, 8)), "frame 1"]
    return grid([f[0] for f in frames], len(frames), labels, 144)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("files", nargs="+", type=Path, help="option files, whose experiments are in this folder")
    parser.add_argument("--out", type=Path, default=Path("results/interpolation"), help="folder of the pictures")
    parser.add_argument("--index", type=int, default=0, help="which frame of every validation set")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    torch.manual_seed(0)
    runs = [trained(path) for path in arguments.files]
    with torch.no_grad():
        imwrite(arguments.out / "interpolation.jpg", held_out(runs, arguments.index))
        imwrite(arguments.out / "slow_motion.jpg", slow_motion(runs[-1], arguments.index))
    print(f"written: {arguments.out / 'interpolation.jpg'}, {arguments.out / 'slow_motion.jpg'}")


if __name__ == "__main__":
    script(__file__, sys.modules[__name__])
