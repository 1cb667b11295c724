"""Functions as operators of PyTorch with a gradient, which ``torch.compile`` calls without looking inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from . import operations

LIBRARY = torch.library.Library("relume", "FRAGMENT")
"""Where rules for autocast are registered; those of PyTorch cast to a dtype that is known beforehand."""


def custom_operator(
    name: str,
    forward: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any],
    fake_backward: Callable[..., Any],
    setup: Callable[..., None],
    gradients: Callable[..., Any],
    refusal: str,
    lowered: bool = False,
) -> Any:
    """``relume::name`` and ``relume::name_backward``, the first with the second as its gradient, the second with none.

    The first call imports torch's compiler, which takes seconds: on a CPU outside of it, use something else.

    Args:
        name: name of the operator.
        forward, fake: function of tensors, and the same for tensors without data.
        backward, fake_backward: gradient of the operator, as a function of tensors, and the same for tensors without data.
        setup: ``setup(ctx, inputs, output)`` keeps what `gradients` needs.
        gradients: ``gradients(ctx, backward_operator, *grads)`` gives the gradient of every input; None stands for that of
            a result that nothing was made of.
        refusal: what is said to who differentiates twice.
        lowered: whether autocast casts its inputs, as those of a matrix product; it leaves them as they come otherwise.

    Raises:
        UserError: somebody differentiates twice, and there is no second derivative.
    """
    inner = torch.library.custom_op(f"relume::{name}_backward", backward, mutates_args=())
    inner.register_fake(fake_backward)

    def refuse(ctx: Any, *grads: Any) -> None:
        raise UserError(refusal)

    inner.register_autograd(refuse)
    outer = torch.library.custom_op(f"relume::{name}", forward, mutates_args=())
    outer.register_fake(fake)

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.set_materialize_grads(False)  # zeros for what has no gradient, as statistics, cost a launch and a map
        setup(ctx, inputs, output)

    outer.register_autograd(lambda ctx, *grads: gradients(ctx, inner, *grads), setup_context=keep)
    _under_autocast(name, outer, lowered)
    operations.register(name)
    return outer


def or_zeros(grad: Tensor | None, like: Tensor) -> Tensor:
    """The gradient of a result, or zeros of the shape of `like` where no gradient arrived."""
    return torch.zeros_like(like) if grad is None else grad


def _under_autocast(name: str, op: Callable[..., Any], lowered: bool) -> None:
    def rule(device: str) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            dtype = torch.get_autocast_dtype(device)
            if lowered:
                args = tuple(
                    a.to(dtype) if isinstance(a, Tensor) and a.is_floating_point() and a.dtype != torch.float64 else a
                    for a in args
                )
            with torch.autocast(device, enabled=False):
                return op(*args)

        return run

    for device in ("cuda", "cpu"):
        LIBRARY.impl(name, rule(device), f"Autocast{device.upper()}")
