"""Score trained HDR networks beside what needs no network, on one validation set: a table in Markdown and a picture.

``python tools/compare_hdr.py [FILE.yml ...] [--out results/hdr] [--force_yml a:b=v ...]``

Files are for test.py, and share their validation set, a `SyntheticHDRDataset`; without any, they are those of the narrow
stage 2 and its teacher in options/hdr/small, once trained. In the picture, the first file's network stands beside what its
input says under the same exposure, which is set by the brightest of the target: there one sees what a clipped picture lost.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import relume
from relume.core import options
from relume.core.building.evaluator import build_evaluator
from relume.core.cli import script
from relume.core.errors import UserError, table_row
from relume.core.imaging.image_io import imwrite
from relume.core.imaging.srgb import to_srgb
from relume.core.imaging.visual import grid
from relume.core.load import load_model
from relume.core.models.base import Batch, Model
from relume.core.runtime import logger
from relume.datasets import build_dataset
from relume.datasets.hdr_scenes import SyntheticHDRDataset
from relume.datasets.loading.loader import build_eval_loader

FILES = [Path(relume.__file__).resolve().parent / f"options/hdr/small/{name}.yml" for name in ("test", "test_s1")]
BASELINES: dict[str, dict[str, Any]] = {
    "the picture as it is": {"gamma": 1.0},
    "inverse gamma, guessed gain": {"dgain": None, "estimate_dgain": True},
    "inverse gamma": {},
}
"""What is known of the camera, over the options of the first file's validation set."""
LABELS = {"DiffIRS1Model": "DiffIR stage 1, which sees the target", "DiffIRS2Model": "DiffIR stage 2"}
WHITE = 99.5
"""Percentile of the target that is just white in the picture."""

Scores = Mapping[str, float]


class Input(Model):
    """Answers with its input."""

    required_networks = ()

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        return {"output": batch["lq"]}


def scores(opt: Any, model: Model, changes: Mapping[str, Any]) -> Scores:
    """Mean scores of a model on the validation set of a file, `changes` in its options."""
    values = opt.to_dict()
    values["datasets"] = {"val": {**values["datasets"]["val"], **changes}}
    values["val"] = {**values["val"], "save_img": False, "score_input": False}
    plain = options.check(values)
    with contextlib.ExitStack() as cleanup, torch.no_grad():
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))  # scores of single images go there
        evaluator = build_evaluator(plain, plain.datasets, folder, torch.device("cpu"), cleanup, for_training=False)
        (found,) = evaluator.run(model, 0).values()
    return found


def trained(opt: Any) -> Model:
    """The model of a file for test.py, with its weights.

    Raises:
        UserError: the file names none, or they are not there.
    """
    if not opt.path.get("pretrain_network_g"):
        raise UserError(f"{opt.name}: path.pretrain_network_g names no weights; this is for files of test.py")
    return load_model(opt, device="cpu")


def table(rows: Mapping[str, Scores]) -> str:
    """A row for each method; columns are the metrics' names in the options."""
    metrics = list(next(iter(rows.values())))
    lines = [["", *metrics], ["---", *["---:"] * len(metrics)]]
    lines += [[label, *(f"{found[m]:#.4g}" for m in metrics)] for label, found in rows.items()]
    return "\n".join(map(table_row, lines)) + "\n"


@torch.no_grad()
def picture(opt: Any, model: Model, shown: Sequence[int], height: int) -> np.ndarray:
    """Picture, what inverse gamma makes of it, the network's output and the target, a row for each of some images."""
    dataset = build_dataset(opt.datasets.val, phase="val", scale=opt.scale)
    panels: list[np.ndarray] = []
    for i, batch in enumerate(build_eval_loader(dataset, seed=opt.manual_seed)):
        if i not in shown:
            continue
        encoded = (batch["lq"], model.predict(batch)["output"], batch["gt"])
        linear = [dataset.transfer.decode(e[0].permute(1, 2, 0).numpy()) for e in encoded]
        white = np.percentile(linear[-1].max(axis=2), WHITE)
        panels.append(dataset.shot(i)[0].picture)
        panels += [np.rint(255 * to_srgb(np.clip(x / white, 0, 1))).astype(np.uint8) for x in linear]
    return grid(panels, 4, ["picture", "inverse gamma", "stage 2", "target"] * len(shown), height)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument(
        "files", nargs="*", type=Path, help="option files of test.py; those of options/hdr/small if none"
    )
    parser.add_argument("--out", default="results/hdr", help="writes OUT.md and OUT.jpg")
    parser.add_argument("--show", nargs="+", type=int, default=[1, 0], help="images of the set that the picture shows")
    parser.add_argument("--height", type=int, default=192, help="height of each image in the picture, in pixels")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="a:b=v", help="overrides for all files")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: the validation set is not synthetic.
    """
    logger.start_console()
    out = Path(arguments.out)
    opts = [options.load(path, arguments.force_yml) for path in arguments.files or FILES]
    if opts[0].datasets.val.type != SyntheticHDRDataset.__name__:
        raise UserError(f"datasets.val: this is for {SyntheticHDRDataset.__name__}, whose cameras are known")
    models = [trained(opt) for opt in opts]
    rows = {k: scores(opts[0], Input({}, {}), changes) for k, changes in BASELINES.items()}
    for opt, model in zip(opts, models, strict=True):
        rows[LABELS.get(opt.model_type, opt.name)] = scores(opt, model, {})
    text = table(rows)
    imwrite(out.with_suffix(".jpg"), picture(opts[0], models[0], arguments.show, arguments.height))
    out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(f"{text}\nwritten: {out.with_suffix('.md')}, {out.with_suffix('.jpg')}")


if __name__ == "__main__":
    script(__file__, sys.modules[__name__])
