"""Loaders: endless micro-batches for training, each sample once for evaluation."""

from __future__ import annotations

import atexit
import contextlib
import logging
import signal
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ...core.annotations import declared
from ...core.errors import UserError
from ...core.imaging.naming import unique_names
from ..base import DatasetTraits
from .options import Loader
from .sampler import Order, Plan, SampleKey, TrainSampler
from .worker import Note, Packet, SeededDataset, collate, collate_readable, start

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
        dataset: from `build_dataset`.
        opt: the ``datasets.train`` block, of which the fields of `Loader` are read.
        seed: of the run.
        rank: of this process.
        world: number of ranks.
        accumulate: micro-batches per iteration.
        iteration: iterations already done.
        position: samples that they took, over all ranks (`TrainLoader.position` of the run that is resumed).
        device: where batches are put.
        channels_last: memory layout of images there.

    Raises:
        UserError: no samples, an iteration larger than the dataset, a patch larger than an image, a wrong schedule.
    """
    loading = loader_options(opt)
    plan = Plan(loading.batch_size_per_gpu, loading.mini_batch_sizes, loading.iters, loading.gt_sizes)
    weights = declared(dataset, "sampling_weights", DatasetTraits)
    order = Order(len(dataset), seed, loading.use_shuffle, loading.dataset_enlarge_ratio, weights)
    taken = plan.largest.batch * world * accumulate
    if taken > order.epoch_length:
        raise UserError(
            f"one iteration takes {product(plan.largest.batch, world, accumulate)} samples, but the training set has "
            f"{order.epoch_length}: lower batch_size_per_gpu{' or train.accumulate' if accumulate > 1 else ''}, or raise "
            "dataset_enlarge_ratio"
        )
    own_patch = declared(dataset, "gt_size", DatasetTraits)
    if plan.gt_sizes and own_patch == 0:
        raise UserError(f"gt_sizes: {type(dataset).__name__} has no gt_size to change")
    patch = plan.largest.gt_size or own_patch
    if patch:
        declared(dataset, "require_patch", DatasetTraits)(patch)
    sampler = TrainSampler(order, plan, rank, world, accumulate, iteration, position)
    return TrainLoader(dataset, sampler, loading, torch.device(device), channels_last)


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
        self._handed_out = 0
        self._said: set[Note] = set()
        on_gpu = device.type == "cuda"
        self._packets = Packets(
            SeededDataset(dataset, sampler.order.seed),
            sampler,
            loading.num_worker_per_gpu,
            ahead=loading.num_prefetch_queue,
            pin_memory=loading.pin_memory and on_gpu,
        )
        self._placement = Placement(device, channels_last)
        self._ahead = (
            CudaPrefetcher(self._load, self._placement) if loading.prefetch_mode == "cuda" and on_gpu else None
        )

    def __iter__(self) -> TrainLoader:
        return self

    def __next__(self) -> Batch:
        batch = next(self._ahead) if self._ahead else self._placement(self._load())
        self._handed_out += 1
        return batch

    @property
    def position(self) -> int:
        """Samples taken from the stream by the iterations handed out so far, over all ranks: where a resume begins."""
        return self.position_after(self._sampler.iteration + self._handed_out // self._sampler.accumulate)

    @property
    def epoch(self) -> int:
        """Epoch, from 0, of the last sample handed out."""
        return max(0, self.position - 1) // self._sampler.order.epoch_length

    def position_after(self, iteration: int) -> int:
        """What `position` will be when an iteration is over."""
        return self._sampler.position_after(iteration)

    def describe(self, total_iter: int) -> str:
        """One line on how much data `total_iter` iterations see."""
        sampler, order = self._sampler, self._sampler.order
        batch = product(sampler.plan.at(sampler.iteration + 1).batch, sampler.world, sampler.accumulate)
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
        return unpack(next(self._packets), self._said)


class Ending:
    """The event by which torch tells loading processes to end, on the side of the process that sets it.

    A process that is killed may have taken the event's lock, for which torch would then wait for ever.
    """

    def __init__(self, event: Any) -> None:
        self._event = event
        self._set = False

    def is_set(self) -> bool:
        """Whether it was set, which only happens here."""
        return self._set

    def set(self) -> None:
        """Set it, unless the lock is lost: then processes are ended by force."""
        self._set = True
        if self._event._cond.acquire(timeout=1.0):
            self._event._cond.release()
            self._event.set()


class Packets(Iterator[Packet]):
    """Packets of `batches`, made ahead of their use in as many processes as asked.

    (The number is the user's choice: torch's advice of one per core is wrong for remote files.)
    """

    def __init__(
        self,
        dataset: SeededDataset,
        batches: Iterable[list[SampleKey]],
        workers: int,
        ahead: int = 2,
        pin_memory: bool = False,
        collated: Callable[[Any], Packet] = collate,
    ) -> None:
        with warnings.catch_warnings(), child_handler_kept():
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
            self._packets = iter(
                DataLoader(
                    dataset,
                    batch_sampler=batches,
                    num_workers=workers,
                    collate_fn=collated,
                    worker_init_fn=start,
                    prefetch_factor=max(1, ahead) if workers else None,
                    pin_memory=pin_memory,
                    generator=torch.Generator(),  # or the choice of workers would change the global one
                )
            )
        self._processes = list(getattr(self._packets, "_workers", ()))
        if self._processes:
            event = self._packets._workers_done_event  # type: ignore[attr-defined]
            self._packets._workers_done_event = Ending(event)  # type: ignore[attr-defined]
        # Python ends child processes by SIGTERM and waits; ours are deaf to it, so they must be gone before.
        atexit.register(_close_if_alive, weakref.ref(self))

    def __next__(self) -> Packet:
        try:
            return next(self._packets)
        except (RuntimeError, OSError, EOFError) as e:
            for process in self._processes:
                process.join(0.1)  # a process that is just ending counts as dead
            dead = [p.exitcode for p in self._processes if not p.is_alive()]
            if not dead and ("shared memory" in str(e) or "No space left on device" in str(e)):
                raise UserError(
                    "shared memory (/dev/shm) is full, through which samples come: docker run --shm-size, or "
                    "num_worker_per_gpu: 0"
                ) from e
            if not dead and "Too many open files" in str(e):
                raise UserError(
                    "too many open files: raise the limit with ulimit -n, or lower num_worker_per_gpu"
                ) from e
            if not dead:
                raise  # a mistake in the dataset's code
            raise UserError(
                f"a loading process died (exit code {dead[0]}). The system kills processes (-9) when memory is short: "
                "lower num_worker_per_gpu or num_prefetch_queue, or enlarge shared memory (docker run --shm-size)"
            ) from e

    def close(self) -> None:
        """End the processes."""
        if self._processes:
            self._packets._shutdown_workers()  # type: ignore[attr-defined]
        for process in self._processes:
            if process.is_alive():
                process.kill()  # stuck in a read, or waiting for what a dead one has taken along
                process.join(1.0)


@contextlib.contextmanager
def child_handler_kept() -> Iterator[None]:
    """Undo torch's handler of ended child processes: it raises wherever the program is, in a checkpoint's write too.

    Without it, a process that died is noticed when the next batch is asked for.
    """
    here = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD) if here else None
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGCHLD, before)


def _close_if_alive(reference: weakref.ref[Packets]) -> None:
    packets = reference()
    if packets is not None:
        packets.close()


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


class Placement:
    """Moves a batch's tensors to a device; images (4-D) into the channels-last layout where asked."""

    def __init__(self, device: torch.device, channels_last: bool) -> None:
        self.device = device
        self.channels_last = channels_last

    def __call__(self, batch: Batch) -> Batch:
        return {k: self._place(v) if isinstance(v, Tensor) else v for k, v in batch.items()}

    def _place(self, tensor: Tensor) -> Tensor:
        layout = torch.channels_last if self.channels_last and tensor.dim() == 4 else torch.preserve_format
        return tensor.to(self.device, non_blocking=True, memory_format=layout)


