"""Loaders: endless micro-batches for training, each sample once for evaluation."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ...core.annotations import declared
from ...core.errors import UserError
from ...core.imaging.naming import unique_names
from ..base import DatasetTraits
from .options import Loader
from .packets import Packets
from .placement import CudaPrefetcher, InBytes, Placement
from .sampler import Order, Plan, SampleKey, TrainSampler, shared_out
from .worker import Note, Packet, SeededDataset, collate, collate_bytes, collate_readable

log = logging.getLogger("relume")

Batch = dict[str, Any]


def build_train_loader(
    dataset: Any,
    opt: Mapping[str, Any],
    *,
    seed: int,
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
    iteration: int = 0,
    position: int = 0,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
) -> TrainLoader:
    """The training data of one rank.

    Args:
        dataset: dataset from `build_dataset`.
        opt: the ``datasets.train`` block, of which the fields of `Loader` are read.
        seed: seed of the run.
        rank: rank of this process.
        world: number of ranks.
        accumulate: micro-batches per iteration, where the stages of `opt` have none of their own.
        iteration: iterations already done.
        position: samples that they took, over all ranks (`TrainLoader.position` of the run that is resumed).
        device: device that batches are put on.
        channels_last: memory layout of images there.

    Raises:
        UserError: no samples, an iteration larger than the dataset, a patch larger than an image, a wrong schedule.
    """
    loading = loader_options(opt)
    plan = plan_of(loading, accumulate)
    order = order_of(dataset, loading, seed)
    fullest = max(plan.firsts, key=plan.taken)
    if plan.taken(fullest) * world > order.epoch_length:
        batch = product(plan.at(fullest).batch, world, plan.micro_batches(fullest))
        raise UserError(
            f"one iteration takes {batch} samples, but the training set has "
            f"{order.epoch_length}: lower batch_size_per_gpu{' or train.accumulate' if accumulate > 1 else ''}, or raise "
            "dataset_enlarge_ratio"
        )
    own_patch = declared(dataset, "gt_size", DatasetTraits)
    if plan.gt_sizes and own_patch == 0:
        raise UserError(f"gt_sizes: {type(dataset).__name__} has no gt_size to change")
    patch = plan.largest.gt_size or own_patch
    if patch:
        declared(dataset, "require_patch", DatasetTraits)(patch)
    sampler = TrainSampler(order, plan, rank, world, iteration, position)
    return TrainLoader(dataset, sampler, loading, torch.device(device), channels_last)


def order_of(dataset: Any, loading: Loader, seed: int) -> Order:
    """The stream of a data set's samples.

    Raises:
        UserError: there are none, or they cannot be shuffled as the options say.
    """
    weights = declared(dataset, "sampling_weights", DatasetTraits)
    draws = declared(dataset, "epoch_length", DatasetTraits)
    shards = shards_of(dataset, weights, draws) if loading.shuffle_buffer else None
    return Order(
        len(dataset),
        seed,
        loading.use_shuffle,
        loading.dataset_enlarge_ratio,
        weights,
        draws,
        shards,
        loading.shuffle_buffer or 1,
    )


def shards_of(dataset: Any, weights: Any, draws: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The number of the archive of each sample, (N,), and its place in the order in which the archives are read, (N,).

    Raises:
        UserError: some samples are in no archive, or are not drawn alike.
    """
    place_of = declared(dataset, "stored_at", DatasetTraits)
    found = [place_of(i) for i in range(len(dataset))]
    places = [place for place in found if place is not None]
    if weights is not None or draws is not None or len(places) < len(found):
        why = "its samples are not drawn alike" if len(places) == len(found) else "its samples are not in tar files"
        raise UserError(
            f"shuffle_buffer: is for data in tar files (io_backend: {{type: tar}}), each sample drawn once in an epoch; {why}"
        )
    numbers = {archive: number for number, archive in enumerate(sorted({p.archive for p in places}))}
    order = np.empty(len(places), np.int64)
    order[sorted(range(len(places)), key=lambda i: places[i])] = np.arange(len(places))
    return np.array([numbers[p.archive] for p in places]), order


def plan_of(loading: Loader, accumulate: int = 1) -> Plan:
    """Batch and patch size of every iteration, with as many micro-batches where the options say nothing of them."""
    stages = (loading.mini_batch_sizes, loading.iters, loading.gt_sizes, loading.accumulates)
    return Plan(loading.batch_size_per_gpu, *stages, accumulate=accumulate)


def loader_options(opt: Mapping[str, Any]) -> Loader:
    """The loading options of a dataset block, defaults filled in.

    Raises:
        UserError: the options of progressive training do not fit together.
    """
    try:
        return Loader.of(opt)
    except ValueError as e:
        raise UserError(str(e)) from e


