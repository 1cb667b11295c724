"""Shapes of the arguments of ops, checked before a kernel could read beyond them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..errors import UserError


def check_devices(op: str, **tensors: Tensor | None) -> None:
    """Require of all tensors, or None, to be on one device; a tensor of no dimensions may be anywhere, as elsewhere in PyTorch.

    Args:
        op: name of the op.
        tensors: tensors by the names of the op's arguments.

    Raises:
        UserError: two are on different ones.
    """
    given = [(name, t) for name, t in tensors.items() if t is not None and t.dim()]
    for name, t in given[1:]:
        first, x = given[0]
        if t.device != x.device:
            raise UserError(
                f"{op}: its tensors must be on one device; {first} is on {x.device} and {name} on {t.device}"
            )


def depthwise_shape(kernel: Tensor, channels: int) -> tuple[int, int, int, int]:
    """(channels, 1, k, k), k odd: what a depthwise kernel about as large as this one must have."""
    side = kernel.shape[-1] | 1 if kernel.dim() else 1
    return channels, 1, side, side


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
