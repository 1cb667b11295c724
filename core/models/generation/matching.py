"""Which training image each generated one is to become: optimal transport between features, and targets from its plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ....losses import ot
from ....losses.ot import costs, targets
from ....schedulers.ramp import Ramp
from ...annotations import Count, Range, Repeats
from ...errors import UserError
from .bank import MemoryBank

MaybeRamp = float | Ramp


@dataclass
class MatchingOptions:
    """How generated images are matched with the memory bank's. Schedules count training samples.

    Args:
        pairing: ``ot``; or ``random``, the ablation: each generated image gets the training image of its place in the batch.
        scope: match the images of one micro-batch of one rank, or all that an iteration generates (``global``), which costs one
            more forward pass and gives a better plan.
        target: ``argmax`` of a plan's row; ``sample`` from it, which is unbiased; ``barycentre``, its mean; ``topk``, the mean
            of its largest; ``assignment``, the most likely matching without repetition.
        topk: number of largest entries that ``topk`` takes the mean of.
        temperature: temperature of a row before a target is taken from it: T_ij^(1 / temperature). 1 is the plan.
        epsilon: strength of the entropy, relative to the largest costs.
        fgw_lambda: weight of the structure (Gromov-Wasserstein), from 0, none, to 1. See `ot.from_lambda`.
        structure: distances within either set of features: ``euclidean``, or ``sqeuclidean``, which factorises.
        outer_iters: descent steps of a solve.
        inner_iters: Sinkhorn iterations of each.
        tol: see `ot.fused_gromov_wasserstein`; 0 never waits for a GPU, and replays one CUDA graph per solve. A plan that
            numbers leave the range of is then NaN, and the step is taken back; with a tolerance it is solved anew.
        stop_on: who finds that the tolerance is reached: the ``host``, which waits for the GPU each time it looks, or the
            ``device``: the plan is the same, nothing is waited for, and what is left of the iterations changes nothing. As with
            a tolerance of 0 there is one CUDA graph, and a plan that breaks down is NaN. The log has ``ot_iters``.
        labels: ``penalty`` makes pairs of different classes more expensive; ``same_class`` forbids them; ``ignore`` does
            not look.
        label_penalty: what ``penalty`` adds to the cost, in units of |x - y|^2 of unit vectors, which is at most 4.
    """

    MODES: ClassVar = {"topk": ("target", ("topk",)), "label_penalty": ("labels", ("penalty",))}
    """Options that only some values of others look at."""
    pairing: Literal["ot", "random"] = "ot"
    scope: Literal["micro", "global"] = "micro"
    target: Literal["argmax", "sample", "barycentre", "topk", "assignment"] = "sample"
    topk: Count = 8
    temperature: MaybeRamp = 1.0
    epsilon: MaybeRamp = field(default_factory=lambda: Ramp(0.1, 0.01, 50_000, "exponential"))
    fgw_lambda: MaybeRamp = field(default_factory=lambda: Ramp(0.1, 0.5, 50_000))
    structure: Literal["euclidean", "sqeuclidean"] = "euclidean"
    outer_iters: Repeats = 10
    inner_iters: Repeats = 50
    tol: Annotated[float, Range(least=0)] = 0.0
    stop_on: Literal["host", "device"] = "host"
    labels: Literal["penalty", "same_class", "ignore"] = "penalty"
    label_penalty: Annotated[float, Range(least=0)] = 1.0

    def __post_init__(self) -> None:
        for name in ("temperature", "epsilon", "fgw_lambda"):
            value = getattr(self, name)
            if isinstance(value, Mapping):
                setattr(self, name, Ramp(**value))
        for name, most in (("temperature", float("inf")), ("epsilon", float("inf")), ("fgw_lambda", 1.0)):
            value = getattr(self, name)
            ends = (value.start, value.end) if isinstance(value, Ramp) else (value,)
            if min(ends) < 0 or max(ends) > most or (name != "fgw_lambda" and min(ends) == 0):
                raise UserError(
                    f"{name}: must be {'from 0 to 1' if most == 1 else 'positive'}, got {min(ends)} to {max(ends)}"
                )


def at(schedule: MaybeRamp, done: float) -> float:
    """The value of a schedule after `done` samples."""
    return schedule.at(done) if isinstance(schedule, Ramp) else schedule


class Scheduled(NamedTuple):
    """The schedules' values in one iteration."""

    epsilon: float
    fgw_lambda: float
    temperature: float


