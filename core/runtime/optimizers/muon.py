"""Muon for networks as they are: matrices by Muon's rule, everything else by AdamW's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from ...annotations import Positive, Range
from . import OPTIMIZERS

Momentum = Annotated[float, Range(least=0, below=1)]
Decay = Annotated[float, Range(least=0)]


def orthogonalised(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Nearly ``U V^T`` for a matrix ``U S V^T``, by Newton and Schulz's iteration of a polynomial of degree five, in bfloat16.

    Args:
        matrix: (m, n).
        coefficients: a, b, c of ``a X + b (X X^T) X + c (X X^T)^2 X``.
        steps: iterations.
        eps: least norm that `matrix` is divided by.
    """
    a, b, c = coefficients
    x = matrix.bfloat16()
    wide = matrix.shape[0] <= matrix.shape[1]
    x = x if wide else x.T
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.T


def rate_factor(shape: Sequence[int], kind: str) -> float:
    """What the rate of an m x n matrix is multiplied by: its own shape's share, or what gives updates of AdamW's size."""
    rows, columns = shape
    return math.sqrt(max(1.0, rows / columns)) if kind == "original" else 0.2 * math.sqrt(max(rows, columns))


@OPTIMIZERS.register()
class Muon(torch.optim.Optimizer):
    """Jordan et al., Muon: an optimizer for hidden layers, 2024; torch's Muon for matrices, torch's AdamW for the rest.

    Muon's are the hidden layers' weights of two dimensions, and with ``convolutions: flatten`` those of convolutions as
    matrices of a row for each output channel. AdamW's are the first and the last layer of the network, vectors, numbers, and
    with ``convolutions: adamw`` all convolutions. Depthwise kernels, whose rows are independent of one another, are too.

    Args:
        params: groups with a key ``use_muon``, see `divided`.
        lr: learning rate of Muon; it multiplies an update of the norm of an orthogonal matrix.
        weight_decay: decoupled weight decay of both.
        momentum: momentum of Muon's moving average of gradients.
        nesterov: look ahead by the momentum.
        ns_coefficients: coefficients of the polynomial, see `orthogonalised`.
        eps: least norm that a matrix is divided by, see `orthogonalised`.
        ns_steps: iterations of the polynomial, see `orthogonalised`.
        adjust_lr_fn: ``original`` or ``match_rms_adamw``, see `rate_factor`.
        convolutions: which of the two has the convolutions: ``flatten`` is Muon, ``adamw`` AdamW.
        adamw_lr: learning rate of AdamW; `lr` when omitted. (With ``match_rms_adamw`` one rate is right for both.)
        adamw_betas: betas of AdamW.
        adamw_eps: epsilon of AdamW.
    """

    def __init__(
        self,
        params: Any,
        lr: Annotated[float, Range(least=0)] = 1e-3,
        weight_decay: Decay = 0.1,
        momentum: Momentum = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: Positive = 1e-7,
        ns_steps: Annotated[int, Range(least=1, most=99)] = 5,
        adjust_lr_fn: Literal["original", "match_rms_adamw"] = "match_rms_adamw",
        convolutions: Literal["flatten", "adamw"] = "flatten",
        adamw_lr: Annotated[float, Range(least=0)] | None = None,
        adamw_betas: tuple[Momentum, Momentum] = (0.9, 0.95),
        adamw_eps: Positive = 1e-8,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": tuple(ns_coefficients),
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
            "adamw_betas": tuple(adamw_betas),
            "adamw_eps": adamw_eps,
            "use_muon": False,
        }
        super().__init__(params, defaults)

    @staticmethod
    def divided(
        groups: Iterable[Mapping[str, Any]], every: Sequence[nn.Parameter], settings: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Groups of parameters, each divided into Muon's and AdamW's.

        Args:
            every: all parameters in the network's order.
            settings: the options of this optimizer.
        """
        flat = settings.get("convolutions", "flatten") == "flatten"
        layers = [p for p in every if p.dim() >= 2]
        outer = {id(p) for p in (layers[:1] + layers[-1:])}

        def is_muons(p: nn.Parameter) -> bool:
            matrix = p.dim() == 2 or (flat and p.dim() > 2)
            return matrix and id(p) not in outer and p.shape[0] > 1 and p[0].numel() > p[0, 0].numel()

        found = []
        for group in groups:
            rest = {k: v for k, v in group.items() if k != "params"}
            own = [p for p in group["params"] if is_muons(p)]
            others = [p for p in group["params"] if not is_muons(p)]
            rate = {"lr": settings["adamw_lr"]} if settings.get("adamw_lr") is not None and "lr" not in rest else {}
            found += [{**rest, "params": own, "use_muon": True}] if own else []
            found += [{**rest, **rate, "params": others, "use_muon": False}] if others else []
        return found

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of every group."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["use_muon"]:
                for p in parameters:
                    self._by_muon(p, group)
            elif parameters:
                self._by_adamw(parameters, group)

    def _by_muon(self, p: nn.Parameter, group: Mapping[str, Any]) -> None:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p.grad)
        average, gradient = state["momentum_buffer"], p.grad
        average.lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(average, group["momentum"]) if group["nesterov"] else average
        matrix = update.reshape(len(p), -1)
        matrix = orthogonalised(matrix, group["ns_coefficients"], group["ns_steps"], group["eps"])
        p.mul_(1 - group["lr"] * group["weight_decay"])
        factor = rate_factor(matrix.shape, group["adjust_lr_fn"])
        p.add_(matrix.reshape(p.shape).to(p.dtype), alpha=-float(group["lr"]) * factor)

    def _by_adamw(self, parameters: list[nn.Parameter], group: Mapping[str, Any]) -> None:
        for p in parameters:
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        states = [self.state[p] for p in parameters]
        adamw(
            list(parameters),
            [p.grad for p in parameters if p.grad is not None],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            foreach=False,
            amsgrad=False,
            beta1=group["adamw_betas"][0],
            beta2=group["adamw_betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["adamw_eps"],
            maximize=False,
        )
