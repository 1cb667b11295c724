"""Generate images with a trained one-step generator.

``relume sample -opt FILE.yml --weights net_g_latest.pth --out samples [--seeds 0-63] [--steps 1 2 4] [--label 3]``

Image i is made from the noise of seed i, whatever else is asked for, on however many ranks; with the same batch size, ranks
give the same files bit by bit. ``--out`` is a folder for PNG files, or a ``.npz`` file for arrays; with several ``--steps``,
each has its own, named ``steps_<n>``. ``--grid`` also puts the first images into one picture. To share the work out:
``torchrun --nproc_per_node=4 -m relume sample ... --launcher pytorch``.
"""

from __future__ import annotations

import argparse
import io
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from ..imaging import visual
from ..imaging.image_io import imwrite
from ..imaging.storage import write_bytes
from ..load import load_model
from ..models.base import Model
from ..runtime import distributed, logger
from ._arguments import add_model, named

RUNS = True


def seeds_of(text: str) -> list[int]:
    """Seeds from a list of numbers and ranges, ascending, each once.

    >>> seeds_of("0-3,7,2")
    [0, 1, 2, 3, 7]

    Raises:
        UserError: it is no such list.
    """
    seeds: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UserError(f"--seeds: '{part}' is neither a number nor a range; write 0-63 or 1,5,8-11")
        seeds.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(seeds)


def build(file: str | None, weights: str | None, use_raw: bool, device: torch.device) -> Model:
    """The model of an option file, of weights, or of both, ready to generate.

    Raises:
        UserError: no weights, or a model of another task.
    """
    model = load_model(*named(file, weights), param_key="params" if use_raw else None, device=device)
    if not hasattr(model, "steps"):
        kind = type(model).__name__
        raise UserError(f"{file or weights}: {kind} does not generate images from noise; GenerationModel does")
    return model


@torch.no_grad()
def generate(
    model: Any, seeds: Sequence[int], label: int | None, batch: int, device: torch.device
) -> Iterator[tuple[int, np.ndarray]]:
    """Seed and image, (H, W, 3) uint8, of this rank's share of the seeds.

    Every batch is full, the last one with repetitions: kernels are chosen by the batch's size, and round differently.
    """
    mine = seeds[distributed.rank() :: distributed.world_size()]
    for start in range(0, len(mine), batch):
        part = mine[start : start + batch]
        full = [part[i % len(part)] for i in range(batch)]
        data = {"seed": torch.tensor(full, device=device)}
        if label is not None:
            data["label"] = torch.full_like(data["seed"], label)
        images = visual.to_uint8(model.predict(data)["output"])
        yield from zip(part, images, strict=False)


def folder_for(out: Path, steps: int, several: bool) -> Path:
    """Where the samples with so many steps go."""
    if not several:
        return out
    return out.with_name(f"{out.stem}_steps_{steps}.npz") if out.suffix == ".npz" else out / f"steps_{steps}"


def write(out: Path, images: Iterator[tuple[int, np.ndarray]], shown: set[int]) -> dict[int, np.ndarray]:
    """File the images; those to be `shown` (seeds), of all ranks."""
    if out.suffix != ".npz":
        kept = {}
        for seed, image in images:
            imwrite(out / f"{seed:06d}.png", image)
            if seed in shown:
                kept[seed] = image
        return {seed: image for share in distributed.gather(kept) for seed, image in share.items()}
    every = {seed: image for share in distributed.gather(dict(images)) for seed, image in share.items()}
    if distributed.is_main():
        buffer = io.BytesIO()
        order = sorted(every)
        np.savez(buffer, images=np.stack([every[s] for s in order]), seeds=np.array(order))
        write_bytes(out, buffer.getvalue())
    return {seed: every[seed] for seed in shown}


def sample(arguments: argparse.Namespace, device: torch.device) -> list[str]:
    """Do what the command line asks for; lines that say what was done.

    Raises:
        UserError: the class is unknown, or ``--steps`` or ``--batch`` is below 1.
    """
    seeds = seeds_of(arguments.seeds)
    model: Any = build(arguments.opt, arguments.weights, arguments.raw, device)
    if arguments.label is not None and not 0 <= arguments.label < model.classes:
        known = f"from 0 to {model.classes - 1}" if model.classes else "none; the generator has no classes"
        raise UserError(f"--label: {arguments.label} is no class; there are: {known}")
    if min(arguments.steps) < 1 or arguments.batch < 1:
        raise UserError("--steps and --batch must be at least 1")
    said = []
    several = len(set(arguments.steps)) > 1
    for steps in sorted(set(arguments.steps)):
        model.steps = steps
        out = folder_for(arguments.out, steps, several)
        shown = set(seeds[: arguments.grid])
        pictures = write(out, generate(model, seeds, arguments.label, arguments.batch, device), shown)
        said.append(f"{out}: {len(seeds)} images, {steps} network evaluation{'s' if steps > 1 else ''} each")
        if pictures and distributed.is_main():
            folder = out.parent if out.suffix == ".npz" else out
            target = folder / (f"{out.stem}_grid.png" if out.suffix == ".npz" else "grid.png")
            images = [pictures[seed] for seed in sorted(pictures)]
            imwrite(target, visual.grid(images, math.ceil(len(images) ** 0.5)))
            said.append(f"{target}: {len(images)} of them")
    distributed.barrier()
    return said


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    add_model(parser)
    parser.add_argument(
        "--raw", action="store_true", help="use the trained weights, not their average, where there is one"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for PNG files, or a .npz file")
    parser.add_argument("--seeds", default="0-63", help="seeds of the images: 0-63 (the default), or 1,5,8-11")
    parser.add_argument("--label", type=int, help="class of all images; the seed's remainder when omitted")
    parser.add_argument("--steps", type=int, nargs="+", default=[1], help="network evaluations per image (1)")
    parser.add_argument("--batch", type=int, default=64, help="images at a time (64)")
    parser.add_argument("--grid", type=int, default=0, metavar="N", help="also the first N images in one picture")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument(
        "--launcher", choices=("none", "pytorch", "slurm"), default="none", help="how ranks were started"
    )


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    with distributed.joined(arguments.launcher, {}, arguments.cpu) as device:
        logger.start_console()
        distributed.connect(device)
        for line in sample(arguments, device):
            if distributed.is_main():
                print(line)