class BankSample:
    """What one iteration sees of the bank: `rows` (m,), their features (m, d), images and classes, each fetched once.

    Args:
        bank: all of it.
        rows: rows that were drawn.
    """

    def __init__(self, bank: MemoryBank, rows: Tensor) -> None:
        self.bank = bank
        self.rows = rows

    @cached_property
    def features(self) -> Tensor:
        return self.bank.features_of(self.rows)

    @cached_property
    def images(self) -> Tensor:
        return self.bank.images_of(self.rows)

    @cached_property
    def labels(self) -> Tensor:
        return self.bank.labels_of(self.rows)

    @cached_property
    def euclidean(self) -> Tensor:
        return costs.euclidean(self.features)

    @cached_property
    def sqeuclidean(self) -> ot.SquaredEuclidean:
        return ot.SquaredEuclidean(self.features)


class Matching:
    """Matches unit features with those of a memory.

    Args:
        options: how images are matched.
    """

    def __init__(self, options: MatchingOptions) -> None:
        self.options = options
        self.graphs = ot.Graphs()
        self.waiting = options.stop_on == "host"
        self.bound = None if options.tol > 0 and self.waiting else 1.0
        """Largest cost, over its scale, where it is not to be asked of the device."""

    def settings(self, done: float) -> Scheduled:
        """The schedules' values after `done` samples."""
        o = self.options
        return Scheduled(at(o.epsilon, done), at(o.fgw_lambda, done), at(o.temperature, done))

    def solve(self, features: Tensor, labels: Tensor | None, memory: BankSample, settings: Scheduled) -> ot.Coupling:
        """The coupling of generated features (n, d), with classes (n,) or None, with the memory.

        Raises:
            UserError: there are more of them than of the memory, or ``same_class`` finds a class without any.
        """
        # Every generated image needs a row of its own.
        n, m = len(features), len(memory.rows)
        if n > m:
            remedy = (
                "match fewer with matching.scope: micro"
                if self.options.scope == "global"
                else "lower batch_size_per_gpu"
            )
            raise UserError(
                f"{n} generated images are matched at once, but the memory has {m} rows (bank.subset, or the training set, is "
                f"too small): {remedy}"
            )
        with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
            # Without structure the problem is linear; with it the distances within both sets count too.
            cost = costs.squared_euclidean(features, memory.features)
            cost, columns = self._with_labels(cost, labels, memory)
            alpha, epsilon = ot.from_lambda(settings.fgw_lambda, settings.epsilon)
            o = self.options
            if alpha == 0:
                budget = o.inner_iters * o.outer_iters
                return ot.sinkhorn(
                    cost,
                    b=columns,
                    epsilon=epsilon,
                    tol=o.tol,
                    max_iters=budget,
                    cost_scale="max",
                    bound=self.bound,
                    waiting=self.waiting,
                )
            own: Any = features if o.structure == "sqeuclidean" else costs.euclidean(features)
            return ot.fused_gromov_wasserstein(
                cost,
                ot.SquaredEuclidean(own) if o.structure == "sqeuclidean" else own,
                memory.sqeuclidean if o.structure == "sqeuclidean" else memory.euclidean,
                q=columns,
                alpha=alpha,
                epsilon=epsilon,
                outer_iters=o.outer_iters,
                inner_iters=o.inner_iters,
                tol=o.tol,
                graphs=self.graphs,
                bound=self.bound,
                waiting=self.waiting,
            )

    def _with_labels(self, cost: Tensor, labels: Tensor | None, memory: BankSample) -> tuple[Tensor, Tensor | None]:
        """The cost with classes in it, and the marginal of the columns that makes it solvable, None if uniform."""
        if labels is None or self.options.labels == "ignore" or memory.bank.labels is None:
            return cost, None
        different = labels[:, None] != memory.labels
        if self.options.labels == "penalty":
            return cost + self.options.label_penalty * different, None
        partners = (~different).sum(1)
        if bool((partners == 0).any()):
            lonely = int(labels[partners == 0][0])
            raise UserError(
                f"matching.labels: same_class, but none of the memory's {len(memory.rows)} rows is of class {lonely}: raise "
                "bank.subset, or use penalty"
            )
        # Each row spreads its mass 1 / n evenly over the columns of its class.
        columns = ((~different) / partners[:, None]).sum(0) / len(cost)
        return torch.where(different, torch.inf, cost), columns.to(cost)

    def choose(self, plan: Tensor, temperature: float, uniforms: Tensor) -> Targets:
        """What rows (n, m) of a plan tell their images to become, `uniforms` (n,) deciding where chance does."""
        o = self.options
        # A plan that is not finite chooses evenly, for there must be some place; what is there becomes NaN, see `Targets`.
        sound = plan.isfinite().all()
        plan = torch.where(sound, plan, 1 / plan.numel())
        if temperature != 1:
            logits = plan.clamp_min(torch.finfo(plan.dtype).tiny).log() / temperature
            plan = torch.where(plan > 0, logits, -torch.inf).softmax(1)
        if o.target == "argmax":
            return Targets(plan, sound, columns=targets.argmax(plan))
        if o.target == "sample":
            return Targets(plan, sound, columns=targets.sample_at(plan, uniforms))
        if o.target == "assignment":
            return Targets(plan, sound, columns=ot.assignment(-plan.clamp_min(torch.finfo(plan.dtype).tiny).log()))
        weights = plan
        if o.target == "topk":
            k = min(o.topk, plan.shape[1])
            mass, columns = plan.topk(k, dim=1)
            weights = torch.zeros_like(plan).scatter(1, columns, mass)
        return Targets(plan, sound, weights=weights / weights.sum(1, keepdim=True))


