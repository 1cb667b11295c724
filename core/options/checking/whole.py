"""What sections of which each key is right must have together: optimizers, losses and networks that fit the model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ....archs import ARCHS
from ....losses import LOSSES
from ....losses.base import LossTraits
from ...annotations import declared
from ...errors import did_you_mean
from ...models.base import Model
from ..nodes import Block, Problem
from ..schema import Options, Train
from .keys import LOSS_SUFFIX, OPTIMIZER_PREFIX, SCHEDULER_PREFIX, networks_of


def mistakes_in_training(
    block: Block, values: Train, model: type[Model], name: str, networks: Collection[str]
) -> Iterator[Problem]:
    """What is missing from a ``train`` section, or of no use in it.

    Args:
        block, values: the section as it was written and as it was read.
        model, name: the model wrapper and its ``model_type``.
        networks: keys of the file that begin with ``network_``.
    """
    if values.total_iter is None and values.total_epoch is None:
        yield Problem(block.place, "train lacks 'total_iter' (or 'total_epoch').")
    yield from _in_optimizers(block, values, model, name, networks)
    yield from _in_losses(block, values, model, name)
    for key in [f"network_{k}" for k in model.frozen if k not in model.required_networks]:
        if key not in networks:
            yield Problem(block.place, f"train: {name} is trained with a teacher, '{key}', which is missing")


def _in_optimizers(
    block: Block, values: Train, model: type[Model], name: str, networks: Collection[str]
) -> Iterator[Problem]:
    optimizers = [k for k in values if k.startswith(OPTIMIZER_PREFIX)]
    if not optimizers:
        text = "train: there is no optimizer; give one, such as optim_g: {type: Adam, lr: 2e-4}"
        yield Problem(block.place, text)
    for key in model.discriminators:
        text = ""
        if f"network_{key}" not in networks:
            text = f"{name} is trained against a discriminator, 'network_{key}', which is missing"
        elif f"{OPTIMIZER_PREFIX}{key}" not in values:
            needed = f"{OPTIMIZER_PREFIX}{key}: {{type: Adam, lr: 1e-4}}"
            text = f"there is no optimizer of network_{key}; give one, such as {needed}"
        if text:
            yield Problem(block.place, f"train: {text}")
    # Each optimizer trains the network of its name, unless the model says otherwise.
    if model.named_parameters is Model.named_parameters or model.optimizers:
        trained = [f"{OPTIMIZER_PREFIX}{k}" for k in networks_of(model) if k not in model.frozen]
        trained += [f"{OPTIMIZER_PREFIX}{k}" for k in model.optimizers]
        for key in optimizers:
            if key not in trained:
                text = f"{name} has no use for '{key}'. Accepted: {', '.join(trained)}."
                place = block.entries[key].place
                yield Problem(place, text if place else f"train.{key}: {text}")
    for key in values:
        optimizer = f"{OPTIMIZER_PREFIX}{key.removeprefix(SCHEDULER_PREFIX)}"
        if key.startswith(SCHEDULER_PREFIX) and optimizer not in values:
            text = f"train.{key}: there is no {optimizer} whose learning rate it could set"
            yield Problem(block.entries[key].place, text)


def _in_losses(block: Block, values: Train, model: type[Model], name: str) -> Iterator[Problem]:
    losses = [k for k in values if k.endswith(LOSS_SUFFIX)]
    for key in () if model.discriminators else losses:
        kind = values[key]["type"]
        if declared(LOSSES.get(kind), "of_discriminator", LossTraits):
            text = f"{kind} needs a discriminator, which {name} does not have; SRGANModel has"
            yield Problem(block.entries[key].place, f"train.{key}: {text}")
    if model.needs_losses and not losses:
        yield Problem(block.place, "train: there is no loss; give at least one, such as pixel_opt: {type: L1Loss}")


def mistakes_in_best(values: Options) -> Iterator[tuple[str, str]]:
    """What is wrong with ``val.best`` beside these validation sets: the key, and what."""
    names = [block.name or key for key, block in values.sets("val").items()]
    dataset = values.val.chosen.dataset
    if dataset is not None and dataset not in (*names, "mean"):
        known = ", ".join((*names, "mean"))
        text = f"no validation set is called '{dataset}'.{did_you_mean(dataset, names)} Known: {known}."
        yield "val.best.dataset", text


def mistakes_in_plateaus(values: Options) -> Iterator[tuple[str, str]]:
    """A schedule that follows a score where there is none: its key, and what is missing."""
    lacking = [
        k for k, given in (("datasets.val", values.sets("val")), ("val.metrics", values.val.metrics)) if not given
    ]
    for key, block in (values.train or {}).items() if lacking else ():
        if key.startswith(SCHEDULER_PREFIX.rstrip("_")) and block and block["type"] == "ReduceLROnPlateau":
            text = f"type: ReduceLROnPlateau follows a score, and there is none: give {' and '.join(lacking)}"
            yield f"train.{key}", text


def cautions(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys of networks, and what their architectures say of options that are accepted."""
    amp = (values.get("train") or {}).get("amp", "off")
    for key, block in values.items():
        if key.startswith("network_") and isinstance(block, Mapping) and block.get("type") in ARCHS:
            said = getattr(ARCHS.get(block["type"]), "cautions", None)
            for text in said(block, amp) if said else ():
                yield key, text
