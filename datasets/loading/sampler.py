"""Which samples an iteration takes: a pure function of the seed, whatever the number of ranks, workers and restarts.

All ranks together walk along one endless stream of samples. Position p of the stream lies in epoch ``e = p // N`` and is
sample ``permutation(seed, e)[p % N]``. An iteration takes the next ``batch x ranks x accumulate`` positions, cut so that W
ranks of batch b see together what one rank of batch W * b sees.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from ...core.errors import UserError


@dataclass(frozen=True)
class SampleKey:
    """What a dataset is asked for: the `draw`-th sample of an epoch, which shows the dataset's sample `index`.

    ``(seed, epoch, draw)`` determines every random choice. `draw` and `index` are the same unless a dataset is enlarged or
    weighted, so that an index comes several times in an epoch, each time looking different.
    """

    epoch: int
    draw: int
    index: int
    gt_size: int | None = None


class Stage(NamedTuple):
    """Samples per rank and micro-batch, and patch size (the dataset's own if None)."""

    batch: int
    gt_size: int | None


@dataclass(frozen=True)
class Plan:
    """Batch and patch size of every iteration; Restormer's progressive schedule where ``iters`` is given.

    Args:
        batch_size_per_gpu: samples per rank and micro-batch.
        mini_batch_sizes: the same, of each stage.
        iters: iterations of each stage; the last one goes on for ever.
        gt_sizes: patch size of each stage.
        accumulates: micro-batches of each stage's iterations.
        accumulate: micro-batches of all iterations, where `accumulates` does not say it.
    """

    batch_size_per_gpu: int
    mini_batch_sizes: Sequence[int] | None = None
    iters: Sequence[int] | None = None
    gt_sizes: Sequence[int] | None = None
    accumulates: Sequence[int] | None = None
    accumulate: int = 1

    def at(self, iteration: int) -> Stage:
        """The stage of an iteration, counted from 1."""
        if not self.iters:
            return Stage(self.batch_size_per_gpu, None)
        stage = self._stage(iteration)
        batch = self.mini_batch_sizes[stage] if self.mini_batch_sizes else self.batch_size_per_gpu
        return Stage(batch, self.gt_sizes[stage] if self.gt_sizes else None)

    def _stage(self, iteration: int) -> int:
        ends = list(itertools.accumulate(self.iters or ()))
        return next((i for i, end in enumerate(ends) if iteration <= end), len(ends) - 1)

    def micro_batches(self, iteration: int) -> int:
        """The micro-batches of an iteration, counted from 1."""
        return self.accumulates[self._stage(iteration)] if self.iters and self.accumulates else self.accumulate

    def taken(self, iteration: int) -> int:
        """Samples that one rank takes in an iteration, counted from 1."""
        return self.at(iteration).batch * self.micro_batches(iteration)

    def samples(self, iterations: int) -> int:
        """What one rank takes in the first `iterations` iterations."""
        ends = [0, *itertools.accumulate((self.iters or [1])[:-1]), max(iterations, sum(self.iters or [1]))]
        spans = itertools.pairwise(min(end, iterations) for end in ends)
        return sum((end - begin) * self.taken(begin + 1) for begin, end in spans)

    @property
    def firsts(self) -> list[int]:
        """The first iteration of each stage."""
        return [end + 1 for end in itertools.accumulate((self.iters or ())[:-1], initial=0)]

    @property
    def largest(self) -> Stage:
        """The largest batch and the largest patch of all stages."""
        sizes = self.mini_batch_sizes if self.iters and self.mini_batch_sizes else [self.batch_size_per_gpu]
        return Stage(max(sizes), max(self.gt_sizes) if self.gt_sizes else None)


class Order:
    """The endless stream of samples.

    Args:
        length: length of the dataset.
        seed: seed of the run.
        shuffle: permute every epoch anew; else ascending.
        enlarge: repeats of the dataset in an epoch.
        weights: (length,) share of each sample in an epoch's draws; equal when None.
        draws: draws that make an epoch, before repeats; `length` when None.
        shards: (length,) number of the archive in which each sample lies, and (length,) its place in the order in which the
            archives are read: shuffling is then by archive, and within `buffer`.
        buffer: how many samples a reader must hold that reads each archive from its beginning to its end.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        shuffle: bool = True,
        enlarge: int = 1,
        weights: np.ndarray | None = None,
        draws: int | None = None,
        shards: tuple[np.ndarray, np.ndarray] | None = None,
        buffer: int = 1,
    ) -> None:
        if length < 1:
            raise UserError("the dataset is empty")
        if enlarge < 1:
            raise UserError(f"dataset_enlarge_ratio must be positive, not {enlarge}")
        self.length = length
        self.seed = seed
        self.shuffle = shuffle
        self.epoch_length = (draws or length) * enlarge
        self.shards, self.buffer = shards, buffer
        self.weights = None if weights is None else np.cumsum(weights, dtype=np.float64) / np.sum(weights)
        self._epoch = -1
        self._draws = self._indices = np.empty(0, np.int64)

    def at(self, position: int, gt_size: int | None = None) -> SampleKey:
        """The sample at a position of the stream, to be cut to patches of `gt_size`."""
        epoch, place = divmod(position, self.epoch_length)
        if epoch != self._epoch:
            self._draws, self._indices = self._arrange(epoch)
            self._epoch = epoch
        draw = int(self._draws[place])
        return SampleKey(epoch, draw, int(self._indices[draw]), gt_size)

    def _arrange(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The draws in the order of an epoch, and the dataset's index of each draw."""
        # Raw numbers, because NumPy keeps bit generators' output for ever, and that of Generator.permutation not.
        numbers = np.random.PCG64(np.random.SeedSequence([self.seed, epoch])).random_raw(self.epoch_length + 1)
        every = np.arange(self.epoch_length)
        if self.shards is not None and self.shuffle:
            return self._by_shard(epoch, numbers[1:]), every % self.length
        draws = np.argsort(numbers[1:], kind="stable") if self.shuffle else every
        if self.weights is None:
            return draws, every % self.length
        # Systematic resampling: one random offset, equidistant points; each sample comes floor or ceil of its share.
        points = (every + numbers[0] / 2.0**64) / self.epoch_length
        return draws, np.minimum(np.searchsorted(self.weights, points, side="right"), self.length - 1)

    def _by_shard(self, epoch: int, numbers: np.ndarray) -> np.ndarray:
        """The draws of an epoch, archive after archive in random order, each from its beginning; then moved within the buffer.

        A draw moves by less than the buffer's length: it is sorted by its position plus a random part of that length.
        """
        assert self.shards is not None
        shard, order = self.shards
        passes = []
        for again in range(self.epoch_length // self.length):
            words = np.random.SeedSequence([self.seed, epoch, again], spawn_key=(2,))
            keys = np.random.PCG64(words).random_raw(int(shard.max()) + 1)
            passes.append(again * self.length + np.lexsort((order, keys[shard])))
        stream = np.concatenate(passes)
        moved = np.arange(self.epoch_length) + self.buffer * (numbers / 2.0**64)
        return np.asarray(stream[np.argsort(moved, kind="stable")])


class TrainSampler(Sampler[list[SampleKey]]):
    """Endless micro-batches of one rank.

    Args:
        order: the stream of samples.
        plan: batch and patch sizes.
        rank: rank of this process.
        world: number of ranks.
        iteration: iterations already done.
        position: samples that they took from the stream, over all ranks.
    """

    def __init__(
        self,
        order: Order,
        plan: Plan,
        rank: int = 0,
        world: int = 1,
        iteration: int = 0,
        position: int = 0,
    ) -> None:
        self.order = order
        self.plan = plan
        self.rank = rank
        self.world = world
        self.iteration = iteration
        self.position = position

    def taken(self, iteration: int) -> int:
        """Samples that an iteration takes, over all ranks and micro-batches."""
        return self.plan.taken(iteration) * self.world

    def position_after(self, iteration: int) -> int:
        """Position in the stream when an iteration, not before the first of this sampler, is over."""
        new = self.plan.samples(iteration) - self.plan.samples(self.iteration)
        return self.position + new * self.world

    def __iter__(self) -> Iterator[list[SampleKey]]:
        position = self.position
        for iteration in itertools.count(self.iteration + 1):
            batch, gt_size = self.plan.at(iteration)
            for micro in range(self.plan.micro_batches(iteration)):
                first = position + (micro * self.world + self.rank) * batch
                yield [self.order.at(p, gt_size) for p in range(first, first + batch)]
            position += self.taken(iteration)


def shared_out(total: int, world: int, sequels: Sequence[int] | None) -> list[list[int]]:
    """The samples of each rank: every ``world``-th one, or, of `sequels` (see `DatasetTraits`), whole ones.

    The longest of those is given away first, and each to a rank that has the fewest samples.
    """
    if sequels is None:
        return [list(range(rank, total, world)) for rank in range(world)]
    parts: dict[int, list[int]] = {}
    for sample, whole in enumerate(sequels):
        parts.setdefault(whole, []).append(sample)
    shares: list[list[int]] = [[] for _ in range(world)]
    for samples in sorted(parts.values(), key=len, reverse=True):
        min(shares, key=len).extend(samples)
    return shares