@dataclass(frozen=True)
class Targets:
    """What is taken from a plan (n, m): a column of the memory for each image, (n,), or weights over the columns, (n, m)."""

    plan: Tensor
    sound: Tensor
    """(), boolean: whether the plan was finite. Targets of another are NaN, and so is whatever is computed from them."""
    columns: Tensor | None = None
    weights: Tensor | None = None

    def images(self, memory: BankSample) -> Tensor:
        """(n, C, H, W) in [-1, 1]."""
        if self.columns is not None:
            images = memory.bank.images_of(memory.rows[self.columns])
        else:
            assert self.weights is not None
            images = targets.barycentre(self.weights, memory.images)
        return torch.where(self.sound, images, torch.nan)

    def features(self, memory: BankSample) -> Tensor:
        """(n, d), of length 1."""
        if self.columns is not None:
            return memory.features[self.columns]
        assert self.weights is not None
        return F.normalize(targets.barycentre(self.weights, memory.features), dim=1)

    def distances(self, memory: BankSample) -> Tensor:
        """(n, n), those among the features of targets that the plan expects."""
        return targets.expected_distances(self.plan, memory.euclidean)

    def part(self, rows: slice) -> Targets:
        """The targets of some of the images."""
        return Targets(
            self.plan[rows], self.sound, *(None if x is None else x[rows] for x in (self.columns, self.weights))
        )

    @property
    def distinct(self) -> float | Tensor:
        """How many different columns were chosen, over the number of images, a scalar; 1 for means."""
        if self.columns is None:
            return 1.0
        ordered = self.columns.sort().values
        return (1 + (ordered[1:] != ordered[:-1]).sum()) / len(ordered)
