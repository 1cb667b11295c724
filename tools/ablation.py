"""Train several networks under one budget and compare them: a table in Markdown and a picture.

``python tools/ablation.py [FILE.yml ...] [--out results/ablation] [--force_yml a:b=v ...]``

Without files, those of options/underwater/ablation: Spectroformer, AGSSF1 and Phaseformer on degraded photographs, on a CPU.
Files must share their validation set; ``val.save_img`` must be on. The runs are ordinary ones, in experiments/. Time is the CPU
time of the training process, which other work on the machine does not lengthen.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import relume
from relume.archs import build_network
from relume.core import options
from relume.core.cli import script
from relume.core.errors import UserError, table_row
from relume.core.evaluation import INPUT, image_stem
from relume.core.experiment import Experiment
from relume.core.imaging.image_io import imread, imwrite
from relume.core.imaging.visual import grid
from relume.core.pipeline import train_pipeline
from relume.core.runtime.checkpoint import Checkpoints
from relume.datasets import build_dataset
from relume.datasets.loading.loader import build_eval_loader

FILES = Path(relume.__file__).resolve().parent / "options" / "underwater" / "ablation"


@dataclass(frozen=True)
class Run:
    """One finished training."""

    opt: Any
    scores: Mapping[str, float]
    cpu_minutes: float | None

    @property
    def label(self) -> str:
        """The network's name in options, with its variant."""
        return " ".join(filter(None, (self.opt.network_g.type, self.opt.network_g.get("variant"))))

    @property
    def parameters(self) -> int:
        """How many the network has."""
        return sum(p.numel() for p in build_network(self.opt.network_g).parameters())

    def picture(self, stem: str) -> Path:
        """The network's last output for a validation image."""
        root = Path(self.opt.path.experiments_root or "experiments") / self.opt.name / "visualization"
        folder = root / (self.opt.datasets.val.name or "val") / stem
        return folder / f"{stem}_{self.opt.train.total_iter}.png"


def load(paths: Sequence[Path], force_yml: Sequence[str]) -> list[Any]:
    """The options of all runs, so that a mistake in the last one shows before the first has been trained.

    Raises:
        UserError: a mistake in a file, outputs that are not saved, or runs that cannot be compared.
    """
    every = [options.load(path, force_yml) for path in paths]
    for path, opt in zip(paths, every, strict=True):
        if not opt.val.save_img:
            raise UserError(f"{path}: val.save_img must be on, for the picture")
        if "val" not in opt.datasets or opt.datasets.val != every[0].datasets.val:
            raise UserError(f"{path}: datasets.val must be there, and the same in all files")
        if opt.val.metrics != every[0].val.metrics:
            raise UserError(f"{path}: val.metrics must be the same in all files")
    if len({opt.name for opt in every}) < len(every):
        raise UserError("two of the files have the same name: they would write to the same folder")
    return every


def train(opt: Any) -> Run:
    """Run one experiment, or go on with it; the scores are of its first validation set. What is finished stays as it is."""
    fresh = not Checkpoints(Experiment(opt).root).iterations()
    began = time.process_time()
    results = train_pipeline(opt, auto_resume=True)
    minutes = (time.process_time() - began) / 60 if fresh else None  # those of the earlier part are not known
    return Run(opt, next(iter(results.values())), minutes)


def table(runs: Sequence[Run]) -> str:
    """One row for the degraded input, one for each network; columns are the metrics' names in the options."""
    metrics = list(runs[0].opt.val.metrics)
    rows = [["", "parameters", *metrics, "CPU minutes"], ["---", *["---:"] * (len(metrics) + 2)]]
    before = {m: runs[0].scores.get(f"{m}{INPUT}") for m in metrics}
    rows.append(["input", "", *(figure(before[m]) for m in metrics), ""])
    for run in runs:
        figures = [figure(run.scores.get(m)) for m in metrics]
        rows.append(
            [run.label, f"{run.parameters:,}", *figures, "" if run.cpu_minutes is None else f"{run.cpu_minutes:.1f}"]
        )
    return "\n".join(map(table_row, rows)) + "\n"


def figure(value: float | None) -> str:
    """A score with four digits."""
    return "" if value is None else f"{value:#.4g}"


def picture(runs: Sequence[Run], most: int, height: int) -> Any:
    """Input, each network's output and the target, `height` pixels high, a row for each of some validation images."""
    block = runs[0].opt.datasets.val
    dataset = build_dataset(block, phase="val", scale=runs[0].opt.scale)
    loader = build_eval_loader(dataset, seed=runs[0].opt.manual_seed)
    last = len(dataset) - 1
    shown = {round(k * last / max(most - 1, 1)) for k in range(most)}
    panels: list[Any] = []
    labels: list[str] = []
    for i, batch in enumerate(loader):
        if i not in shown:
            continue
        stem = image_stem(batch, i)
        panels += [batch["lq"][0], *(imread(run.picture(stem)) for run in runs), batch["gt"][0]]
        labels += ["input", *(run.label for run in runs), "target"]
    return grid(panels, len(runs) + 2, labels, height)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument(
        "files", nargs="*", type=Path, help="option files; those of options/underwater/ablation if none"
    )
    parser.add_argument("--out", default="results/ablation", help="writes OUT.md and OUT.jpg")
    parser.add_argument("--rows", type=int, default=4, help="validation images in the picture, at most")
    parser.add_argument("--height", type=int, default=144, help="height of each image in the picture, in pixels")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="a:b=v", help="overrides for all files")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: ``--rows`` or ``--height`` is not positive.
    """
    if arguments.rows < 1 or arguments.height < 1:
        raise UserError("--rows and --height must be positive")
    runs = [train(opt) for opt in load(arguments.files or sorted(FILES.glob("*.yml")), arguments.force_yml)]
    text = table(runs)
    out = Path(arguments.out)
    imwrite(out.with_suffix(".jpg"), picture(runs, arguments.rows, arguments.height))
    out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(f"{text}\nwritten: {out.with_suffix('.md')}, {out.with_suffix('.jpg')}")


if __name__ == "__main__":
    script(__file__, sys.modules[__name__])
