"""Sinkhorn's iterations in the log domain, and the kernel that iterations out of it go on with.

The plan is ``T_ij = exp(phi_i + gamma_j + logits_ij)``. One iteration is gamma from the columns' log-sum-exp, then phi from the
rows'. Fused (`log_sinkhorn_triton`) it takes two launches over many multiprocessors and no memory but the potentials, where
PyTorch takes about twenty and copies of the matrix; neither waits for the device.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from .dispatch import device_obstacle, use_kernel
from .self_test import case
from .shapes import check_shapes


class PotentialRule(NamedTuple):
    """How a potential follows from the log-sum-exp of its row or column: ``outside`` log a - ``damping`` lse.

    It is -inf where the marginal a is 0, and, if `relaxed`, where the log-sum-exp is -inf: no mass goes there.
    """

    damping: float = 1.0
    outside: float = 1.0
    relaxed: bool = False

    def potential(self, marginal: Tensor, lse: Tensor) -> Tensor:
        """The new potential (n,) from a marginal (n,) and the log-sum-exps (n,) of its rows or columns."""
        empty = marginal == 0
        if self.relaxed:
            empty |= lse == -torch.inf
        return (self.outside * marginal.log() - self.damping * lse).masked_fill_(empty, -torch.inf)


def update_potentials(
    logits: Tensor, a: Tensor, b: Tensor, phi: Tensor, gamma: Tensor, iterations: int, rule: PotentialRule
) -> None:
    """Update both potentials in place.

    Args:
        logits: (n, m), of any strides; -inf forbids a pair.
        a: marginal of the rows, (n,).
        b: marginal of the columns, (m,).
        phi: potentials of the rows to start from, (n,).
        gamma: potentials of the columns, (m,); without influence unless `iterations` is 0.
        iterations: how many.
        rule: how a potential is made.

    Raises:
        UserError: shapes do not go together, or kernels are forced on and cannot run.
    """
    _checked("update_potentials", logits, a=a, b=b, phi=phi, gamma=gamma)
    if _fuses(logits, a=a, b=b, phi=phi, gamma=gamma):
        from .log_sinkhorn_triton import update_fused

        update_fused(logits, a, b, phi, gamma, iterations, *rule)
        return
    for _ in range(iterations):
        gamma.copy_(rule.potential(b, torch.logsumexp(logits + phi[:, None], 0)))
        phi.copy_(rule.potential(a, torch.logsumexp(logits + gamma, 1)))


def absorbed(logits: Tensor, phi: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """``K = exp(logits + phi + gamma - shift)``, contiguous (n, m), and `shift` (m,), which makes every column's maximum 1.

    The shift of a column without any pair is the smallest number of the dtype.

    Raises:
        UserError: shapes do not go together, or kernels are forced on and cannot run.
    """
    _checked("absorbed", logits, phi=phi, gamma=gamma)
    if _fuses(logits, phi=phi, gamma=gamma):
        from .log_sinkhorn_triton import absorbed_fused

        both: tuple[Tensor, Tensor] = absorbed_fused(logits, phi, gamma)
        return both
    kernel = torch.add(logits, phi[:, None]).add_(gamma).contiguous()
    shift = kernel.amax(0).clamp_min_(torch.finfo(kernel.dtype).min)  # an empty column's maximum is -inf
    return kernel.sub_(shift).exp_(), shift


@case("log_sinkhorn", (5, 7), (5,), (7,), sized=lambda side, m: ((side**2, m), (side**2,), (m,)))
def _case(logits: Tensor, a: Tensor, b: Tensor) -> Tensor:
    phi, gamma = torch.ones_like(a), torch.ones_like(b)
    with torch.no_grad():
        update_potentials(logits, a, b, phi, gamma, 2, PotentialRule())
        kernel, shift = absorbed(logits, phi, gamma)
    return torch.cat([phi, gamma, shift, kernel.flatten()]).detach()


def _checked(owner: str, logits: Tensor, **vectors: Tensor) -> None:
    if logits.dim() != 2:
        raise UserError(f"{owner}: logits must be (n, m); it is {tuple(logits.shape)}")
    n, m = ((s,) for s in logits.shape)
    sizes = {name: (t, n if name in ("a", "phi") else m) for name, t in vectors.items()}
    check_shapes(owner, f"logits {tuple(logits.shape)}", **sizes)


def _fuses(logits: Tensor, **vectors: Tensor) -> bool:
    return use_kernel("log_sinkhorn", functools.partial(obstacle, logits, **vectors), logits)


def obstacle(logits: Tensor, **vectors: Tensor) -> str | None:
    """Why the Triton version cannot run on logits (n, m) and vectors (n,) or (m,), or None if it can."""
    for name, t in {"logits": logits, **vectors}.items():
        if t.dtype != torch.float32:
            return f"it computes in float32, {name} is {str(t.dtype).removeprefix('torch.')}"
        if t is not logits and not t.is_contiguous():
            return f"it takes contiguous vectors, {name} has strides {t.stride()}"
    return device_obstacle("log_sinkhorn", logits=logits, **vectors)
