"""What is refused of a generator's options and data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ....datasets.base import DatasetTraits
from ...annotations import declared, given_otherwise, usual
from ...errors import UserError


def mistakes_of_modes(block: str, kind: type, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Options of ``train.<block>`` that another one's value leaves without an effect, as ``MODES`` of their class has it."""
    for key, (by, values) in kind.MODES.items():  # type: ignore[attr-defined]
        mode = given.get(by, usual(kind, by))
        if given_otherwise(given, key, kind) and mode not in values:
            yield f"train.{block}.{key}", f"has no effect with {by}: {mode}, only with {' or '.join(values)}"


def check_classes(dataset: Any, labelled: bool, classes: int) -> None:
    """Refuse a training set that does not have images of each of a generator's classes, and of no others.

    Raises:
        UserError: the images have no classes, more classes, or none of one class.
    """
    wanted = f"network_g.label_dim is {classes}"
    if not labelled:
        raise UserError(f"{wanted}, but the training images have no classes: give the dataset labels, or set it to 0")
    found = declared(dataset, "num_classes", DatasetTraits)
    if found > classes:
        raise UserError(f"the training set has {found} classes, but {wanted}")
    labels = declared(dataset, "labels", DatasetTraits)
    if labels is not None:
        empty = (labels.bincount(minlength=classes) == 0).nonzero().flatten().tolist()
        if empty:
            among = f"classes {empty[0]} and {len(empty) - 1} more" if len(empty) > 1 else f"class {empty[0]}"
            raise UserError(f"{wanted}, but no training image is of {among}: number classes from 0 without gaps")