def product(batch: int, world: int, accumulate: int) -> str:
    """How a global batch comes about.

    >>> product(4, 2, 3), product(4, 1, 1)
    ('4 x 2 ranks x 3 micro-batches = 24', '4')
    """
    factors = [str(batch)]
    factors += [f"{world} ranks"] if world > 1 else []
    factors += [f"{accumulate} micro-batches"] if accumulate > 1 else []
    return " x ".join(factors) + (f" = {batch * world * accumulate}" if len(factors) > 1 else "")


class TrainLoader(Iterator[Batch]):
    """Endless training batches on the device: tensors (B, C, H, W), lists of strings, ``index`` (B,) in the dataset, and
    ``seed`` (B,), a number for each sample from which a model may draw (see `worker.sample_seed`).

    Loading processes start at once and live until `close`.
    """

    def __init__(
        self, dataset: Any, sampler: TrainSampler, loading: Loader, device: torch.device, channels_last: bool
    ) -> None:
        self._sampler = sampler
        self._done = sampler.iteration
        self._handed_out = 0
        self._said: set[Note] = set()
        on_gpu = device.type == "cuda"
        self._packets = Packets(
            SeededDataset(dataset, sampler.order.seed),
            sampler,
            loading.num_worker_per_gpu,
            ahead=loading.num_prefetch_queue,
            pin_memory=loading.pin_memory and on_gpu,
            collated=collate_bytes if loading.send_uint8 else collate,
            timeout=loading.timeout,
        )
        self._placement = Placement(device, channels_last, declared(dataset, "finish", DatasetTraits))
        self._ahead = (
            CudaPrefetcher(self._load, self._placement) if loading.prefetch_mode == "cuda" and on_gpu else None
        )

    def __iter__(self) -> TrainLoader:
        return self

    def __next__(self) -> Batch:
        batch = next(self._ahead) if self._ahead else self._placement(self._load())
        if self._handed_out == 0:
            self._say_stage(self._done + 1)
        self._handed_out += 1
        if self._handed_out == self.micro_batches(self._done + 1):
            self._done, self._handed_out = self._done + 1, 0
        return batch

    def micro_batches(self, iteration: int) -> int:
        """Micro-batches of an iteration, counted from 1."""
        return self._sampler.plan.micro_batches(iteration)

    def _say_stage(self, iteration: int) -> None:
        """Where a stage of progressive training begins, or a run in one, say which patches and batches it has."""
        plan = self._sampler.plan
        stage = plan.at(iteration)
        if plan.iters and (iteration == self._sampler.iteration + 1 or stage != plan.at(iteration - 1)):
            patches = f"patches of {stage.gt_size}, " if stage.gt_size else ""
            log.info(
                "From iteration %s on: %sbatches of %d (progressive training)", f"{iteration:,}", patches, stage.batch
            )

    @property
    def position(self) -> int:
        """Samples taken from the stream by the iterations handed out so far, over all ranks: where a resume begins."""
        return self.position_after(self._done)

    @property
    def epoch(self) -> int:
        """Epoch, from 0, of the last sample handed out."""
        return max(0, self.position - 1) // self._sampler.order.epoch_length

    def position_after(self, iteration: int) -> int:
        """What `position` will be when an iteration is over."""
        return self._sampler.position_after(iteration)

    def batch_of(self, iteration: int) -> int:
        """Samples of an iteration, over all ranks and micro-batches."""
        return self._sampler.taken(iteration)

    def describe(self, total_iter: int) -> str:
        """One line on how much data `total_iter` iterations see."""
        sampler, order = self._sampler, self._sampler.order
        first = sampler.iteration + 1
        batch = product(sampler.plan.at(first).batch, sampler.world, sampler.plan.micro_batches(first))
        return (
            f"Training set: {order.length} samples, {order.epoch_length} per epoch; {batch} per iteration; "
            f"{total_iter} iterations are {self.position_after(total_iter) / order.epoch_length:.1f} epochs"
        )

    def close(self) -> None:
        """End the loading processes."""
        self._ahead = None
        self._packets.close()

    def _load(self) -> Batch:
        """The next micro-batch, in host memory."""
        packet = next(self._packets)
        batch = unpack(packet, self._said)
        return {**batch, **{name: InBytes(batch[name]) for name in packet.in_bytes}}


def unpack(packet: Packet, said: set[Note]) -> Batch:
    """The batch of a packet; messages from its making are logged, each once.

    Raises:
        UserError: the samples could not be made.
    """
    for note in packet.notes:
        if note not in said:
            said.add(note)
            log.log(*note)
    if packet.batch is None:
        raise UserError(packet.error or "no batch")
    return packet.batch


