"""Pictures of trained interpolators: what each makes of held-out frames, and eight times slower motion.

``python tools/interpolation_pictures.py options/vfi/laptop/phase1.yml options/vfi/laptop/phase2.yml --out docs`` writes
``interpolation.png``, a row for each validation set (blend, each network, truth), and ``slow_motion.png``, seven frames
between two, found by the last network between frames that it has found before. Networks are the newest of each file's
experiment. With ``--stereo`` also ``stereo.png``: the view between the two of a real camera pair.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts this folder on sys.path; its list.py must not shadow anything.
sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relume.core import options
from relume.core.errors import UserError, require
from relume.core.halving import frame_at
from relume.core.image_io import imread, imwrite, to_float
from relume.core.metrics import calculate_metric
from relume.core.models.base import Batch, Model
from relume.core.pipeline import build_model
from relume.core.visual import grid, to_uint8
from relume.datasets import build_dataset
from relume.datasets.loader import build_eval_loader


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
    opt = options.load(path).to_dict()
    weights = Path(opt["path"]["experiments_root"] or "experiments") / opt["name"] / "models" / "net_g_latest.pth"
    key = "params_ema" if opt["train"]["ema_decay"] > 0 else "params"
    opt["path"] = {**opt["path"], "pretrain_network_g": str(weights), "param_key_g": key, "grow_network_g": False}
    checked = options.check(opt)
    model, networks = build_model(checked, torch.device("cpu"), for_training=False)
    for network in networks.values():
        network.eval()
    return Trained(checked, model)


def psnr(image: Tensor, truth: Tensor) -> float:
    """Of 8-bit images, in dB."""
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
    """The frame half-way between two."""
    return model.predict({"img0": img0, "img1": img1, "timestep": torch.tensor([0.5])})["output"]


def slow_motion(run: Trained, index: int) -> Any:
    """Both frames of one sample of the last validation set, and seven between them."""
    batch = sample(run.opt, validation_sets(run.opt)[-1], index)
    made = {0.0: batch["img0"], 1.0: batch["img1"]}
    frames = [frame_at(k / 8, partial(middle, run.model), made) for k in range(9)]
    labels = ["frame 0", *(f"{k}/8" for k in range(1, 8)), "frame 1"]
    return grid([f[0] for f in frames], len(frames), labels, 144)


REDUCTION = 4
"""Of the stereo pair's sides, after which things are 2 to 15 pixels apart."""


def stereo_pair() -> tuple[Batch, Tensor]:
    """The photographs of a motorcycle from two places that come with scikit-image, and what is known of the view half-way.

    The pair's measured disparity says where each pixel of the left view is in the right one, and half of it where it is
    half-way; nearer things hide farther ones.

    Returns:
        a batch whose ``gt`` is the left view's pixels moved there, and which of its pixels are known, (1, 1, H, W).
    """
    skimage = require("skimage", "--stereo", "pip install scikit-image")
    folder = Path(skimage.__path__[0]) / "data"
    left, right = (to_float(imread(folder / f"motorcycle_{side}.png")) for side in ("left", "right"))
    disparity = np.load(folder / "motorcycle_disp.npz", allow_pickle=False)["arr_0"]
    rows, columns = np.nonzero(np.isfinite(disparity))
    apart = disparity[rows, columns]
    order = np.argsort(apart)  # the nearest last, which stays
    rows, columns = rows[order], columns[order]
    places = np.round(columns - apart[order] / 2).astype(int)
    inside = places >= 0
    middle, known = np.zeros_like(left), np.zeros(disparity.shape, np.float32)
    middle[rows[inside], places[inside]] = left[rows[inside], columns[inside]]
    known[rows[inside], places[inside]] = 1

    def reduced(image: np.ndarray) -> Tensor:
        planes = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1)))[None]
        return torch.nn.functional.avg_pool2d(planes, REDUCTION)

    share = reduced(known)
    truth = reduced(middle) / share.clamp_min(1e-6)
    batch = {"img0": reduced(left), "img1": reduced(right), "gt": truth, "timestep": torch.tensor([0.5])}
    return batch, share > 0.75


def stereo(runs: Sequence[Trained]) -> Any:
    """Left view, blend, each network's view half-way, right view; scores are of the pixels whose place is known."""
    batch, known = stereo_pair()

    def score(image: Tensor) -> float:
        error = (image.clamp(0, 1) * 255).round() - (batch["gt"] * 255).round()
        return float(10 * torch.log10(255**2 / error.square()[known.expand_as(error)].mean()))

    outputs = [runs[-1].model.baselines(batch)["input"], *(run.model.predict(batch)["output"] for run in runs)]
    names = ["blend", *(run.label for run in runs)]
    labels = ["left", *(f"{n}, {score(o):.1f} dB" for n, o in zip(names, outputs, strict=True)), "right"]
    return grid([batch["img0"][0], *(o[0] for o in outputs), batch["img1"][0]], len(labels), labels, 248)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="option files, whose experiments are in this folder")
    parser.add_argument("--out", type=Path, default=Path("results/interpolation"), help="folder of the pictures")
    parser.add_argument("--stereo", action="store_true", help="also the real stereo pair that comes with scikit-image")
    parser.add_argument("--index", type=int, default=0, help="which frame of every validation set")
    arguments = parser.parse_args(argv)
    torch.manual_seed(0)
    try:
        runs = [trained(path) for path in arguments.files]
        with torch.no_grad():
            imwrite(arguments.out / "interpolation.png", held_out(runs, arguments.index))
            imwrite(arguments.out / "slow_motion.png", slow_motion(runs[-1], arguments.index))
            if arguments.stereo:
                imwrite(arguments.out / "stereo.png", stereo(runs))
    except UserError as e:
        print(e, file=sys.stderr)
        return e.code
    names = ("interpolation", "slow_motion", *(("stereo",) if arguments.stereo else ()))
    print("written:", *(arguments.out / f"{name}.png" for name in names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
