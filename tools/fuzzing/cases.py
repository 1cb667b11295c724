"""Complete option files of runs that take a fraction of a second, and every place in them where a value may stand."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from relume.archs import ARCHS
from relume.core.metrics import METRICS, MetricKeys
from relume.core.models import MODELS
from relume.core.options.checking.kinds import parameters
from relume.core.options.schema import Dist, Logger, Options, Paths, Train, Val
from relume.core.registry import Registry
from relume.core.runtime.optimizers import OPTIMIZERS
from relume.datasets import DATASETS
from relume.datasets.loading.options import Loader
from relume.losses import LOSSES
from relume.schedulers import SCHEDULERS
from relume.tools.fuzzing import families

Options_ = dict[str, Any]

LEVELS = {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 1, 2, 2]}
NARROW = {"num_blocks": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "num_refinement": 1, "drop_dead": True}
NETWORKS: dict[str, dict[str, Any]] = {
    "NAFNet": {"width": 4, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
    "Restormer": LEVELS,
    "HINet": {"wf": 4, "depth": 3},
    "Phaseformer": {**NARROW, "channels": [8, 16, 32, 64], "phase_gate": "spatial"},
    "Spectroformer": {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "num_heads": [1, 1, 2, 2]},
    "MambaIR": {"embed_dim": 30, "depths": [1], "d_state": 2, "mlp_ratio": 0.5, "drop_path_rate": 0.0, "upscale": 1},
}
"""Settings of networks that keep the size of their input."""
ENLARGING: dict[str, dict[str, Any]] = {
    "EDSR": {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2},
    "MSRResNet": {"num_feat": 4, "num_block": 1, "upscale": 2},
    "RCAN": {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 16, "num_group": 1, "num_block": 1, "upscale": 2},
    "RRDBNet": {"num_in_ch": 3, "num_out_ch": 3, "scale": 2, "num_feat": 4, "num_block": 1, "num_grow_ch": 2},
    "SRVGGNetCompact": {"num_feat": 4, "num_conv": 1, "upscale": 2},
}
"""Settings of networks that double the size of their input."""
LOSS_BLOCKS: dict[str, dict[str, Any]] = {
    "MSELoss": {},
    "SmoothL1Loss": {},
    "CharbonnierLoss": {},
    "PSNRLoss": {},
    "GradientLoss": {},
    "EdgeLoss": {},
    "TVLoss": {},
    "FFTLoss": {},
    "FFLoss": {},
    "SSIMLoss": {"win_size": 7},
    "LaplacianLoss": {"levels": 2},
    "TernaryCensusLoss": {},
    "SinkhornLoss": {},
    "LearnedWeights": {"terms": {"pixel": {"type": "L1Loss"}, "edge": {"type": "EdgeLoss"}}},
    "AverageLoss": {},
    "BicubicLoss": {},
    "ColorLoss": {},
    "LumaLoss": {},
}
SCHEDULER_BLOCKS: dict[str, dict[str, Any]] = {
    "MultiStepRestartLR": {"milestones": [1]},
    "CosineAnnealingRestartLR": {"periods": [2], "restart_weights": [1]},
    "CosineAnnealingRestartCyclicLR": {"periods": [1, 1], "restart_weights": [1, 1], "eta_mins": [0.0, 0.0]},
    "TrueCosineAnnealingLR": {"T_max": 2},
    "WarmupCosineLR": {"total_steps": 2, "warmup_steps": 1},
    "LinearLR": {"total_iter": 2},
    "StepLR": {"step_size": 1},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 4},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 0.2, "cycle_momentum": False},
    "ReduceLROnPlateau": {},
    "CosineAnnealingWarmRestarts": {"T_0": 1},
    "PolynomialLR": {},
}
OPTIMIZER_BLOCKS: dict[str, dict[str, Any]] = {
    name: {"lr": 1e-3}
    for name in ("SGD", "AdamW", "Adagrad", "RMSprop", "NAdam", "Adadelta", "Rprop", "ASGD", "Adafactor", "Muon")
}


def data(folder: Path) -> None:
    """Six tiny pairs of images and twice as large ones, clips, a text file and a pipe, inside `folder`."""
    rng = np.random.default_rng(0)
    for name, side in (("lq", 24), ("gt", 24), ("gt2", 48)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(6):
            cv2.imwrite(str(folder / name / f"{i}.png"), rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    (folder / "notes.txt").write_text("nothing\n")
    if not (folder / "pipe").exists():
        os.mkfifo(folder / "pipe")
    families.data(folder)


def base(folder: Path, scale: int = 1) -> Options_:
    """A run of two iterations."""
    # A whole training of two iterations, with validation.
    pairs = {
        "type": "PairedImageDataset",
        "dataroot_lq": str(folder / "lq"),
        "dataroot_gt": str(folder / ("gt" if scale == 1 else "gt2")),
        "num_worker_per_gpu": 0,
    }
    network = {"type": "SRVGGNetCompact", **ENLARGING["SRVGGNetCompact"], "upscale": scale}
    return {
        "name": "fuzz",
        "model_type": "RestorationModel",
        "scale": scale,
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {
            "train": {**pairs, "gt_size": 16, "batch_size_per_gpu": 2, "use_hflip": True, "use_rot": True},
            "val": {**pairs, "name": "held_out"},
        },
        "network_g": network,
        "path": {"experiments_root": "experiments"},
        "train": {
            "total_iter": 2,
            "optim_g": {"type": "Adam", "lr": 1e-3},
            "scheduler": {"type": "MultiStepLR", "milestones": [1]},
            "pixel_opt": {"type": "L1Loss"},
        },
        "val": {"val_freq": 2, "metrics": {"psnr": {"type": "calculate_psnr"}}, "pbar": False},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False},
    }


def cases(folder: Path) -> dict[str, Options_]:
    """Complete option files by name, each in the middle of the ground."""
    found: dict[str, Options_] = {"plain": base(folder), "twice": base(folder, 2)}
    # One file for each registered component.
    for name, settings in NETWORKS.items():
        found[f"network {name}"] = {**base(folder), "network_g": {"type": name, **settings}}
    for name, settings in ENLARGING.items():
        found[f"network {name}"] = {**base(folder, 2), "network_g": {"type": name, **settings}}
    for kind, key, blocks in (
        ("loss", "pixel_opt", LOSS_BLOCKS),
        ("scheduler", "scheduler", SCHEDULER_BLOCKS),
        ("optimizer", "optim_g", OPTIMIZER_BLOCKS),
    ):
        for name, settings in blocks.items():
            opt = base(folder)
            opt["train"][key] = {"type": name, **settings}
            found[f"{kind} {name}"] = opt
    # Files whose parts depend on each other.
    gan = base(folder, 2)
    gan["model_type"] = "SRGANModel"
    gan["network_d"] = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}
    gan["train"] |= {"optim_d": {"type": "Adam", "lr": 1e-4}, "gan_opt": {"type": "GANLoss", "gan_type": "vanilla"}}
    found["adversarial"] = gan
    real = copy.deepcopy(gan)
    real["model_type"] = "RealESRGANModel"
    real["datasets"] = {
        "train": {"type": "RealESRGANDataset", "dataroot_gt": str(folder / "gt2"), "gt_size": 16, "pad_size": 24}
        | {"batch_size_per_gpu": 2, "num_worker_per_gpu": 0}
    }
    del real["val"]["metrics"]
    found["degradations"] = real
    scored = base(folder)
    scored["val"]["metrics"] |= {"ssim": {"type": "calculate_ssim"}}
    scored["val"] |= {"save_img": True, "tile": 16, "tile_overlap": 4}
    scored["train"] |= {"ema_decay": 0.9, "grad_clip_norm": 1.0, "warmup_iter": 1}
    found["scored"] = scored
    return {**found, **families.cases(folder, base(folder), base(folder, 2))}


# ------------------------------------------------------------------ where values may stand
Path_ = tuple[str, ...]


def places(opt: Mapping[str, Any]) -> Iterator[tuple[Path_, Any]]:
    """Every option that a file like `opt` may set, given there or not, with its annotation; no `type` among them."""
    yield from _section(Options, (), leave=("datasets", "path", "train", "val", "logger", "dist_params"))
    for key, cls in (("path", Paths), ("train", Train), ("val", Val), ("logger", Logger), ("dist_params", Dist)):
        yield from _section(cls, (key,), leave=("metrics",))
    for name, parameter in MODELS.parameters(opt["model_type"]).items():
        yield ("train", name), parameter.annotation
    for key, block in opt["datasets"].items():
        yield from _section(Loader, ("datasets", key))
        yield from _component(DATASETS, block, ("datasets", key))
    for key, block in opt.items():
        if key.startswith("network_"):
            yield from _component(ARCHS, block, (key,))
            yield ("path", f"pretrain_{key}"), str | None
    for key, block in opt["train"].items():
        if isinstance(block, Mapping) and (key.startswith(("optim_", "scheduler")) or key.endswith("_opt")):
            optimizer = key.startswith("optim_")
            registry = LOSSES if key.endswith("_opt") else OPTIMIZERS if optimizer else SCHEDULERS
            yield from _component(registry, block, ("train", key))
    for key, block in opt["val"].get("metrics", {}).items():
        yield from _section(MetricKeys, ("val", "metrics", key))
        yield from _component(METRICS, block, ("val", "metrics", key))


def _section(cls: Any, path: Path_, leave: tuple[str, ...] = ()) -> Iterator[tuple[Path_, Any]]:
    for name, parameter in parameters(cls).items():
        if name not in leave:
            yield (*path, name), parameter.annotation


def _component(registry: Registry, block: Mapping[str, Any], path: Path_) -> Iterator[tuple[Path_, Any]]:
    for name, parameter in registry.parameters(block["type"]).items():
        yield (*path, name), parameter.annotation


def is_named(opt: Mapping[str, Any], path: Path_, name: str) -> bool:
    """Whether the option at `path` is one of the component that the case called `name` is about."""
    block: Any = opt
    for key in path[:-1]:
        block = block.get(key, {})
    return block.get("type") == name.split()[-1]


def changed(opt: Mapping[str, Any], path: Path_, value: Any) -> Options_:
    """A copy of `opt` with another value in one place."""
    found: Any = copy.deepcopy(dict(opt))
    block = found
    for key in path[:-1]:
        block = block.setdefault(key, {})
    block[path[-1]] = value
    return dict(found)
