"""What options of degradations may be: checked with the option file, and again when a degradation is built without one."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from ..annotations import Range, Rule
from ..errors import UserError
from ..registry import signature


def in_order(values: Sequence[float], least: float = -math.inf, most: float = math.inf) -> bool:
    """Whether this is a range [least, largest] within limits."""
    return len(values) == 2 and least <= values[0] <= values[1] <= most


ValueRange = Annotated[tuple[float, float], Rule("a range [least, largest]", in_order)]
Amounts = Annotated[
    tuple[float, float], Rule("a range [least, largest], neither negative", lambda v: in_order(v, least=0))
]
PartRange = Annotated[
    tuple[float, float], Rule("a range [least, largest] within [0, 1]", lambda v: in_order(v, least=0, most=1))
]
Factors = Annotated[
    tuple[float, float], Rule("a range [least, largest], both positive", lambda v: in_order(v) and v[0] > 0)
]
Qualities = Annotated[
    tuple[float, float],
    Rule("a range [least, largest] of qualities, from 1 to 100", lambda v: in_order(v, least=1, most=100)),
]
OddSize = Annotated[int, Rule("an odd number, so that the kernel has a centre", lambda k: k > 0 and k % 2 == 1)]
OddSizes = Annotated[
    tuple[int, int],
    Rule(
        "a range [least, largest] of odd sizes, so that kernels have a centre",
        lambda v: in_order(v, least=1) and all(k % 2 == 1 for k in v),
    ),
]
Probabilities = Annotated[
    list[float],
    Rule(
        "probabilities, none negative, that sum to 1",
        lambda p: bool(p) and min(p) >= 0 and abs(math.fsum(p) - 1) < 1e-3,
    ),
]
Three = Annotated[
    list[float],
    Rule(
        "three probabilities (up, down, keep), none negative, that sum to 1",
        lambda p: len(p) == 3 and min(p) >= 0 and abs(math.fsum(p) - 1) < 1e-3,
    ),
]
KernelType = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
Mode = Literal["area", "bilinear", "bicubic"]
JpegTable = Literal["basicsr", "standard"]


def hold(target: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Refuse values of `target`'s parameters that break a `Rule` or `Range` of their annotation.

    Args:
        target: a class or function whose parameters are options.
        values: values by name; others than its parameters are passed over.

    Raises:
        UserError: as the option checker says it.
    """
    for name, parameter in signature(target).items():
        value = values.get(name)
        if value is None:
            continue
        for annotation in (parameter.annotation, *typing.get_args(parameter.annotation)):
            for extra in getattr(annotation, "__metadata__", ()):
                if isinstance(extra, (Rule, Range)) and value not in extra:
                    raise UserError(f"{name}: must be {extra}, got {value}")


def one_each(name: str, members: Sequence[Any], weights: Sequence[float], of: str) -> None:
    """Refuse probabilities that are not one for every member of the list `of`.

    Raises:
        UserError: the two lists differ in length.
    """
    if len(members) != len(weights):
        raise UserError(f"{name}: has {len(weights)} probabilities for the {len(members)} entries of {of}")
