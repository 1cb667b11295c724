"""Print an option file to start from, with every key, its default and what it means.

``relume template NAFNet --lq data/input --gt data/target > mine.yml``, or a task or a shipped file in place of the
architecture: ``relume template sr/x4``, ``relume template relume:hdr/s1.yml``. The scale is found by looking at the pictures.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...archs import ARCHS
from ...datasets import DATASETS, build_dataset
from .. import options
from ..errors import UserError, did_you_mean
from ..options import Options, shipped
from ..options.nodes import Block
from ..options.reading.reader import read
from ..options.template import text

SCALES = ("upscale", "scale", "up_scale")
"""What the parameter of an enlarging network is called."""
USUAL: Mapping[str, Any] = {
    **dict.fromkeys(("num_in_ch", "num_out_ch", "inp_channels", "in_channels", "out_channels"), 3),
    **{"mid_channels": 64, "num_block": 4, "num_channel": 16, "with_idt": False, "act_type": "prelu"},
}
"""Parameters without a default in some networks."""
RESTORATION = "RestorationModel"
NO_PAIRS = ("GenerationModel", "InterpolationModel")
"""Models that do not learn from an input and its target."""
ADVERSARIAL = "relume:realsr/srgan.yml"
"""What a discriminator is trained in."""
LISTING = ("meta_info_file", "meta_info", "filename_tmpl", "io_backend", "dataroot", "dataroot_gt_2", "layout", "name")
"""Keys of a data set that say which files its folders have."""
STEPS = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument(
        "start", metavar="ARCH|TASK|FILE", help="architecture, task, or shipped option file (relume:NAME)"
    )
    parser.add_argument("--lq", metavar="DIR", help="folder of inputs")
    parser.add_argument("--gt", metavar="DIR", help="folder of targets, of the same names")
    parser.add_argument("--val_lq", metavar="DIR", help="folder of inputs for validation; without it there is none")
    parser.add_argument("--val_gt", metavar="DIR", help="targets for validation")
    parser.add_argument("--name", help="name of the experiment")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for: the file alone goes to standard output.

    Raises:
        UserError: one of two folders that belong together is missing.
    """
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
    own = [name for name in shipped.names() if Path(name).stem.replace("_", "") == arch.lower()]
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
    module = ARCHS.get(arch).__module__
    if ".discriminators." in module:
        return of_discriminator(arch, scale)
    parameters = ARCHS.parameters(arch)
    enlarging = next((k for k in SCALES if k in parameters), None)
    if arch in own_trainings():
        values: dict[str, Any] = options.resolve(own_trainings()[arch]).options.to_dict()
        if enlarging is not None and scale is not None:
            values["network_g"][enlarging] = scale
        return values
    # The network, enlarging as far as is wanted.
    needed = {k: v for k, v in USUAL.items() if k in parameters and parameters[k].required}
    network: dict[str, Any] = {**needed, **published(arch, scale)}
    if enlarging is not None:
        default = network.get(enlarging, parameters[enlarging].default)
        scale = scale or (default if isinstance(default, int) else 4)
        network[enlarging] = scale
        if scale == 1:
            network.pop("upsampler", None)
        elif "upsampler" in parameters:
            network.setdefault("upsampler", "pixelshuffle")
    # The rest of the file: training, validation and data.
    of_clips = ".video." in module and ("num_frame" in parameters or hasattr(ARCHS.get(arch), "takes_frames"))
    if of_clips and enlarging is None:
        scale = scale or (1 if arch == "TOFlow" else 4)
    values = {
        "name": arch.lower(),
        "model_type": "VideoModel" if of_clips else RESTORATION,
        "scale": scale or 1,
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
    if of_clips:
        values["datasets"] = clips(arch)
    return {**values, "datasets": pairs(values, "data/train/lq", "data/train/gt", "data/val/lq", "data/val/gt")}


def published(arch: str, scale: int | None) -> dict[str, Any]:
    """The network as its ready file of this scale has it, or of another scale; else by its name alone."""
    found = [dict(options.resolve(name).options.networks["g"]) for name in ready_files(arch)]
    found = [block for block in found if block["type"] == arch]
    fitting = (block for block in found if scale in [block.get(key) for key in SCALES])
    return next(fitting, found[0] if found else {"type": arch})


def of_discriminator(arch: str, scale: int | None) -> dict[str, Any]:
    """A training of a discriminator, beside a network that enlarges by `scale`, or that restores."""
    values: dict[str, Any] = options.resolve(ADVERSARIAL).options.to_dict()
    known = values["network_d"]
    same = {k: v for k, v in known.items() if k in ARCHS.parameters(arch)}
    if arch == "DINODiscriminator":
        same["weights"] = "weights/dino.pth"
    values |= {"name": arch.lower(), "path": {}, "network_d": {**same, "type": arch}}
    if scale == 1:
        values["network_g"] = {"type": "NAFNet"}
    elif scale is not None:
        values["network_g"]["upscale"] = scale
    side = "".join(c for c in arch[-3:] if c.isdigit())
    if side and int(side) > 100:
        values["datasets"]["train"]["gt_size"] = int(side)
    return values


def clips(arch: str) -> dict[str, Any]:
    """The ``datasets`` section for folders of clips: of all frames, or of the frames around the one that a network gives."""
    frames = ARCHS.parameters(arch).get("num_frame")
    count = frames.default if frames is not None else vars(ARCHS.get(arch)).get("takes_frames")
    crop = {"gt_size": 256, "use_hflip": True, "use_rot": True, "batch_size_per_gpu": 1}
    if not count:
        return {
            "train": {"type": "ClipsDataset", "num_frame": 15, **crop},
            "val": {"type": "VideoRecurrentTestDataset"},
        }
    window = {"num_frame": count}
    return {"train": {"type": "REDSDataset", **window, **crop}, "val": {"type": "VideoTestDataset", **window}}


USUAL_MODELS = (RESTORATION, "RealESRNetModel", "VideoModel", "VideoRecurrentModel")
"""Wrappers that `of_architecture` knows how to begin without a shipped file."""


@functools.cache
def own_trainings() -> dict[str, str]:
    """The first shipped file of each architecture that is trained by another model wrapper than pairs of pictures need."""
    found: dict[str, str] = {}
    for name in (n for n in shipped.names() if not n.startswith(shipped.BLOCKS)):
        root = read(name).root
        network = root.entries.get("network_g")
        arch = network.node.scalar("type") if network is not None and isinstance(network.node, Block) else None
        usual = root.scalar("model_type") in USUAL_MODELS
        if arch and not usual and {"train", "network_d"} & set(root.entries) == {"train"}:
            found.setdefault(str(arch), name)
    return found


# ------------------------------------------------------------------ what the folders say
def pairs(values: Mapping[str, Any], lq: str, gt: str, val_lq: str | None, val_gt: str | None) -> dict[str, Any]:
    """The ``datasets`` section for folders of pairs; sets that read pairs remain what they are.

    Raises:
        UserError: the model does not learn from pairs.
    """
    if values.get("model_type") in NO_PAIRS:
        raise UserError(
            f"template: {values['model_type']} does not learn from pairs; leave out --lq and --gt, and say under "
            "'datasets' where its data are"
        )
    train = kept(values, "train") or {
        "type": "PairedImageDataset",
        "gt_size": 128 if values.get("scale", 1) == 1 else 48 * values["scale"],
        "use_hflip": True,
        "use_rot": True,
        "batch_size_per_gpu": 4,
    }
    blocks: dict[str, Any] = {"train": {**train, "dataroot_lq": lq, "dataroot_gt": gt}}
    if val_lq is not None:
        blocks["val"] = {
            **(kept(values, "val") or {"type": "PairedImageDataset"}),
            "dataroot_lq": val_lq,
            "dataroot_gt": val_gt,
        }
    return blocks


def kept(values: Mapping[str, Any], phase: str) -> dict[str, Any] | None:
    """The file's own block of a set that reads pairs, without what says which of its files; None where it has none."""
    block = values.get("datasets", {}).get(phase) or {}
    if block.get("type") not in DATASETS or not {"dataroot_lq", "dataroot_gt"} <= set(
        DATASETS.parameters(block["type"])
    ):
        return None
    return {k: v for k, v in block.items() if k not in LISTING}


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
    """Refuse a network that cannot enlarge by `scale`; it is built, without memory where it can be, to ask it.

    Raises:
        UserError: the network enlarges by another factor, or cannot be built for this one.
    """
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
