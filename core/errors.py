"""The mistakes a user can make, as opposed to the ones we can: one clear line, an exit code, no traceback."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

EXIT_USER_ERROR = 2
"""Bad options, missing files, impossible requests."""
EXIT_NONFINITE = 3
"""Training stopped because losses or gradients stayed NaN or infinite."""
EXIT_PREEMPTED = 75
"""A signal asked us to stop; a checkpoint was written and the run can be requeued (EX_TEMPFAIL of sysexits.h)."""
EXIT_INTERRUPTED = 130
"""Ctrl-C; a checkpoint was written (128 + SIGINT, as shells count)."""
EXIT_BROKEN_PIPE = 141
"""Whoever read the output has stopped (128 + SIGPIPE, as shells count)."""


class UserError(Exception):
    """A mistake of the user's: ``str(error)`` is what the command line prints before exiting with ``code``.

    ``everywhere`` says that all ranks raise it together, so that the main one need only say it.
    """

    code = EXIT_USER_ERROR
    everywhere = False


class NonFiniteError(UserError):
    """Losses or gradients were NaN or infinite for too many steps in a row."""

    code = EXIT_NONFINITE
    everywhere = True


def in_one_line(error: BaseException) -> str:
    """An error in one line: a `UserError` as it is, any other with its type and the place in the code that raised it."""
    first = (str(error).strip().splitlines() or [""])[0][:300]
    if isinstance(error, UserError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {first}{place}"


COMMON_MISTAKES: dict[str, tuple[str, ...]] = {
    # data sets and loading
    "batch_size": ("batch_size_per_gpu",),
    "train_batch_size": ("batch_size_per_gpu",),
    "bs": ("batch_size_per_gpu",),
    "samples_per_gpu": ("batch_size_per_gpu",),
    "num_workers": ("num_worker_per_gpu",),
    "workers": ("num_worker_per_gpu",),
    "n_workers": ("num_worker_per_gpu",),
    "workers_per_gpu": ("num_worker_per_gpu",),
    "num_worker": ("num_worker_per_gpu",),
    "shuffle": ("use_shuffle",),
    "patch_size": ("gt_size",),
    "crop_size": ("gt_size",),
    "hr_size": ("gt_size",),
    "lq_size": ("gt_size",),
    "img_size": ("gt_size",),
    "image_size": ("gt_size",),
    "hflip": ("use_hflip",),
    "flip": ("use_hflip", "use_flip"),
    "rotation": ("use_rot",),
    "rot": ("use_rot",),
    "gt_path": ("dataroot_gt",),
    "gt_root": ("dataroot_gt",),
    "gt_dir": ("dataroot_gt",),
    "root_gt": ("dataroot_gt",),
    "dataroot_hr": ("dataroot_gt",),
    "hr_root": ("dataroot_gt",),
    "target_dir": ("dataroot_gt",),
    "lq_path": ("dataroot_lq",),
    "lq_root": ("dataroot_lq",),
    "lq_dir": ("dataroot_lq",),
    "root_lq": ("dataroot_lq",),
    "dataroot_lr": ("dataroot_lq",),
    "lr_root": ("dataroot_lq",),
    "input_dir": ("dataroot_lq",),
    "root": ("dataroot", "dataroot_lq"),
    "data_dir": ("dataroot", "dataroot_lq"),
    "data_root": ("dataroot", "dataroot_lq"),
    "validation": ("val",),
    "valid": ("val",),
    # training
    "epochs": ("total_iter",),
    "max_epochs": ("total_iter",),
    "total_epochs": ("total_iter",),
    "num_epochs": ("total_iter",),
    "max_steps": ("total_iter",),
    "max_iter": ("total_iter",),
    "max_iters": ("total_iter",),
    "niter": ("total_iter",),
    "iterations": ("total_iter",),
    "total_iters": ("total_iter",),
    "num_steps": ("total_iter",),
    "learning_rate": ("lr",),
    "lr_g": ("lr", "optim_g"),
    "optimizer": ("optim_g",),
    "optim": ("optim_g",),
    "opt": ("optim_g",),
    "lr_scheduler": ("scheduler",),
    "sched": ("scheduler",),
    "scheme": ("scheduler",),
    "warmup": ("warmup_iter",),
    "warmup_iters": ("warmup_iter",),
    "warmup_steps": ("warmup_iter",),
    "warmup_epochs": ("warmup_iter",),
    "ema": ("ema_decay",),
    "model_ema_decay": ("ema_decay",),
    "use_ema": ("ema_decay",),
    "use_amp": ("amp",),
    "precision": ("amp",),
    "fp16": ("amp",),
    "mixed_precision": ("amp",),
    "gradient_accumulation_steps": ("accumulate",),
    "accumulate_grad_batches": ("accumulate",),
    "accum_iter": ("accumulate",),
    "grad_accum_steps": ("accumulate",),
    "gradient_clip_val": ("grad_clip_norm",),
    "clip_grad": ("grad_clip_norm",),
    "clip_grad_norm": ("grad_clip_norm",),
    "max_grad_norm": ("grad_clip_norm",),
    "grad_clip": ("grad_clip_norm",),
    "loss": ("pixel_opt",),
    "losses": ("pixel_opt",),
    "criterion": ("pixel_opt",),
    "pixel_loss": ("pixel_opt",),
    "gan_loss": ("gan_opt",),
    "seed": ("manual_seed",),
    "random_seed": ("manual_seed",),
    "gpu_ids": ("num_gpu",),
    "gpus": ("num_gpu",),
    "devices": ("num_gpu",),
    "model": ("model_type", "network_g"),
    "network": ("network_g",),
    "net_g": ("network_g",),
    "generator": ("network_g",),
    "arch": ("network_g",),
    "upscale": ("upscale", "scale"),
    "experiment": ("name",),
    "exp_name": ("name",),
    # paths
    "strict_load": ("strict_load_g",),
    "strict": ("strict_load_g",),
    "pretrained": ("pretrain_network_g",),
    "pretrain": ("pretrain_network_g",),
    "pretrain_model_g": ("pretrain_network_g",),
    "pretrained_model": ("pretrain_network_g",),
    "pretrain_network": ("pretrain_network_g",),
    "checkpoint": ("pretrain_network_g",),
    "checkpoint_path": ("pretrain_network_g",),
    "weights": ("pretrain_network_g",),
    "initial_checkpoint": ("pretrain_network_g",),
    "param_key": ("param_key_g",),
    "resume": ("resume_state",),
    "resume_from": ("resume_state",),
    "resume_from_checkpoint": ("resume_state",),
    "output_dir": ("experiments_root",),
    "save_dir": ("experiments_root",),
    "default_root_dir": ("experiments_root",),
    # validation and logging
    "check_val_every_n_epoch": ("val_freq",),
    "val_check_interval": ("val_freq",),
    "val_interval": ("val_freq",),
    "eval_freq": ("val_freq",),
    "save_images": ("save_img",),
    "save_image": ("save_img",),
    "tile_size": ("tile",),
    "tile_pad": ("tile_overlap",),
    "log_interval": ("print_freq",),
    "log_freq": ("print_freq",),
    "log_every_n_steps": ("print_freq",),
    "save_freq": ("save_checkpoint_freq",),
    "checkpoint_freq": ("save_checkpoint_freq",),
    "save_interval": ("save_checkpoint_freq",),
    "save_top_k": ("keep_checkpoints",),
    "use_wandb": ("wandb",),
    "tensorboard": ("use_tb_logger",),
    "tb_logger": ("use_tb_logger",),
    # components
    "l1": ("L1Loss",),
    "mae": ("L1Loss",),
    "l2": ("MSELoss",),
    "mse": ("MSELoss",),
    "charbonnier": ("CharbonnierLoss",),
    "ssim": ("SSIMLoss", "calculate_ssim"),
    "psnr": ("calculate_psnr",),
    "lpips": ("LPIPSLoss", "calculate_lpips"),
    "vgg": ("PerceptualLoss",),
    "perceptual": ("PerceptualLoss",),
    "cosine": ("CosineAnnealingRestartLR",),
    "step": ("MultiStepLR", "MultiStepRestartLR"),
    "paired": ("PairedImageDataset",),
    "single": ("SingleImageDataset",),
    "sr": ("SRModel", "RestorationModel"),
}
"""Words of BasicSR, Restormer, traiNNer, timm, Lightning and everyday speech, in lower case, and what they are called here,
the likeliest first. They answer before similar spelling does."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``" Did you mean 'dim'?"`` when one of `known` is close to `word`, else an empty string.

    >>> did_you_mean("dmi", ["dim", "bias"])
    " Did you mean 'dim'?"
    >>> did_you_mean("zzz", ["dim", "bias"])
    ''
    """
    by_lower = {k.lower(): k for k in known}
    for key in COMMON_MISTAKES.get(str(word).lower(), ()):
        if key.lower() in by_lower:
            return f" Did you mean '{by_lower[key.lower()]}'?"
    close = get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean '{by_lower[close[0]]}'?" if close else ""


def require(module: str, wanted_by: str, install: str | None = None) -> ModuleType:
    """Import an optional or heavy dependency when it is first needed.

    Args:
        module: dotted module name, e.g. ``"torchvision.models"``.
        wanted_by: what asks for it, for the message, e.g. ``"PerceptualLoss"``.
        install: what to tell the user to run; ``pip install <top-level name>`` when omitted.

    Raises:
        UserError: the module is missing, or is there and cannot be imported (a broken torchvision, say).
    """
    try:
        return importlib.import_module(module)
    except Exception as e:  # a broken binary wheel raises RuntimeError, OSError, AttributeError, ...
        top = module.split(".")[0]
        missing = isinstance(e, ModuleNotFoundError) and (e.name or "").split(".")[0] == top
        state = "is not installed" if missing else f"cannot be imported ({type(e).__name__}: {str(e).splitlines()[0]})"
        raise UserError(f"{wanted_by} needs {top}, which {state}. Try: {install or f'pip install {top}'}") from e