class EvalLoader:
    """One rank's share of a dataset, in order, in batches.

    A batch's ``index``, (B,) int64, has the images' numbers in the dataset. They are negative for those that are not to be
    counted: repeated ones that only keep ranks in step, and replacements of unreadable ones (``on_error: skip``).

    Samples that cannot be made are left out of their batch, whose ``failed`` has (number, mistake) of each; nothing else is in
    a batch without others. Where ranks must keep in step (`even`) they are errors.

    Each pass has loading processes of its own, unless `start` has been called: then they are there from that moment until
    `close`, and serve every pass. A process that has threads (of a process group, say) forks none that way.
    """

    def __init__(
        self,
        dataset: Any,
        seed: int,
        rank: int,
        world: int,
        workers: int,
        even: bool,
        batch: int = 1,
        timeout: float = 0.0,
    ) -> None:
        total = len(dataset)
        if total == 0:
            raise UserError("the dataset is empty")
        shares = shared_out(total, world, declared(dataset, "sequels", DatasetTraits))
        self._indices = shares[rank]
        self._counted = len(self._indices)
        self.images = total
        if even:
            self._indices += [rank % total] * (max(map(len, shares)) - self._counted)
        self._batches = [range(i, min(i + batch, len(self._indices))) for i in range(0, len(self._indices), batch)]
        self.dataset = dataset
        self._forgiving = not even
        self._dataset = SeededDataset(dataset, seed, self._forgiving)
        self._workers = min(workers, len(self._batches))
        self._timeout = timeout
        self._kept: Packets | None = None
        self._keys: list[list[SampleKey]] = []
        self._said: set[Note] = set()
        self.names = result_names(dataset)
        self.reference = declared(dataset, "reference", DatasetTraits)

    def __len__(self) -> int:
        return len(self._batches)

    def limit(self, batches: int) -> None:
        """Give the first so many batches only, from now on."""
        self._batches = self._batches[:batches]

    def start(self) -> None:
        """Start the loading processes, which have nothing to do yet."""
        if self._kept is None and self._workers:
            self._kept = self._packets(self._workers, keep=True)

    def close(self) -> None:
        """End the loading processes that `start` has started."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _packets(self, workers: int, keep: bool) -> Packets:
        collated = collate_readable if self._forgiving else collate
        return Packets(self._dataset, self._keys, workers, collated=collated, timeout=self._timeout, keep=keep)

    def _begin(self) -> Packets:
        """The packets of a pass that begins."""
        if self._kept is not None and not self._kept.alive:
            log.warning("a loading process has died meanwhile: from now on this process loads these images itself")
            self.close()
            self._workers = 0
        self._keys[:] = [[SampleKey(0, self._indices[p], self._indices[p]) for p in places] for places in self._batches]
        if self._kept is None:
            return self._packets(self._workers, keep=False)
        self._kept.again()
        return self._kept

    def __iter__(self) -> Iterator[Batch]:
        packets = self._begin()
        try:
            for places in self._batches:
                packet = next(packets)
                batch = unpack(packet, self._said)
                if packet.failed:
                    batch["failed"] = [(self._indices[places[i]], why) for i, why in packet.failed]
                if "index" in batch:
                    absent = {i for i, _ in packet.failed}
                    numbers = [self._indices[p] if p < self._counted else -1 for p in places]
                    wanted = torch.tensor([n for i, n in enumerate(numbers) if i not in absent])
                    batch["index"] = torch.where(batch["index"] == wanted, wanted, -1)
                yield batch
        finally:
            if packets is not self._kept:
                packets.close()


def result_names(dataset: Any) -> dict[int, str]:
    """Names of results, no two the same, of the samples whose files the dataset can tell."""
    path_of = declared(dataset, "result_path", DatasetTraits)
    paths = {i: path for i in range(len(dataset)) if (path := path_of(i)) is not None}
    return dict(zip(paths, unique_names(list(paths.values())), strict=True))


def build_eval_loader(
    dataset: Any,
    *,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    batch: int = 1,
    even: bool = False,
    timeout: float = 0.0,
) -> EvalLoader:
    """The share of one rank in a validation or test set: every ``world``-th image.

    Args:
        dataset: dataset from `build_dataset`.
        seed: seed of whatever is random in the dataset; the same for an image at every evaluation.
        rank: rank of this process.
        world: number of ranks.
        workers: loading processes.
        batch: images in a batch, the last one excepted; they must be of one size if there are several.
        even: give every rank equally many batches, as sharded networks need.
        timeout: seconds without a batch from the processes after which that is an error; 0 waits for ever.

    Raises:
        UserError: the dataset is empty.
    """
    return EvalLoader(dataset, seed, rank, world, workers, even, batch, timeout)
