"""Print an option file to start from, with every key, its default and what it means.

``relume template NAFNet --lq data/input --gt data/target > mine.yml``, or a task or a shipped file in place of the
architecture: ``relume template sr/x4``, ``relume template relume:hdr/s1.yml``. The scale is found by looking at the pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...archs import ARCHS
from ...datasets import build_dataset
from .. import options
from ..errors import UserError, did_you_mean
from ..options import Options, shipped
from ..options.nodes import Block
from ..options.reading.reader import read
from ..options.template import text

SCALES = ("upscale", "scale")
"""What the parameter of an enlarging network is called."""
USUAL: Mapping[str, Any] = {
    **dict.fromkeys(("num_in_ch", "num_out_ch", "inp_channels", "in_channels", "out_channels"), 3),
    **{"mid_channels": 64, "num_block": 4, "num_channel": 16, "with_idt": False, "act_type": "prelu"},
}
"""Parameters without a default in some networks."""
RESTORATION = "RestorationModel"
STEPS = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument(
        "start", metavar="ARCH|TASK|FILE", help="architecture, task, or shipped option file (relume:NAME)"
    )
    parser.add_argument("--lq", metavar="DIR", help="folder of inputs")
    parser.add_argument("--gt", metavar="DIR", help="folder of targets, of the same names")
    parser.add_argument("--val_lq", metavar="DIR", help="folder of inputs for validation; without it there is none")
    parser.add_argument("--val_gt", metavar="DIR", help="their targets")
    parser.add_argument("--name", help="of the experiment")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for: the file alone goes to standard output."""
    lq, gt = arguments.lq, arguments.gt
    if (lq is None) != (gt is None) or (arguments.val_lq is None) != (arguments.val_gt is None):
        raise UserError("template: --lq and --gt belong together, and so do --val_lq and --val_gt")
    if arguments.val_lq is not None and lq is None:
        raise UserError("template: --val_lq and --val_gt need --lq and --gt")
    scale = scale_of(lq, gt) if lq is not None else None
    values = start(arguments.start, scale)
    if lq is not None:
        values["datasets"] = pairs(values, lq, gt, arguments.val_lq, arguments.val_gt)
    if scale is not None:
        values["scale"] = scale
    if arguments.name:
        values["name"] = arguments.name
    opt = options.check(values)
    if scale is not None:
        refuse_other_scales(opt, scale)
    print(text(opt, head(opt, arguments.start)), end="")


def head(opt: Options, asked: str) -> list[str]:
    """The comment above the file."""
    networks = ", ".join(block["type"] for block in opt.networks.values())
    lines = [
        f"Every key of a training of {networks}, made by 'relume template {asked}'.",
        "What stands here by default may be left out. 'relume explain KEY' says more of a key.",
    ]
    if asked in ARCHS and (ready := ready_files(asked)):
        lines += ["Ready files with it, to start from instead:", *(f"  relume template {name}" for name in ready)]
    if opt.train is not None and not opt.sets("val"):
        lines.append(
            "There is no validation: --val_lq and --val_gt add held-out pairs, without which nothing is scored."
        )
    return lines


def ready_files(arch: str) -> list[str]:
    """Shipped files that train an architecture at its whole size, by their names."""
    own = [name for name in shipped.names() if Path(name).stem == arch.lower()]
    return [
        name for name in own if not name.startswith(shipped.BLOCKS) and not {"laptop", "test"} & set(name.split("/"))
    ]


# ------------------------------------------------------------------ where to start from
def start(asked: str, scale: int | None) -> dict[str, Any]:
    """Plain options for an architecture, a task or a shipped file.

    Raises:
        UserError: there is no such thing.
    """
    if asked.startswith(shipped.PREFIX) or Path(asked).suffix in (".yml", ".yaml"):
        return options.resolve(asked).options.to_dict()
    if asked in ARCHS:
        return of_architecture(asked, scale)
    found = tasks().get(asked.strip("/"))
    if found is None:
        names = [*ARCHS.names(), *tasks()]
        known = ", ".join(tasks())
        raise UserError(
            f"template: there is no architecture, task or shipped file '{asked}'.{did_you_mean(asked, names)} "
            f"Tasks: {known}; architectures: relume list archs"
        )
    return options.resolve(found).options.to_dict()


def tasks() -> dict[str, str]:
    """The first shipped file of every folder of options: by the folder, ``sr/x4``, and by its last name where one has it."""
    found: dict[str, str] = {}
    for name in shipped.names():
        folder = name.removeprefix(shipped.PREFIX).rpartition("/")[0]
        if folder and not name.startswith(shipped.BLOCKS) and not {"test", "ablation"} & set(folder.split("/")):
            found.setdefault(folder, name)
    last = [folder.rpartition("/")[2] for folder in found]
    return {**found, **{f.rpartition("/")[2]: n for f, n in found.items() if last.count(f.rpartition("/")[2]) == 1}}


