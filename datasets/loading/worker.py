"""What happens where samples are made: in loading processes, or in the training process when there are none."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.queues import Queue
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from ...core.errors import UserError, in_one_line
from ..base import ImageDataset
from .sampler import SampleKey

Note = tuple[int, str]
"""Level and text of a log message."""


class Failed(NamedTuple):
    """In place of a sample: the user's mistake that prevented it. Exceptions lose their text between processes."""

    message: str


class Packet(NamedTuple):
    """What travels to the training process: a batch, or the mistake that prevented it, and what was logged meanwhile.

    Small tensors travel in the message itself: to hand over the memory of a shared one, both processes open a connection.
    """

    batch: dict[str, Any] | None
    notes: tuple[Note, ...]
    error: str | None = None
    failed: tuple[tuple[int, str], ...] = ()
    """Place in the batch and mistake of the samples that are not in it (see `collate_readable`)."""
    in_bytes: tuple[str, ...] = ()
    """Names of what travels in bytes (see `collate_bytes`)."""

    def __reduce__(self) -> tuple[Any, ...]:
        batch, *others = self
        if batch is None:
            return Packet, (batch, *others)
        small = {k: v.numpy() for k, v in batch.items() if _travels_inside(v)}
        return _unpacked, (tuple(batch), {k: v for k, v in batch.items() if k not in small}, small, *others)


LARGEST = 2**18
"""Bytes of the largest tensor that travels in a message: opening a connection takes as long as half a megabyte does."""


def _travels_inside(value: Any) -> bool:
    return (
        type(value) is Tensor
        and not value.requires_grad
        and value.dtype in (torch.float32, torch.int64, torch.uint8)
        and value.numel() * value.element_size() <= LARGEST
    )


def _unpacked(order: tuple[str, ...], batch: dict[str, Any], small: dict[str, Any], *others: Any) -> Packet:
    """A packet on the other side."""
    arrived = {**batch, **{k: torch.from_numpy(v) for k, v in small.items()}}
    return Packet({k: arrived[k] for k in order}, *others)


class SeededDataset(Dataset[Any]):
    """A dataset whose random choices depend on (seed, epoch, draw) alone; its items get ``index`` and ``seed``.

    The global generators of random, numpy and torch are seeded before every sample, and in the training process put back
    afterwards, so that any dataset is reproducible, one written for BasicSR too, and training code sees nothing of it.

    Args:
        dataset: a map from index to a dict.
        seed: seed of the run.
        forgiving: whether a bug of the dataset's own code, too, is the mistake of a sample.
    """

    def __init__(self, dataset: Any, seed: int, forgiving: bool = False) -> None:
        self.dataset = dataset
        self.seed = seed
        self.forgiving = forgiving

    def __getitem__(self, key: SampleKey) -> dict[str, Any] | Failed:
        if key.gt_size is not None:
            self.dataset.gt_size = key.gt_size
        try:
            with seeded(self.seed, key.epoch, key.draw):
                if isinstance(self.dataset, ImageDataset):
                    index, item = self.dataset.readable(key.index)
                else:
                    index, item = key.index, sample_of(self.dataset, key.index)
        except UserError as e:
            return Failed(str(e))
        except Exception as e:
            if not self.forgiving:
                raise
            return Failed(in_one_line(e))
        return {"seed": sample_seed(self.seed, key.epoch, key.draw), **item, "index": index}


def sample_of(dataset: Any, index: int) -> dict[str, Any]:
    """A sample of somebody's own dataset.

    Raises:
        UserError: it has another form than samples have.
    """
    item = dataset[index]
    kind = type(dataset).__name__
    if not isinstance(item, Mapping):
        raise UserError(
            f"{kind}: sample {index} is a {type(item).__name__}; samples are dicts, {{'lq': tensor, 'gt': tensor, ...}}"
        )
    for name in ("lq", "gt"):
        image = item.get(name)
        if not isinstance(image, (np.ndarray, Tensor)):
            continue
        shape, dtype = tuple(image.shape), str(image.dtype).removeprefix("torch.")
        channels_last = len(shape) == 3 and shape[2] <= 4 < shape[0]
        if channels_last or dtype == "uint8":
            what = f"{' x '.join(map(str, shape))} of {dtype}"
            raise UserError(
                f"{kind}: '{name}' of sample {index} is {what}; images are tensors (C, H, W), floats in [0, 1]"
            )
    return dict(item)


