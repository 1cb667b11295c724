"""Complete option files of the other tasks: clips, interpolation, adversaries, HDR, generation, libraries."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Options_ = dict[str, Any]

SWIN = {"embed_dim": 12, "depths": [1], "num_heads": [2], "window_size": 8, "upscale": 2, "upsampler": "pixelshuffle"}
LIBRARY: dict[str, dict[str, Any]] = {
    "SwinIR": {**SWIN, "img_size": 8},
    "HAT": {**SWIN, "squeeze_factor": 4, "img_size": 8},
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2},
    "RealPLKSR": {"dim": 8, "n_blocks": 1, "upscaling_factor": 2, "kernel_size": 5},
    "SAFMN": {"dim": 8, "n_blocks": 1, "upscaling_factor": 2},
}
"""Settings of networks from spandrel that double the size."""
LIBRARY_SAME: dict[str, dict[str, Any]] = {
    "DnCNN": {"in_nc": 3, "out_nc": 3, "nc": 8, "nb": 3},
    "DRUNet": {"in_nc": 3, "out_nc": 3, "nc": [4, 8, 8, 8], "nb": 1},
    "RetinexFormer": {"n_feat": 8, "stage": 1},
}
"""Settings of networks from spandrel that keep the size."""
LIBRARY_OPTIMIZERS = ("Prodigy", "Lion", "SOAP", "CAME", "ScheduleFreeAdamW", "AdamWScheduleFree", "LaProp")
FEATURES = {"type": "random_conv", "width": 4, "levels": 2}
LEVELS = {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 1, 2, 2], "n_encoder_res": 1}
SCENES = {"type": "SyntheticHDRDataset", "num_worker_per_gpu": 0}


def data(folder: Path) -> None:
    """Two clips of four frames and twice as large ones, and pairs for two eyes, made of the pictures in `folder`."""
    for name in ("lq", "gt2"):
        for i in range(4):
            for clip in ("a", "b"):
                _copied(folder / name / f"{i}.png", folder / "clips" / name / clip / f"{i:08}.png")
            for eye in "LR":
                _copied(folder / name / f"{i}.png", folder / "eyes" / name / f"{i}_{eye}.png")


def _copied(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def cases(folder: Path, same: Mapping[str, Any], twice: Mapping[str, Any]) -> dict[str, Options_]:
    """Option files by name.

    Args:
        same, twice: runs on pairs of one size, and on pairs of which one is twice as large.
    """
    found: dict[str, Options_] = {}
    for name, settings in LIBRARY.items():
        found[f"network {name}"] = {**twice, "network_g": {"type": name, **settings}}
    for name, settings in LIBRARY_SAME.items():
        found[f"network {name}"] = {**same, "network_g": {"type": name, **settings}}
    for name in LIBRARY_OPTIMIZERS:
        train = {k: v for k, v in same["train"].items() if k != "scheduler" or "ScheduleFree" not in name}
        found[f"optimizer {name}"] = {**same, "train": {**train, "optim_g": {"type": name, "lr": 1e-3}}}
    found |= adversarial(folder, twice) | clips(folder, twice) | one_step(folder, same) | hdr(folder, same)
    return found


def adversarial(folder: Path, twice: Mapping[str, Any]) -> dict[str, Options_]:
    """Wrappers of two networks, with other discriminators, and degradations without one."""
    judged = {"optim_d": {"type": "Adam", "lr": 1e-4}, "gan_opt": {"type": "GANLoss", "gan_type": "vanilla"}}
    relative = {**twice, "model_type": "ESRGANModel", "train": {**twice["train"], **judged}}
    relative["network_d"] = {"type": "PatchGANDiscriminatorSN", "input_nc": 3, "ndf": 4, "n_layers": 1}
    several = {**twice, "model_type": "SRGANModel", "train": {**twice["train"], **judged}}
    several["network_d"] = {"type": "MultiscalePatchGANDiscriminatorSN", "ndf": 4, "n_layers": 1, "num_d": 2}
    several["train"]["gan_opt"] = {"type": "MultiScaleGANLoss", "gan_type": "lsgan"}
    made = {"type": "RealESRGANDataset", "dataroot_gt": str(folder / "gt2"), "gt_size": 16, "pad_size": 24}
    net = {**twice, "model_type": "RealESRNetModel"}
    net["datasets"] = {"train": {**made, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0}}
    net["val"] = {k: v for k, v in twice["val"].items() if k != "metrics"}
    return {"relative": relative, "several scales": several, "degraded": net}


def clips(folder: Path, twice: Mapping[str, Any]) -> dict[str, Options_]:
    """Recurrent networks and windows on clips, frames between frames, and pictures for two eyes."""
    # Video: a recurrent network, and one for windows of frames.
    roots = {"dataroot_gt": str(folder / "clips/gt2"), "dataroot_lq": str(folder / "clips/lq"), "num_worker_per_gpu": 0}
    same = {**roots, "dataroot_gt": roots["dataroot_lq"]}
    window = {"type": "VideoTestDataset", "num_frame": 3, **same}
    recurrent = {**twice, "scale": 1, "model_type": "VideoRecurrentModel"}
    recurrent["datasets"] = {
        "train": {"type": "ClipsDataset", "num_frame": 2, **same, "gt_size": 16, "batch_size_per_gpu": 1},
        "val": {"type": "VideoRecurrentTestDataset", **same, "name": "held_out"},
    }
    recurrent["network_g"] = {
        "type": "BasicVSRPlusPlus",
        "mid_channels": 16,
        "num_blocks": 1,
        "is_low_res_input": False,
    }
    windows = {**recurrent, "model_type": "EDVRModel"}
    windows["datasets"] = {
        "train": {**window, "batch_size_per_gpu": 1},
        "val": {**window, "name": "held_out"},
    }
    windows["network_g"] = {"type": "EDVR", "num_feat": 4, "num_frame": 3, "hr_in": True, "with_predeblur": True}
    windows["network_g"] |= {"deformable_groups": 2, "num_extract_block": 1, "num_reconstruct_block": 1}
    # Stereo pairs.
    eyes = {"type": "PairedStereoImageDataset", "num_worker_per_gpu": 0}
    eyes |= {"dataroot_gt": str(folder / "eyes/gt2"), "dataroot_lq": str(folder / "eyes/lq")}
    stereo = {**twice, "network_g": {"type": "NAFSSR", "up_scale": 2, "width": 4, "num_blks": 1}}
    stereo["datasets"] = {
        "train": {**eyes, "gt_size": 16, "batch_size_per_gpu": 2},
        "val": {**eyes, "name": "held_out"},
    }
    # Frame interpolation.
    between = {**twice, "scale": 1, "model_type": "InterpolationModel"}
    moving = {"type": "SyntheticMotionDataset", "dataroot_gt": str(folder / "gt2"), "gt_size": 32, "motion": [0, 2]}
    moving |= {"num_worker_per_gpu": 0, "shorter_side": 48}
    between["datasets"] = {
        "train": {**moving, "batch_size_per_gpu": 1, "use_hflip": True},
        "val": {**moving, "renditions": 1, "name": "held_out"},
    }
    between["network_g"] = {"type": "HybridVFI", "F": 8, "depths": [1, 1, 1], "num_heads": [1, 2, 4], "drop_path": 0}
    between["network_g"] |= {"window_size": 4, "mamba": {"d_state": 8, "headdim": 8}}
    return {"recurrent": recurrent, "windows": windows, "stereo": stereo, "between": between}


def one_step(folder: Path, same: Mapping[str, Any]) -> dict[str, Options_]:
    """A generator of pictures from noise."""
    pictures = {"type": "ImageFolderDataset", "dataroot": str(folder / "gt"), "resolution": 8}
    network = {"type": "OneStepGenerator", "img_resolution": 8, "model_channels": 8, "channel_mult": [1, 2]}
    opt = {**same, "model_type": "GenerationModel"}
    opt["datasets"] = {
        "train": {**pictures, "batch_size_per_gpu": 4, "num_worker_per_gpu": 0},
        "val": {"name": "held_out", "type": "NoiseDataset", "num_images": 3, "reference": pictures},
    }
    opt["network_g"] = {**network, "num_blocks": 1, "attn_resolutions": [4], "dropout": 0.0}
    opt["train"] = {
        "total_iter": 2,
        "optim_g": {"type": "AdamW", "lr": 1e-3},
        "scheduler": {"type": "WarmupDecayLR", "warmup": 8, "total": 40},
        "features": FEATURES,
        "bank": {"subset": 6},
        "matching": {"fgw_lambda": 0.3, "epsilon": {"start": 0.1, "end": 0.02, "over": 20, "shape": "exponential"}},
        "flow_opt": {"type": "PseudoHuberLoss"},
        "structure_opt": {"type": "StructureLoss", "loss_weight": 0.1},
    }
    kid = {"type": "KID", "features": FEATURES, "subsets": 2, "subset_size": 3}
    opt["val"] = {"val_freq": 2, "save_grid": 3, "metrics": {"kid": kid}}
    return {"generator": opt}


def hdr(folder: Path, same: Mapping[str, Any]) -> dict[str, Options_]:
    """Radiance from pictures: DiffIR's two stages."""
    scenes = {**SCENES, "dataroot_gt": str(folder / "gt2"), "shorter_side": 48}
    opt = {**same, "model_type": "DiffIRS1Model", "network_g": {"type": "DiffIRS1", **LEVELS}}
    opt["datasets"] = {
        "train": {**scenes, "gt_size": 16, "use_hflip": True, "batch_size_per_gpu": 2},
        "val": {**scenes, "name": "held_out"},
    }
    opt["val"] = {**same["val"], "metrics": {"mu": {"type": "calculate_psnr_mu"}}, "score_input": True}
    second = {**opt, "model_type": "DiffIRS2Model", "network_S1": opt["network_g"]}
    second["network_g"] = {"type": "DiffIRS2", **LEVELS}
    optimizer = {"type": "Adam", "lr": 1e-3}
    second["train"] = {
        **same["train"],
        "encoder_iter": 2,
        "total_iter": 3,
        "optim_e": optimizer,
        "kd_opt": {"type": "KDLoss"},
    }
    return {"hdr": opt, "hdr second": second}
