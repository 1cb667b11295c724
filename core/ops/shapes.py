"""Shapes of the arguments of ops, checked before a kernel could read beyond them."""

from __future__ import annotations

from typing import Any

from ..errors import UserError


def check_shapes(op: str, given: str, **wanted: tuple[Any, ...]) -> None:
    """Require of every argument in `wanted`, a tensor or None and then shapes, that it is None or has one of these shapes.

    Args:
        op: public name of the op.
        given: what the shapes follow from, as ``x (2, 3)``.

    Raises:
        UserError: one has another shape.
    """
    for name, (tensor, *shapes) in wanted.items():
        if tensor is not None and tuple(tensor.shape) not in shapes:
            accepted = " or ".join(map(str, dict.fromkeys(shapes)))
            raise UserError(f"{op}: for {given} {name} must be {accepted}; it is {tuple(tensor.shape)}")