def of_architecture(arch: str, scale: int | None) -> dict[str, Any]:
    """A training of an architecture: as a shipped file has it where it needs a model of its own, else as pairs of pictures."""
    parameters = ARCHS.parameters(arch)
    enlarging = next((k for k in SCALES if k in parameters), None)
    for name in shipped.names() if enlarging is None else ():
        if not name.startswith(shipped.BLOCKS) and is_training(name, arch):
            return options.resolve(name).options.to_dict()
    needed = {k: v for k, v in USUAL.items() if k in parameters and parameters[k].required}
    network: dict[str, Any] = {"type": arch, **needed}
    if enlarging is not None:
        default = parameters[enlarging].default
        scale = scale or (default if isinstance(default, int) else 4)
        network[enlarging] = scale
    return {
        "name": arch.lower(),
        "model_type": RESTORATION,
        "scale": scale or 1,
        "datasets": pairs({"scale": scale or 1}, "data/train/lq", "data/train/gt", "data/val/lq", "data/val/gt"),
        "network_g": network,
        "train": {
            "total_iter": STEPS,
            "ema_decay": 0.999,
            "optim_g": {"type": "AdamW", "lr": 2e-4, "betas": [0.9, 0.99], "weight_decay": 0.0},
            "scheduler": {"type": "TrueCosineAnnealingLR", "T_max": STEPS, "eta_min": 1e-7},
            "grad_clip_norm": 1.0,
            "pixel_opt": {"type": "L1Loss"},
        },
        "val": {"val_freq": 5000, "metrics": {"psnr": {"type": "calculate_psnr"}, "ssim": {"type": "calculate_ssim"}}},
    }


def is_training(name: str, arch: str) -> bool:
    """Whether a shipped file trains an architecture by another model wrapper than pairs of pictures need."""
    root = read(name).root
    network = root.entries.get("network_g")
    used = network.node.scalar("type") if network is not None and isinstance(network.node, Block) else None
    return used == arch and root.scalar("model_type") != RESTORATION and "train" in root.entries


# ------------------------------------------------------------------ what the folders say
def pairs(values: Mapping[str, Any], lq: str, gt: str, val_lq: str | None, val_gt: str | None) -> dict[str, Any]:
    """The ``datasets`` section for folders of pairs."""
    train = {
        "type": "PairedImageDataset",
        "dataroot_lq": lq,
        "dataroot_gt": gt,
        "gt_size": 128 if values.get("scale", 1) == 1 else 48 * values["scale"],
        "use_hflip": True,
        "use_rot": True,
        "batch_size_per_gpu": 4,
    }
    blocks: dict[str, Any] = {"train": train}
    if val_lq is not None:
        blocks["val"] = {"type": "PairedImageDataset", "dataroot_lq": val_lq, "dataroot_gt": val_gt}
    return blocks


def scale_of(lq: str, gt: str) -> int:
    """By how much the pictures of `gt` are larger than those of `lq`.

    Raises:
        UserError: a folder has no pictures, they are no pairs, or not all are of one scale.
    """
    samples = build_dataset({"type": "PairedImageDataset", "dataroot_lq": lq, "dataroot_gt": gt}, phase="val").samples
    found: set[float] = set()
    for index in {0, len(samples) // 2, len(samples) - 1}:
        source, name, target, target_name = samples[index]
        (h, w), (height, width) = source.pixels(name).shape[:2], target.pixels(target_name).shape[:2]
        found |= {height / h, width / w}
    if len(found) > 1 or not next(iter(found)).is_integer():
        listed = " and ".join(f"{ratio:g}" for ratio in sorted(found))
        raise UserError(
            f"template: the pictures of {gt} are {listed} times as large as those of {lq}; one whole number is needed"
        )
    return int(next(iter(found)))


def refuse_other_scales(opt: Options, scale: int) -> None:
    """Raise UserError if the network cannot enlarge by `scale`; it is built, without memory where it can be, to ask it."""
    block = opt.networks.get("g")
    if block is None:
        return
    try:
        try:
            with torch.device("meta"):
                network = ARCHS.build(block)
        except UserError:  # of these options, or of a library's network that cannot be built there
            network = ARCHS.build(block)
    except UserError as e:
        raise UserError(f"template: {block['type']} cannot have the scale {scale} of these pictures: {e}") from e
    own = next((getattr(network, name) for name in SCALES if isinstance(getattr(network, name, None), int)), None)
    has = own if own is not None else block.get("upscale", block.get("scale", 1))
    if has != scale:
        raise UserError(
            f"template: {block['type']} enlarges by {has}, and the pictures of gt are {scale} times those of lq"
        )
