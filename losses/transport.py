"""Optimal transport between the local features of an output and its target, as losses of any model.

Where and which features an output has does not matter pixel by pixel: each must find its counterpart. `SinkhornLoss` compares
features themselves, `GWLoss` only their distances from one another within each image, `FGWLoss` both.
"""

from __future__ import annotations

from typing import Annotated, TypedDict

import torch
from torch import Tensor, nn

from ..core.annotations import Count, Positive, Range, Repeats, Share
from ..core.errors import UserError
from ..core.ops import hosts
from ..core.ops.precision import full_precision
from . import LOSSES
from .common import comparable
from .local_features import LOCAL_FEATURES
from .ot import costs, fused_gromov_wasserstein, sinkhorn

Features = Annotated[nn.Module, LOCAL_FEATURES]
FLOOR = 1 / 255**2
"""Least mean square by which costs are divided: of a target without any texture."""


class Effort(TypedDict):
    """What a solver may ask the device: see ``tol`` and ``bound`` of `sinkhorn`."""

    tol: float
    bound: Tensor | None


def effort(*of: Tensor) -> Effort:
    """How long to iterate on nonnegative costs, and what is known of their range.

    A CPU is asked, and iterations end once masses are wrong by 1e-6. Anything else would have to be waited for: there all
    iterations are done, and the largest cost stays where it is.
    """
    if hosts.asks_freely(of[0]):
        return {"tol": 1e-6, "bound": None}
    return {"tol": 0.0, "bound": torch.stack([cost.detach().amax() for cost in of]).amax()}


