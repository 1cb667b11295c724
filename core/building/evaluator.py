"""The evaluator of the validation and test sets of the options."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import torch

from ...datasets import build_dataset
from ...datasets.base import DatasetTraits, Rounding
from ...datasets.loading.loader import EvalLoader, build_eval_loader
from ...datasets.loading.options import Loader
from ..annotations import declared
from ..errors import UserError
from ..evaluation import Evaluator
from ..imaging.transfer import Transfer
from ..inference.tiling import size_multiple
from ..models.base import Model
from ..options.schema import Options
from ..runtime import distributed, precision, progress, threads
from ..runtime.gate import gate
from .machine import seed_of

log = logging.getLogger("relume")


def build_evaluator(
    opt: Options,
    sets: Mapping[str, Loader],
    folder: Path,
    device: torch.device,
    cleanup: contextlib.ExitStack,
    *,
    for_training: bool,
) -> Evaluator:
    """The evaluator of some dataset blocks, its loaders sharing the images out over ranks; `cleanup` closes them.

    Raises:
        UserError: two datasets have the same name, so that their results would mix.
    """
    # The datasets: what each says of its images, and a loader of this rank's share.
    loaders: dict[str, EvalLoader] = {}
    transfers: dict[str, Transfer] = {}
    rounding: dict[str, Rounding] = {}
    sharded = for_training and opt.train is not None and opt.train.strategy == "fsdp"
    for phase, block in sets.items():
        name = block.name or phase
        if name in loaders:
            raise UserError(f"datasets.{phase}: another dataset is called '{name}' too; give each a `name` of its own")
        with gate(f"datasets.{phase}", block.also(scale=opt.scale)):
            dataset = build_dataset(block, phase=phase.split("_")[0], scale=opt.scale)
        if (transfer := declared(dataset, "transfer", DatasetTraits)) is not None:
            transfers[name] = transfer
        if (rounds := declared(dataset, "score_rounding", DatasetTraits)) is not None:
            rounding[name] = rounds
        with gate(f"datasets.{phase}", block):
            threads.refuse_too_many("num_worker_per_gpu", block.num_worker_per_gpu)
            loaders[name] = build_eval_loader(
                dataset,
                seed=seed_of(opt),
                rank=distributed.rank(),
                world=distributed.world_size(),
                workers=block.num_worker_per_gpu,
                batch=block.batch_size_per_gpu,
                even=sharded,
                timeout=block.timeout,
            )
            if for_training or distributed.world_size() > 1:
                loaders[name].start()
                cleanup.callback(loaders[name].close)
    # The evaluator over all of them; in training, images carry the iteration instead of the run's suffix.
    suffix = opt.val.suffix or opt.name

    def image_name(dataset: str, image: str, iteration: int) -> str:
        return f"{image}/{image}_{iteration}.png" if for_training else f"{image}_{suffix}.png"

    with gate("val"):
        return Evaluator(
            loaders=loaders,
            metrics=opt.val.metrics,
            folder=folder,
            device=device,
            image_name=image_name,
            save_images=opt.val.save_img,
            save_comparisons=opt.val.save_comparison,
            save_grid=opt.val.save_grid,
            best_metric=opt.val.chosen.metric,
            score_input=opt.val.score_input,
            eight_bit=opt.val.use_image,
            rounding=rounding,
            transfers=transfers,
            linear_format=opt.val.linear_format,
            pictures=opt.val.num_pictures,
            forgiving=for_training,
            progress=progress.progress if opt.val.pbar else None,
        )


def conditions(model: Model, device: torch.device, amp: str = "off") -> str:
    """On what device, in which precision and with which settings of inference scores are computed, in words."""
    settings = {name: getattr(model, name) for name in model.inference_options if hasattr(model, name)}
    sizes = [size_multiple(network) for network in model.networks.values()]
    multiple = math.lcm(*sizes, model.inference.window_size or 1)
    padding = f"{model.inference.padding} to height and width that are multiples of {multiple}"
    settings["padding"] = padding if multiple > 1 else None
    settings["tile"] = model.inference.tile
    return f"{device}, {precision.in_words(amp)}, " + ", ".join(
        f"{name} {value}" for name, value in settings.items() if value is not None
    )
