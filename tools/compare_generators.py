"""Train generators under one budget and compare them: a Markdown table of scores before and after, a picture of samples.

``python tools/compare_generators.py FILE.yml ... [--out results/generators] [--force_yml a:b=v ...]``

Files must share their validation set and metrics, which are of whole sets (KID); ``val.save_grid`` must be on. The runs are
ordinary ones, in experiments/. Scores at the start are of the weights that training begins with. Time is the CPU time of
training, which other work on the machine does not lengthen.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relume.core import options
from relume.core.cli import script
from relume.core.errors import UserError, table_row
from relume.core.imaging.image_io import imread, imwrite
from relume.core.imaging.visual import grid
from relume.core.pipeline import test_pipeline, train_pipeline

Scores = Mapping[str, float]


def load(paths: Sequence[Path], force_yml: Sequence[str]) -> list[Any]:
    """The options of all runs.

    Raises:
        UserError: a mistake in a file, or runs that cannot be compared.
    """
    every = [options.load(path, force_yml) for path in paths]
    for path, opt in zip(paths, every, strict=True):
        if not opt.val.save_grid:
            raise UserError(f"{path}: val.save_grid must be on, for the picture")
        if "val" not in opt.datasets or opt.datasets.val != every[0].datasets.val:
            raise UserError(f"{path}: datasets.val must be there, and the same in all files")
        if not opt.val.metrics or opt.val.metrics != every[0].val.metrics:
            raise UserError(f"{path}: val.metrics must be there, and the same in all files")
    if len({opt.name for opt in every}) < len(every):
        raise UserError("two of the files have the same name: they would write to the same folder")
    return every


def table(rows: Mapping[str, tuple[Scores, float | None]], metrics: Sequence[str]) -> str:
    """Markdown: one row for each name, its scores and CPU minutes."""
    lines = [["", *metrics, "CPU minutes"], ["---", *["---:"] * (len(metrics) + 1)]]
    for name, (scores, minutes) in rows.items():
        lines.append([name, *(f"{scores[m]:#.3g}" for m in metrics), "" if minutes is None else f"{minutes:.1f}"])
    return "\n".join(map(table_row, lines)) + "\n"


def grid_of(opt: Any) -> Path:
    """The picture of a run's last samples."""
    root = Path(opt.path.experiments_root or "experiments") / opt.name / "visualization"
    folder = root / (opt.datasets.val.name or "val")
    return folder / f"grid_{opt.train.total_iter}.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("files", nargs="+", type=Path, help="option files")
    parser.add_argument("--out", default="results/generators", help="writes OUT.md and OUT.png")
    parser.add_argument("--height", type=int, default=480, help="largest height of each grid in the picture")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="a:b=v", help="override options in all files")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    every = load(arguments.files, arguments.force_yml)
    start = next(iter(test_pipeline(every[0], random_weights=True).values()))
    rows: dict[str, tuple[Scores, float | None]] = {"at the start": (start, None)}
    for opt in every:
        began = time.process_time()
        results = train_pipeline(opt)
        rows[opt.name] = next(iter(results.values())), (time.process_time() - began) / 60
    text = table(rows, list(every[0].val.metrics))
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text(text)
    grids = {opt.name: imread(grid_of(opt)) for opt in every}
    height = next(iter(grids.values())).shape[0]
    scale = max(1, arguments.height // height)  # whole numbers repeat pixels, so that they are seen as they are
    imwrite(out.with_suffix(".png"), grid(list(grids.values()), len(grids), list(grids), height * scale))
    print(text)
    print(f"{out.with_suffix('.md')}, {out.with_suffix('.png')}")


if __name__ == "__main__":
    script(__file__, sys.modules[__name__])
