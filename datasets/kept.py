"""Decoded images in memory that all loading processes of a dataset share: ``io_backend: {type: disk, cache: 8}``."""

from __future__ import annotations

import mmap
import multiprocessing
import struct
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ..core.errors import UserError
from ..core.runtime.memory import gib, there_is

HEAD = struct.Struct("<16s3q")
"""What stands before an image's numbers: its type, and height, width and channels."""
GRAIN = 64
"""Bytes to whose multiples images begin."""
PATIENCE = 1.0
"""Seconds that one process waits for another that keeps an image; one that was killed keeps the lock for ever."""


SMALL, SHARE = 0.25, 64
"""GiB of a training set's images that are kept unless options say otherwise, and the part of the memory that is the most."""


def little() -> float:
    """GiB of images that are kept where nobody asked: a small training set is then decoded once."""
    return min(SMALL, there_is() / SHARE / 2**30)


def refuse_beyond_memory(size: int) -> None:
    """Refuse to keep more bytes than this machine has.

    Raises:
        UserError: `size` is larger than the machine's memory.
    """
    if size > (there := there_is()):
        raise UserError(
            f"io_backend.cache: {gib(size)} GB of images do not fit into memory; this machine has {gib(there)}"
        )


class Pool:
    """Memory that processes share which are forked after it was made, and that is taken from the system as it is filled.

    What is kept stays: when the pool is full, the other images are decoded each time. Every epoch sees each image once, so that
    replacing some by others would gain nothing. Processes that are not forked, and copies, have a pool of their own, empty.

    Args:
        size: size in bytes.

    Raises:
        UserError: the system does not give it.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        try:
            self.memory = mmap.mmap(-1, max(self.size, GRAIN))
        except (OSError, ValueError, OverflowError) as e:
            raise UserError(f"io_backend.cache: {gib(self.size)} GB of memory cannot be had ({e})") from e
        self.used = np.frombuffer(mmap.mmap(-1, 16), np.int64)  # bytes, and whether something has found no room
        self.lock = multiprocessing.Lock()

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return Pool, (self.size,)

    @property
    def full(self) -> bool:
        """Whether something has found no room."""
        return bool(self.used[1])

    def reserve(self, size: int) -> int | None:
        """Where `size` bytes may be written; None when the pool is full, or another process has died over it."""
        if not self.lock.acquire(timeout=PATIENCE):
            return None
        try:
            start = int(self.used[0])
            if start + size > self.size:
                self.used[1] = 1
                return None
            self.used[0] = start + -(-size // GRAIN) * GRAIN
            return start
        finally:
            self.lock.release()


class Shelf:
    """The places of one source's images in a pool.

    Args:
        pool: pool that has them.
        count: how many images the source has.
        places: memory for that, of as many int64; made when omitted.
    """

    def __init__(self, pool: Pool, count: int, places: np.ndarray | None = None) -> None:
        self.pool, self.count = pool, count
        # One above the place of each image, 0 for none: a single word, so that no process sees half of it.
        self.places = np.frombuffer(mmap.mmap(-1, max(8, 8 * self.count)), np.int64) if places is None else places

    def divided(self, counts: Iterable[int]) -> Iterator[Shelf]:
        """Shelves of so many images each, one after the other, in this one's memory: thousands of clips need one piece."""
        start = 0
        for count in counts:
            yield Shelf(self.pool, count, self.places[start : start + count])
            start += count

    def find(self, number: int) -> np.ndarray | None:
        """Image `number`, not to be written to, if it is kept: of a patch that is cut from it no more is read than that."""
        place = int(self.places[number])
        return self._read(place - 1) if place else None

    def __reduce__(self) -> tuple[type, tuple[Pool, int]]:
        return Shelf, (self.pool, self.count)

    def get(self, number: int, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """Image `number`, (H, W, C) or (H, W): see `find`, or what `decode` gives, kept where there is room."""
        if (kept := self.find(number)) is not None:
            return kept
        image = decode()
        if image.ndim in (2, 3) and (start := self.pool.reserve(HEAD.size + image.nbytes)) is not None:
            shape = (*image.shape, 0)[:3]
            HEAD.pack_into(self.pool.memory, start, image.dtype.str.encode(), *shape)
            begin = start + HEAD.size
            self.pool.memory[begin : begin + image.nbytes] = np.ascontiguousarray(image).tobytes()
            self.places[number] = start + 1
        return image

    def _read(self, start: int) -> np.ndarray:
        kind, height, width, channels = HEAD.unpack_from(self.pool.memory, start)
        shape = (height, width, channels) if channels else (height, width)
        dtype = np.dtype(kind.rstrip(b"\0").decode())
        size = height * width * max(1, channels)
        image = np.frombuffer(self.pool.memory, dtype, size, start + HEAD.size).reshape(shape)
        image.flags.writeable = False  # it stays as it is for the others
        return image
