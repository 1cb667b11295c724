"""Datasets: selected by ``type`` in a ``datasets.*`` block; the other keys are constructor or loader options."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..core.annotations import fields
from ..core.errors import UserError
from ..core.registry import Registry
from .frame_indices import generate_frame_indices as generate_frame_indices
from .loading.options import Loader

log = logging.getLogger("relume")
DATASETS = Registry("dataset", "relume.datasets")


def meant_type(opt: Mapping[str, Any]) -> Any:
    """The type of a block, told by its other keys where two data sets have one name.

    >>> meant_type({"type": "Vimeo90KDataset", "dataroot_gt": "x"}), meant_type({"type": "Vimeo90KDataset", "dataroot": "x"})
    ('Vimeo90KNeighboursDataset', 'Vimeo90KDataset')
    """
    name = opt.get("type")
    theirs = name == "Vimeo90KDataset" and {"dataroot_gt", "dataroot_lq"} & set(opt)
    return "Vimeo90KNeighboursDataset" if theirs else name


def say_which(opt: Mapping[str, Any], taken: Any) -> None:
    """Log which of two data sets of one name is taken."""
    if opt.get("type") == "Vimeo90KDataset":
        what = "frames and their neighbours, for restoration" if taken != opt["type"] else "triplets, for interpolation"
        log.info("Vimeo90KDataset: %s (%s), as its keys say", what, taken)


def build_dataset(opt: Mapping[str, Any], **injected: Any) -> Any:
    """Build the dataset that a ``datasets.*`` block describes.

    Args:
        opt: the block, not modified. Loading options in it (``batch_size_per_gpu``, ...) are left to the loader.
        injected: values such as ``phase`` and ``scale``, used where the constructor has the parameter and the block is
            silent about it.

    Raises:
        UserError: an option or the data are wrong; the message names the dataset.
    """
    loading = {f.name for f in fields(Loader)}
    block = {k: v for k, v in opt.items() if k not in loading}
    if "type" in block:
        block["type"] = meant_type(block)
        say_which(opt, block["type"])
    name = opt.get("name") or injected.get("phase")
    try:
        if "type" in block and DATASETS.takes_block(block["type"]):
            from .foreign import ForeignDataset, own_block

            given = {k: v for k, v in opt.items() if v is not None or k in block}
            values = own_block({**given, **{k: v for k, v in injected.items() if k not in given}})
            return ForeignDataset(DATASETS.build(values), values)
        accepted = DATASETS.parameters(block["type"]) if "type" in block else {}
        block.update({k: v for k, v in injected.items() if k in accepted and k not in block})
        return DATASETS.build(block)
    except UserError as e:
        raise UserError(f"dataset {name}: {e}" if name else str(e)) from e
