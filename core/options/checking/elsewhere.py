"""Keys that stand in another section than theirs, as habit and the flat files of other frameworks have them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from ....datasets.loading.options import Loader
from ...errors import meant
from ...runtime.logger import Logger
from ..schema import Options, Paths, Train, Val
from .kinds import parameters

WRITTEN = {
    "": ("network_g",),
    "path": ("pretrain_network_g", "param_key_g", "strict_load_g"),
    "train": ("optim_g", "pixel_opt", "perceptual_opt", "gan_opt"),
    "train.optim_g": ("lr", "betas", "weight_decay"),
    "datasets.train": ("gt_size", "use_hflip", "use_rot", "dataroot_gt", "dataroot_lq"),
}
"""Keys that almost every file has, and no section declares."""


@cache
def homes() -> Mapping[str, tuple[str, ...]]:
    """The keys of each section, by its dotted name."""
    declared = {"": Options, "train": Train, "val": Val, "logger": Logger, "path": Paths, "datasets.train": Loader}
    names = dict.fromkeys((*declared, *WRITTEN), ())
    return {n: (*(parameters(declared[n]) if n in declared else ()), *WRITTEN.get(n, ())) for n in names}


def elsewhere(name: str, key: str) -> str:
    """``" Did you mean 'val.val_freq'?"`` of a key that another section than `key` has, by its name or a common word for it.

    >>> elsewhere("val_freq", "train"), elsewhere("learning_rate", "train"), elsewhere("batch_size", "")
    (" Did you mean 'val.val_freq'?", " Did you mean 'train.optim_g.lr'?", " Did you mean 'datasets.train.batch_size_per_gpu'?")
    >>> elsewhere("val_freq", "val"), elsewhere("zzz", "train")
    ('', '')
    """
    own = "datasets.train" if key.startswith("datasets.") else key
    for section, keys in homes().items():
        found = meant(name, keys) if section != own else None
        if found is not None:
            return f" Did you mean '{f'{section}.{found}' if section else found}'?"
    return ""