class CudaPrefetcher:
    """``prefetch_mode: cuda``: the next batch travels to the GPU on a stream of its own while the current one is used.

    Args:
        load: gives the next batch in pinned host memory, which torch does not reuse before the copy is done.
        place: puts it on the GPU.
    """

    def __init__(self, load: Any, place: Placement) -> None:
        self._load = load
        self._place = place
        self._stream = torch.cuda.Stream(place.device)
        self._batch: Batch | None = None

    def __next__(self) -> Batch:
        if self._batch is None:
            self._fetch()
        current = torch.cuda.current_stream(self._place.device)
        current.wait_stream(self._stream)
        batch = self._batch
        assert batch is not None
        for value in batch.values():
            if isinstance(value, Tensor):
                value.record_stream(current)  # its memory was allocated on the other stream, and is used on this one
        self._fetch()
        return batch

    def _fetch(self) -> None:
        batch = self._load()
        with torch.cuda.stream(self._stream):
            self._batch = self._place(batch)


class EvalLoader:
    """One rank's share of a dataset, in order, in batches.

    A batch's ``index``, (B,) int64, has the images' numbers in the dataset. They are negative for those that are not to be
    counted: repeated ones that only keep ranks in step, and replacements of unreadable ones (``on_error: skip``).

    Samples that cannot be made are left out of their batch, whose ``failed`` has (number, mistake) of each; nothing else is in
    a batch without others. Where ranks must keep in step (`even`) they are errors.
    """

    def __init__(
        self, dataset: Any, seed: int, rank: int, world: int, workers: int, even: bool, batch: int = 1
    ) -> None:
        total = len(dataset)
        if total == 0:
            raise UserError("the dataset is empty")
        self._indices = list(range(rank, total, world))
        self._counted = len(self._indices)
        self.images = total
        if even:
            self._indices += [rank % total] * (-(-total // world) - self._counted)
        self._batches = [range(i, min(i + batch, len(self._indices))) for i in range(0, len(self._indices), batch)]
        self.dataset = dataset
        self._forgiving = not even
        self._dataset = SeededDataset(dataset, seed, self._forgiving)
        self._workers = min(workers, len(self._batches))
        self._said: set[Note] = set()
        self.names = result_names(dataset)
        self.reference = declared(dataset, "reference", DatasetTraits)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        keys = [[SampleKey(0, self._indices[p], self._indices[p]) for p in places] for places in self._batches]
        collated = collate_readable if self._forgiving else collate
        packets = Packets(self._dataset, keys, self._workers, collated=collated)
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
            packets.close()


def result_names(dataset: Any) -> dict[int, str]:
    """Names of results, no two the same, of the samples whose files the dataset can tell."""
    path_of = declared(dataset, "result_path", DatasetTraits)
    paths = {i: path for i in range(len(dataset)) if (path := path_of(i)) is not None}
    return dict(zip(paths, unique_names(list(paths.values())), strict=True))


def build_eval_loader(
    dataset: Any, *, seed: int = 0, rank: int = 0, world: int = 1, workers: int = 0, batch: int = 1, even: bool = False
) -> EvalLoader:
    """The share of one rank in a validation or test set: every ``world``-th image.

    Args:
        dataset: from `build_dataset`.
        seed: of whatever is random in the dataset; the same for an image at every evaluation.
        rank: of this process.
        world: number of ranks.
        workers: loading processes.
        batch: images in a batch, the last one excepted; they must be of one size if there are several.
        even: give every rank equally many batches, as sharded networks need.

    Raises:
        UserError: the dataset is empty.
    """
    return EvalLoader(dataset, seed, rank, world, workers, even, batch)
