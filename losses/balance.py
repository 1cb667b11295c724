"""Weights of several loss values, where the options do not fix them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..core.ops.constants import constant
from .common import checked_choice

BalanceMode = Literal["fixed", "random", "softmax", "uncertainty"]
BalanceStart = Literal["equal", "random"]


class Balance(nn.Module):
    """Weights of named losses, from one vector w with an entry for each of them.

    - ``fixed``: 1 for every loss, whatever its name; there is no vector.
    - ``random``: p = softmax(w) with w drawn once from U[0, 1) by torch's global generator, and never trained. This is what
      the published training of Spectroformer and Phaseformer does.
    - ``softmax``: the same with w trained, from w = 0 or, with `start` ``random``, from such a draw. Minimising sum p_i L_i
      alone would move all weight to the smallest loss; here ``entropy * mean(L) * sum p_i log p_i`` is added, in which mean(L)
      is a constant for the gradient. At the optimum p_i is proportional to exp(-L_i / (entropy * mean(L))), so whatever the
      losses' common scale, no weight falls below exp(-n / entropy) / n.
    - ``uncertainty``: weights exp(-s_i) with s trained, from s = 0, and ``sum s_i`` added (Kendall, Gal and Cipolla, CVPR
      2018). At the optimum each weighted loss is 1. Losses must be positive.

    The trained modes count as parameters of the network's optimizer, named ``losses.<...>``, so that ``param_groups`` can give
    them a larger learning rate, and no weight decay, which would pull them to equal weights.

    Args:
        names: names of the losses.
        mode: one of these.
        entropy: strength of the entropy term of ``softmax``; small is greedy, large is equal weights.

        start: values at which trained weights begin: all ``equal``, or w drawn from U[0, 1), as the originals' guide
            describes it.

    Raises:
        UserError: unknown mode or start.
    """

    def __init__(
        self, names: Sequence[str], mode: BalanceMode, entropy: float = 1.0, start: BalanceStart = "equal"
    ) -> None:
        super().__init__()
        self.mode = checked_choice(type(self).__name__, "mode", mode, BalanceMode)
        self.names = list(names)
        self.entropy = entropy
        if mode != "fixed":
            n = len(self.names)
            drawn = mode == "random" or checked_choice(type(self).__name__, "start", start, BalanceStart) == "random"
            self.weights = nn.Parameter(torch.rand(n) if drawn else torch.zeros(n), mode != "random")

    def shares(self) -> Mapping[str, Tensor | float]:
        """The weights of the losses by name, scalars, differentiable where they are trained."""
        if self.mode == "fixed":
            return defaultdict(lambda: 1.0)
        values = (-self.weights).exp() if self.mode == "uncertainty" else self.weights.softmax(dim=0)
        return dict(zip(self.names, values, strict=True))

    def penalty(self, values: Mapping[str, Sequence[Tensor]]) -> Tensor | None:
        """A scalar to add to the weighted sum, which keeps the weights from degenerating; None where nothing is trained.

        Args:
            values: unweighted scalars by the loss's name: all that its weight multiplies, such as one for each output.
        """
        if self.mode in ("fixed", "random"):
            return None
        if self.mode == "uncertainty":
            uses = constant(tuple(float(len(values[name])) for name in self.names), self.weights)
            return (uses * self.weights).sum()
        scale = torch.stack([v.detach().float() for name in self.names for v in values[name]]).sum() / len(self.names)
        shares = self.weights.softmax(dim=0)
        return self.entropy * scale * (shares * shares.clamp_min(1e-30).log()).sum()

    def logs(self) -> dict[str, Tensor]:
        """The current weights as scalars, named ``w_<name>``."""
        return {f"w_{name}": torch.as_tensor(share).detach() for name, share in self.shares().items()}