def sample_seed(*words: int) -> int:
    """A number in [0, 2^63) for what a model draws for a sample, which then depends on (seed, epoch, draw) alone as well.

    Samples keep it whatever rank and micro-batch they are in. It has nothing to do with what the dataset draws. A dataset
    whose items have a ``seed`` of their own keeps that.
    """
    return int(np.random.SeedSequence(words, spawn_key=(1,)).generate_state(1, np.uint64)[0] >> 1)


@contextlib.contextmanager
def seeded(*words: int) -> Iterator[None]:
    """Global generators seeded with `words` inside, untouched outside. (CUDA's are neither used nor changed.)

    In a loading process nobody draws outside, and nothing is put back, which would take most of the time.
    """
    alone = get_worker_info() is not None
    before = None if alone else (random.getstate(), np.random.get_state(), torch.default_generator.get_state())
    state = np.random.SeedSequence(words).generate_state(4)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    torch.default_generator.manual_seed(int(state[2]) << 32 | int(state[3]))
    try:
        yield
    finally:
        if before is not None:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.default_generator.set_state(before[2])


def collate(samples: Sequence[dict[str, Any] | Failed]) -> Packet:
    """Stack samples to a batch; strings become lists."""
    items = []
    for sample in samples:
        if isinstance(sample, Failed):
            return Packet(None, _noted.drain(), sample.message)
        items.append(sample)
    for key, value in items[0].items():
        shapes = [tuple(item[key].shape) for item in items] if isinstance(value, Tensor) else []
        if len(set(shapes)) > 1:
            message = f"images of different sizes cannot be stacked to a batch ({key}: {', '.join(map(str, shapes))}); "
            return Packet(None, _noted.drain(), message + "set gt_size or resize, or a batch size of 1")
    batch: dict[str, Any] = default_collate(items)
    if "seed" in items[0]:
        batch["seeds"] = [
            int(item["seed"]) for item in items
        ]  # for draws on the host, which need not ask a device for them
    return Packet(batch, _noted.drain())


def collate_bytes(samples: Sequence[dict[str, Any] | Failed]) -> Packet:
    """As `collate`, with images whose values are all multiples of 1/255 in [0, 1], exactly, as bytes: a quarter of the size."""
    packet = collate(samples)
    names = []
    for name, image in (packet.batch or {}).items():
        if isinstance(image, Tensor) and image.dtype == torch.float32 and image.dim() >= 3:
            levels = (image * 255).round().clamp(0, 255).to(torch.uint8)
            if torch.equal(from_bytes(levels), image):
                names.append(name)
                packet.batch[name] = levels  # type: ignore[index]
    return packet._replace(in_bytes=tuple(names))


def from_bytes(levels: Tensor) -> Tensor:
    """The image of 8 bits, uint8 of any shape, in [0, 1], float32."""
    return levels.float() / 255


def collate_readable(samples: Sequence[dict[str, Any] | Failed]) -> Packet:
    """As `collate`, leaving out the samples that failed, of which the packet tells."""
    failed = tuple((i, s.message) for i, s in enumerate(samples) if isinstance(s, Failed))
    made = [s for s in samples if not isinstance(s, Failed)]
    if not made:
        return Packet({}, _noted.drain(), failed=failed)
    return collate(made)._replace(failed=failed)


class _Noted(logging.Handler):
    """Keeps messages until they can travel with a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Note] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.notes.append((record.levelno, record.getMessage()))

    def drain(self) -> tuple[Note, ...]:
        notes, self.notes = tuple(self.notes), []
        return notes


_noted = _Noted()


def shortage(error: BaseException) -> int:
    """What the system is short of: ``errno.EMFILE`` (open files), ``errno.ENOSPC`` (shared memory); 0 if of neither."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return errno.EMFILE
    if "Too many open files" in text:
        return errno.EMFILE
    return errno.ENOSPC if "shared memory" in text or "No space left on device" in text else 0


def end_if_short(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End the process where samples cannot be handed over any more; its exit code says why.

    It happens in threads of their own, which would try again for ever, or drop the sample, for which training then waits.
    """
    if code := shortage(error):
        os._exit(code)
    sys.__excepthook__(kind, error, trace)


def end_if_not_sent(error: BaseException, packet: Any) -> None:
    """End the process where a packet could not be sent, in place of dropping it."""
    end_if_short(type(error), error, error.__traceback__)
    os._exit(1)


def start(worker: int) -> None:
    """Set up a loading process: one thread, the signals that the training process handles ignored, messages kept."""
    from ...core.imaging.opencv import cv2

    sys.excepthook = end_if_short
    Queue._on_queue_feeder_error = staticmethod(end_if_not_sent)  # type: ignore[attr-defined]
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    log = logging.getLogger("relume")
    log.handlers[:] = [_noted]
    log.propagate = False
    log.setLevel(logging.INFO)
