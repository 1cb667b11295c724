"""Names that a user may have meant: words of other frameworks, slips of the fingers, and short lists of what there is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

from .text import VALUE, printable

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
    "dataroot_gt": ("dataroot",),
    "dataroot_lq": ("dataroot",),
    "lr_root": ("dataroot_lq",),
    "input_dir": ("dataroot_lq",),
    "root": ("dataroot", "dataroot_lq"),
    "data_dir": ("dataroot", "dataroot_lq"),
    "data_root": ("dataroot", "dataroot_lq"),
    "validation": ("val",),
    "valid": ("val",),
    # training
    "epochs": ("total_epoch", "total_iter"),
    "max_epochs": ("total_epoch", "total_iter"),
    "total_epochs": ("total_epoch", "total_iter"),
    "num_epochs": ("total_epoch", "total_iter"),
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
    "lr_scheme": ("scheduler",),
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
    "pixel_criterion": ("pixel_opt",),
    "pixel_weight": ("pixel_opt",),
    "gan_loss": ("gan_opt",),
    "seed": ("manual_seed",),
    "random_seed": ("manual_seed",),
    "gpu_ids": ("num_gpu",),
    "gpus": ("num_gpu",),
    "devices": ("num_gpu",),
    "model": ("model_type", "network_g"),
    "network": ("network_g",),
    "net_g": ("network_g",),
    "netg": ("network_g",),
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
    "pretrain_model": ("pretrain_network_g",),
    "pretrain_network": ("pretrain_network_g",),
    "checkpoint": ("pretrain_network_g",),
    "checkpoint_path": ("pretrain_network_g",),
    "weights": ("pretrain_network_g",),
    "initial_checkpoint": ("pretrain_network_g",),
    "param_key": ("param_key_g",),
    "resume": ("resume_state",),
    "resume_from": ("resume_state",),
    "resume_from_checkpoint": ("resume_state",),
    "output": ("experiments_root",),
    "output_dir": ("experiments_root",),
    "save_dir": ("experiments_root",),
    "default_root_dir": ("experiments_root",),
    # validation and logging
    "check_val_every_n_epoch": ("val_freq",),
    "val_check_interval": ("val_freq",),
    "val_interval": ("val_freq",),
    "val_every": ("val_freq",),
    "interval": ("val_freq",),
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
    "dists": ("DISTSLoss", "calculate_dists"),
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


AFFIXES = re.compile(
    r"^(calculate_|optim_|network_|pretrain_network_|strict_load_|param_key_|dataroot_|use_|val_)|"
    r"(Dataset|Loss|Model|LR|Net|_opt|_freq|_iter|\.ya?ml|\.py)$"
)
"""What many names have in common, which says nothing about how near two of them are."""
SHOWN = 12
"""Names that a message lists at most."""


def did_you_mean(word: str, known: Iterable[str], files: bool = False) -> str:
    """``" Did you mean 'dim'?"`` when one of `known` is close to `word`, else an empty string.

    Close is a slip of the fingers: a letter or two. Another number is another thing, except in names of `files`.

    >>> did_you_mean("dmi", ["dim", "bias"])
    " Did you mean 'dim'?"
    >>> did_you_mean("zzz", ["dim", "bias"]), did_you_mean("vgg16_bn", ["vgg16", "vgg19"])
    ('', '')
    """
    word = str(word)
    known = list(known)
    if (found := meant(word, known)) is not None and found != word:
        return f" Did you mean '{found}'?"
    if not word.strip() or len(word) > VALUE:
        return ""
    near = [(distance, k) for k in known if (distance := slips(word, k, files)) is not None]
    return f" Did you mean '{printable(min(near)[1])}'?" if near else ""


def meant(word: str, known: Iterable[str]) -> str | None:
    """What of `known` a word is, but for capitals, or is called in other frameworks.

    >>> meant("bs", ["name", "batch_size_per_gpu"]), meant("NAME", ["name"]), meant("nmae", ["name"])
    ('batch_size_per_gpu', 'name', None)
    """
    by_lower = {k.lower(): k for k in known}
    words = (*COMMON_MISTAKES.get(word.lower(), ()), word.lower())
    return next((by_lower[w.lower()] for w in words if w.lower() in by_lower), None)


def slips(word: str, known: str, files: bool = False) -> int | None:
    """Letters in which `word` is a slip of `known`; None when it is too far from it to be one.

    >>> slips("grad_clip", "use_grad_clip"), slips("CharbonierLoss", "CharbonnierLoss"), slips("L2Loss", "L1Loss")
    (None, 1, None)
    """
    a, b = word.lower(), known.lower()
    digits = sorted(filter(str.isdigit, a))
    if not files and digits and digits != sorted(filter(str.isdigit, b)):
        return None
    cores = [AFFIXES.sub("", w) for w in (word, known)]
    size = max(map(len, cores))
    most = 0 if size < 3 else 1 if size < 6 else 2 if size < 12 else 3
    if abs(len(a) - len(b)) > most:
        return None
    acronyms = size <= 4 and cores != [word, known]  # calculate_niqe, GANLoss: another letter makes another word
    distance = edits(a, b, 2 if acronyms else 1)
    if distance > most or (distance > 1 and a[0] not in b[:2] and b[0] not in a[:2]):
        return None
    short = not files and (cores != [word, known] or word == word.upper())  # with calculate_, say, or in capitals
    return None if distance and short and is_another_acronym(*cores) else distance


def is_another_acronym(a: str, b: str) -> bool:
    """Whether two short names of capitals, or of scores, begin or end with other letters: DAT and CAT, PSNR and WPSNR."""
    acronyms = max(len(a), len(b)) <= 6 and all(w == w.upper() or w == w.lower() for w in (a, b))
    a, b = a.lower(), b.lower()
    (_, under, tail), (_, of_other, other) = a.rpartition("_"), b.rpartition("_")
    if (
        under
        and of_other
        and min(len(tail), len(other)) <= 2
        and not (tail.startswith(other) or other.startswith(tail))
    ):
        return True  # psnr_y and psnr_mu
    return acronyms and bool(a and b) and (a[0], a[-1]) != (b[0], b[-1]) and sorted(a) != sorted(b)


def edits(a: str, b: str, replacing: int = 1) -> int:
    """Letters to put in, take out, exchange with their neighbour (1 each) or replace between two words."""
    before, last = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        row = [i]
        for j, y in enumerate(b, start=1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (replacing if x != y else 0))
            if i > 1 and j > 1 and x == b[j - 2] and y == a[i - 2]:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def listing(known: Iterable[str], word: str = "", all_of_them: str = "") -> str:
    """Names as messages list them: all of a few; else those most like `word`, how many there are, and where they all are.

    Args:
        all_of_them: a command that lists them, ``relume list losses``.

    >>> listing(["b", "a"]), listing(map(str, range(40)), "39", "relume list numbers")[-36:]
    ('b, a', '... (40 in all: relume list numbers)')
    """
    names = list(dict.fromkeys(known))
    if len(names) <= SHOWN:
        return ", ".join(map(printable, names))
    word = word.lower()[:VALUE]
    nearest = sorted(names, key=lambda n: -SequenceMatcher(None, word, n.lower()).ratio()) if word else names
    where = f": {all_of_them}" if all_of_them else ""
    return f"{', '.join(map(printable, nearest[: SHOWN - 1]))}, ... ({len(names)} in all{where})"
