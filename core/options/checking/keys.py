"""Keys of option files that no section declares: those of networks, losses, optimizers and of the model wrapper."""

from __future__ import annotations

import re

from ...models.base import Model
from ...registry import Parameter
from ..schema import LossBlock, OptimizerBlock, Options, SchedulerBlock
from .kinds import parameters

LOSS_SUFFIX = "_opt"
OPTIMIZER_PREFIX = "optim_"
SCHEDULER_PREFIX = "scheduler_"
TRAIN_BLOCKS = {
    f"^{OPTIMIZER_PREFIX}": OptimizerBlock,
    f"^{SCHEDULER_PREFIX}": SchedulerBlock,
    f"{LOSS_SUFFIX}$": LossBlock,
}
"""Forms of keys under ``train`` (regular expressions), and the components that they hold."""
PLACES = ("dataroot", "meta_info", "layout", "filename_tmpl", "io_backend", "weights")
"""How the parameters of data sets begin that say where the data is, and how it is kept there."""
FROM_ABOVE = ("phase", "scale")
"""Parameters of datasets that follow from the block's key and from the top level, unless the block gives them."""
USUAL_KEYS = ("pixel_opt", "perceptual_opt", "gan_opt", "fft_opt", "optim_g", "optim_d")
"""Names for did-you-mean where any name of a form is accepted."""


def networks_of(model: type[Model]) -> list[str]:
    """Keys of all networks that a model wrapper takes."""
    every = (*model.required_networks, *model.optional_networks, *model.discriminators, *model.frozen)
    return list(dict.fromkeys(every))


def top_level_keys(model: type[Model] | None) -> dict[str, Parameter]:
    """Keys that a model reads at the top level besides those that every file may have there."""
    if model is None or model.top_level is None:
        return {}
    known = parameters(Options)
    return {k: p for k, p in parameters(model.top_level).items() if k not in known}


def names_component(key: str) -> bool:
    """Whether a key outside the fixed ones holds a ``type:`` block, which null leaves out."""
    return key.startswith("network_") or any(re.search(p, key) for p in TRAIN_BLOCKS)
