"""A rehearsal of a training: two steps, one validation picture and a checkpoint, then what the whole of it will take."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ...datasets.base import ImageDataset
from .. import options
from ..building.footprint import USABLE
from ..building.machine import with_seed
from ..building.weights import refuse_missing
from ..errors import UserError, in_one_line, listing
from ..experiment import Experiment
from ..inference.network import explaining_channels
from ..ops import dispatch
from ..options import Options, counts
from ..options.places import missing
from ..pipeline import build_trainer, build_training_set
from ..runtime import distributed, logger
from ..runtime.logger import WITHOUT_TRACKERS
from ..runtime.signals import StopRequest
from ..runtime.state import held_memory_gib, peak_memory_gib, whole_memory_gib
from ..trainer import Trainer

STEPS = 2
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "scikit-image",
    "triton",
    "mamba-ssm",
)
READING = 5.0
"""Seconds at most in which samples of a set are tried."""
Row = tuple[str, str]


def dry_run(opt: Options, launcher: str = "none") -> None:
    """Rehearse a training and print a table; nothing is left behind.

    Raises:
        UserError: what would end the training at its beginning.
    """
    if opt.train is None or "train" not in opt.datasets:
        raise UserError("--dry_run rehearses a training, for which `train` and datasets.train are needed")
    with (
        distributed.joined(launcher, opt.dist_params, opt.num_gpu == 0, kind=opt.device) as device,
        contextlib.ExitStack() as cleanup,
    ):
        logger.start_console()
        remarks = cleanup.enter_context(noted())
        folder = None
        # The report.
        if distributed.is_main():
            folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="relume_dry_run_"))
        # The training as it would be built, in a temporary folder, with stand-ins for absent files.
        opt, absent = rehearsed(opt, str(distributed.broadcast(folder)))
        refuse_missing(opt, ("train", "val"))
        opt = with_seed(opt, None)
        dataset = build_training_set(opt)
        opt = counts.resolved(opt, counts.length_of(dataset), distributed.world_size())
        assert opt.train is not None
        experiment = Experiment(opt)
        trainer = build_trainer(opt, opt.train, dataset, experiment, None, device, cleanup, StopRequest())
        # A few steps and one validation picture.
        trainer.until = STEPS
        for loader in trainer.parts.evaluator.loaders.values():
            loader.limit(1)
        before = held_memory_gib(device)
        with explaining_channels():
            trainer.fit()
        if distributed.is_main():
            steps = [json.loads(line) for line in (experiment.root / "metrics.jsonl").read_text().splitlines()]
            rows = [*of_machine(device), *of_data(trainer, dataset), *of_memory(opt, device, before)]
            rows += [*of_time(opt, trainer, [s for s in steps if "metrics" not in s][-1]), *of_disk(opt, experiment)]
            rows += [("note", text) for text in (*absent, *remarks)]
            print(table(rows), flush=True)


def rehearsed(opt: Options, folder: str) -> tuple[Options, list[str]]:
    """The options of a rehearsal in a folder, and which weights it does without because they are not here."""
    values = opt.to_dict()
    values["path"]["experiments_root"] = folder
    absent = missing(opt, ("none",))
    for key, value in list(values["path"].items()):
        if any(line.endswith(f"(path.{key})") for line in absent):
            del values["path"][key]
        elif key == "resume_state" and value:
            values["path"][key] = None
    values["logger"].update(print_freq=1, train_image_freq=None, **WITHOUT_TRACKERS)
    return options.check(values), [f"{line}: rehearsed with random weights" for line in absent]


@contextlib.contextmanager
def noted() -> Iterator[list[str]]:
    """The warnings that are logged inside."""
    found: list[str] = []

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    log = logging.getLogger("relume")
    handler = Notes(logging.WARNING)
    log.addHandler(handler)
    try:
        yield found
    finally:
        log.removeHandler(handler)


def of_machine(device: torch.device) -> Iterator[Row]:
    """Packages, device, kernels."""
    versions = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    yield "packages", ", ".join(versions)
    what = str(device)
    if device.type == "cuda":
        what += f", {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    elif not torch.cuda.is_available():
        what += ", no GPU is seen"
    yield "device", f"{what}, {whole_memory_gib(device):.1f} GiB; {distributed.world_size()} rank(s)"
    yield "kernels", dispatch.decisions() or "none that this training would use"


def of_data(trainer: Trainer, dataset: Any) -> Iterator[Row]:
    """How many images were found, and which of them cannot be read."""
    skipping = isinstance(dataset, ImageDataset) and dataset.on_error == "skip"
    yield (
        "training images",
        read_well(dataset, None if skipping else "end the training (on_error: skip leaves them out)"),
    )
    for name, loader in trainer.parts.evaluator.loaders.items():
        yield f"images of {name}", read_well(loader.dataset)


def read_well(dataset: Any, otherwise: str | None = None) -> str:
    """How many samples there are; of those that could be read in some seconds, how many could not, and why.

    Args:
        otherwise: what those do, if they are not skipped.
    """
    tried, reasons = 0, list[str]()
    began = time.monotonic()
    for index in torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist():
        if tried and time.monotonic() - began > READING:
            break
        tried += 1
        try:
            dataset.load(index) if isinstance(dataset, ImageDataset) else dataset[index]
        except Exception as e:  # a data set may be anybody's code
            reasons.append(in_one_line(e))
    of_them = "all" if tried == len(dataset) else f"{tried:,} of them, drawn at random,"
    what = f"{len(reasons):,} skipped" if not (otherwise and reasons) else f"{len(reasons):,} would {otherwise}"
    return f"{len(dataset):,} found, {of_them} tried: {what}{': ' if reasons else ''}{listing(reasons)}"


def of_memory(opt: Options, device: torch.device, before: float) -> Iterator[Row]:
    """What a step needs at this batch, and the largest batch that would fit.

    What a sample needs is what a step needs beyond what was held before it, averages and optimizer's memory aside, which the
    first step brings: a little less than so estimated.
    """
    batch = max([opt.datasets["train"].batch_size_per_gpu, *(opt.datasets["train"].mini_batch_sizes or [])])
    peak, whole = peak_memory_gib(device), whole_memory_gib(device)
    now = f"{before:.2f} GiB before the first step"
    yield "memory", f"{peak:.2f} GiB at most, with {batch} sample(s) per rank and micro-batch; {now}"
    a_sample = (peak - before) / batch
    if a_sample > 0.001 and whole > 0:
        largest = max(int((USABLE * whole - before) / a_sample), 0)
        yield (
            "largest batch",
            f"about {largest} per rank would fit into {whole:.1f} GiB (train.accumulate makes up for less)",
        )
    else:
        yield "largest batch", "a step needs too little memory to tell"


def of_time(opt: Options, trainer: Trainer, step: Mapping[str, Any]) -> Iterator[Row]:
    """What a step takes, and the whole run."""
    train, val = opt.train, opt.val
    assert train is not None
    seconds = step["perf/time"]
    yield (
        "time",
        f"{seconds:.3f} s a step, of which {step['perf/data_time']:.3f} s waiting for data (the second of two)",
    )
    evaluations = train.total_iter // val.val_freq if val.val_freq else 1
    scoring = 0.0
    for name, loader in trainer.parts.evaluator.loaders.items():
        scoring += trainer.parts.evaluator.seconds.get(name, 0.0) * loader.images / distributed.world_size()
    hours = (train.total_iter * seconds + evaluations * scoring) / 3600
    steps = f"{train.total_iter:,} iterations ({trainer.parts.loader.position_after(train.total_iter):,} samples)"
    yield "whole run", f"about {hours:,.1f} h: {steps}, {evaluations} validation(s) of {scoring:.0f} s"


def of_disk(opt: Options, experiment: Experiment) -> Iterator[Row]:
    """What checkpoints take."""
    train = opt.train
    assert train is not None
    sizes = {p.name: p.stat().st_size for p in experiment.root.rglob("*") if p.is_file() and not p.is_symlink()}
    one = sum(size for name, size in sizes.items() if name.endswith((f"_{STEPS}.pth", f"{STEPS}.state")))
    best = sum(size for name, size in sizes.items() if name.endswith("_best.pth"))
    written = -(-train.total_iter // opt.logger.save_checkpoint_freq)
    kept = min(opt.logger.keep_checkpoints or written, written)
    yield (
        "disk",
        f"{(kept * one + best) / 2**30:.2f} GiB: {kept} checkpoint(s) of {one / 2**20:.1f} MiB, and the best weights",
    )


def table(rows: list[Row]) -> str:
    """Two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)
