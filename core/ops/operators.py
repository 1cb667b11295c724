"""Functions as operators of PyTorch with a gradient, which ``torch.compile`` calls without looking inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..errors import UserError


def operator(
    name: str,
    forward: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any],
    fake_backward: Callable[..., Any],
    setup: Callable[..., None],
    gradients: Callable[..., Any],
    refusal: str,
) -> Any:
    """``relume::name`` and ``relume::name_backward``, the first with the second as its gradient, the second with none.

    The first call imports torch's compiler, which takes seconds: on a CPU outside of it, use something else.

    Args:
        name: of the operator.
        forward, fake: of tensors; the same for tensors without data.
        backward, fake_backward: likewise.
        setup: ``setup(ctx, inputs, output)`` keeps what `gradients` needs.
        gradients: ``gradients(ctx, backward_operator, *grads)`` gives the gradient of every input.
        refusal: what is said to who differentiates twice.
    """
    inner = torch.library.custom_op(f"relume::{name}_backward", backward, mutates_args=())
    inner.register_fake(fake_backward)

    def refuse(ctx: Any, *grads: Any) -> None:
        raise UserError(refusal)

    inner.register_autograd(refuse)
    outer = torch.library.custom_op(f"relume::{name}", forward, mutates_args=())
    outer.register_fake(fake)
    outer.register_autograd(lambda ctx, *grads: gradients(ctx, inner, *grads), setup_context=setup)
    return outer