class TransportLoss(nn.Module):
    r"""The value of entropic transport between two sets of local features, a mean over the batch.

    .. math::

        \min_T \; \langle T, C\rangle + \varepsilon\, KL(T\,|\,ab^\top)
        \quad\text{subject to}\quad T 1 = a = 1/n,\; T^\top 1 = b = 1/m

    for `SinkhornLoss`; for the others with the objective of `ot.fused_gromov_wasserstein`. C is the mean square over the
    entries of two features, distances within an image are its roots, and all are in units of the mean over the pairs of the
    target's own features, which makes `epsilon` independent of contrast and of the kind of features.

    Gradients are those of the value by the envelope theorem: the plan is a constant, costs are not. With `debias` the value of
    each set with itself is taken off (half of either), so that equal images have loss 0 (Feydy et al., AISTATS 2019).

    Args:
        loss_weight: factor of the result.
        features: what the local features are, {type: pixels}, {type: vgg} or {type: dino}; pixels when omitted.
        epsilon: strength of the entropy, in units of the target's mean cost.
        patch: side in pixels of what one feature stands for.
        max_points: features of an image at most; of more, those on an even grid are taken. Memory grows with its square.
        debias: take off what the sets have with themselves.
        iters: iterations of Sinkhorn's algorithm at most, in each step of a descent.

    Raises:
        UserError: images that the features cannot take.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        features: Features | None = None,
        epsilon: Positive = 0.05,
        patch: Count = 8,
        max_points: Annotated[int, Range(least=2)] = 1024,
        debias: bool = False,
        iters: Repeats = 200,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.features = features if features is not None else LOCAL_FEATURES.build({"type": "pixels"})
        self.epsilon = epsilon
        self.patch = patch
        self.max_points = max_points
        self.debias = debias
        self.iters = iters

    def value(self, x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        """The value for sets (n, d) and (m, d), in units of `scale`.

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError

    def points(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, n, d), n at most `max_points`."""
        found: Tensor = self.features(images, self.patch)
        n = found.shape[1]
        if n <= self.max_points:
            return found
        kept = torch.linspace(0, n - 1, self.max_points, device=found.device).round().long()
        return found[:, kept]

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar, of images (B, C, H, W).

        Raises:
            UserError: the images are not (B, C, H, W), or empty.
        """
        pred, target = comparable(type(self).__name__, pred, target)
        if pred.dim() != 4 or 0 in pred.shape:
            raise UserError(f"{type(self).__name__}: images (B, C, H, W) are needed, not {tuple(pred.shape)}")
        with full_precision(pred):
            with torch.no_grad():
                wanted = self.points(target)
            values = [self.of_pair(x, y) for x, y in zip(self.points(pred), wanted, strict=True)]
            return self.loss_weight * torch.stack(values).mean()

    def of_pair(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of one image, a scalar, from its sets (n, d) and (m, d)."""
        with torch.no_grad():
            scale = mean_square(y, y).mean().clamp_min(FLOOR)
            own = self.value(y, y, scale) if self.debias else None
        value = self.value(x, y, scale)
        return value if own is None else value - (self.value(x, x, scale) + own) / 2


def mean_square(x: Tensor, y: Tensor) -> Tensor:
    """The mean square difference of features: (n, d) and (m, d) -> (n, m)."""
    return costs.squared_euclidean(x, y) / x.shape[1]


def within(x: Tensor, scale: Tensor) -> Tensor:
    """Distances between the features of one set, (n, n)."""
    return costs.euclidean(x) / (x.shape[1] * scale).sqrt()


def entropy(plan: Tensor) -> Tensor:
    """KL(T | a b^T) of a plan (n, m) between uniform marginals of mass 1."""
    return torch.xlogy(plan, plan * plan.numel()).sum()


@LOSSES.register()
class SinkhornLoss(TransportLoss):
    """Entropic optimal transport between local features (Cuturi, NeurIPS 2013). See `TransportLoss`."""

    def value(self, x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        cost = mean_square(x, y) / scale
        plan = sinkhorn(cost, epsilon=self.epsilon, max_iters=self.iters, **effort(cost)).plan
        return (plan * cost).sum() + self.epsilon * entropy(plan)


@LOSSES.register()
class FGWLoss(TransportLoss):
    """Fused Gromov-Wasserstein transport between local features (Vayer et al., 2020): features, and their distances from one
    another within each image. See `TransportLoss`.

    Args:
        alpha: weight of those distances, from 0 (`SinkhornLoss`) to 1 (`GWLoss`).
        outer_iters: steps of the descent at most.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        features: Features | None = None,
        alpha: Share = 0.5,
        epsilon: Positive = 0.05,
        patch: Count = 8,
        max_points: Annotated[int, Range(least=2)] = 1024,
        debias: bool = False,
        iters: Repeats = 200,
        outer_iters: Repeats = 30,
    ) -> None:
        super().__init__(loss_weight, features, epsilon, patch, max_points, debias, iters)
        self.alpha = alpha
        self.outer_iters = outer_iters

    def value(self, x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        cost = mean_square(x, y) / scale
        inner, outer = within(x, scale), within(y, scale)
        plan = fused_gromov_wasserstein(
            cost,
            inner,
            outer,
            alpha=self.alpha,
            epsilon=self.epsilon,
            outer_iters=self.outer_iters,
            inner_iters=self.iters,
            cost_scale="none",
            **effort(cost, inner, outer),
        ).plan
        rows, columns = plan.sum(1), plan.sum(0)
        squares = rows @ inner.square() @ rows + columns @ outer.square() @ columns
        structure = squares - 2 * ((inner @ plan @ outer) * plan).sum()
        return (1 - self.alpha) * (plan * cost).sum() + self.alpha * structure + self.epsilon * entropy(plan)


@LOSSES.register()
class GWLoss(FGWLoss):
    """Entropic Gromov-Wasserstein transport (Peyre, Cuturi and Solomon, ICML 2016): only the distances of features within each
    image are compared, so that the features of the two need not even be alike. See `TransportLoss`."""

    def __init__(
        self,
        loss_weight: float = 1.0,
        features: Features | None = None,
        epsilon: Positive = 0.05,
        patch: Count = 8,
        max_points: Annotated[int, Range(least=2)] = 1024,
        debias: bool = False,
        iters: Repeats = 200,
        outer_iters: Repeats = 30,
    ) -> None:
        super().__init__(loss_weight, features, 1.0, epsilon, patch, max_points, debias, iters, outer_iters)
