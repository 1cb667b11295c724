"""A convex combination of losses."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor, nn

from ..core.errors import UserError
from . import LOSSES
from .balance import Balance
from .common import checked_choice

Init = Literal["random", "equal"]


@LOSSES.register()
class LearnedWeights(Balance):
    """Several losses, weighted by the softmax of a vector: sum_i p_i L_i with p = softmax(w).

    Spectroformer draws w uniformly from [0, 1) and never trains it, as its optimizer has the network's parameters only;
    that is the default. Trained (`learn`), the weights drift to whichever loss is smallest, since that minimises the
    sum; ``train.balance`` has modes that do not. They are part of the model's checkpoint either way, so a resumed run
    keeps its draw.

    Called as ``loss(pred, target)``, it returns ``{term: p_i L_i}``; a term that returns several values gives
    ``{term_name: ...}``. `logs` gives the weights as ``w_<term>``.

    Args:
        terms: losses by name.
        learn: let the optimizer of the network train w.
        init: ``random`` draws w from U[0, 1) with torch's global generator, ``equal`` gives every term the same weight.

    Raises:
        UserError: no terms.
    """

    def __init__(
        self, terms: dict[str, Annotated[nn.Module, LOSSES]], learn: bool = False, init: Init = "random"
    ) -> None:
        if not terms:
            raise UserError("LearnedWeights: terms is empty; give at least one loss")
        super().__init__(list(terms), "random")
        self.terms = nn.ModuleDict(terms)
        if checked_choice("LearnedWeights", "init", init, Init) == "equal":
            nn.init.zeros_(self.weights)
        self.weights.requires_grad_(learn)

    def forward(self, pred: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Weighted scalars by term, of two images (B, C, H, W)."""
        weighted: dict[str, Tensor] = {}
        for name, share in self.shares().items():
            value = self.terms[name](pred, target)
            if isinstance(value, Tensor):
                weighted[name] = share * value
            else:
                weighted.update({f"{name}_{part}": share * v for part, v in value.items()})
        return weighted
