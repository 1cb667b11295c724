"""Frames at any binary fraction of time from a network that finds the middle: halve the interval again and again."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from torch import Tensor

from ..errors import UserError

MOST_HALVINGS = 10
"""Halvings at most: 1024 times as many frames."""

Middle = Callable[[Tensor, Tensor], Tensor]
"""Function from two frames to the one half-way between them."""


def frame_at(time: float, middle: Middle, made: dict[float, Tensor]) -> Tensor:
    """The frame (B, C, H, W) at a time between those at 0 and 1.

    The frame at an odd multiple of 2^-n is half-way between its neighbours at multiples of 2^-(n-1), which are found first.

    Args:
        time: k / 2^n.
        middle: function called once for every frame that is not in `made` yet.
        made: frames by time, with at least those at 0 and 1; what is found is added.

    Raises:
        UserError: a time that halving does not reach.
    """
    if time not in made:
        exact = Fraction(time)
        if not 0 < exact < 1 or exact.denominator > 2**MOST_HALVINGS:
            raise UserError(
                f"timestep {time:g}: halving reaches 1/2, 1/4, 3/4, 1/8, ...; other times need recursive: false"
            )
        step = Fraction(1, exact.denominator)
        before, after = (frame_at(float(exact + sign * step), middle, made) for sign in (-1, 1))
        made[time] = middle(before, after)
    return made[time]
