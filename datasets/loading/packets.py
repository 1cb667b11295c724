"""Samples made ahead in loading processes, which start once, live as long as they are needed, and cannot hang a run."""

from __future__ import annotations

import atexit
import contextlib
import errno
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from ...core.errors import UserError
from .sampler import SampleKey
from .worker import Packet, SeededDataset, collate, shortage, start

LOOK = 5.0
"""Seconds between two looks whether the loading processes are alive."""


class _AllRun:
    """What an iterator of torch's, whose construction failed, takes for the states of its processes at its end."""

    def __getitem__(self, worker: int) -> bool:
        return True

    def __setitem__(self, worker: int, runs: bool) -> None:
        pass


# Torch sets both at the end of a construction and asks for them when what failed before is deleted.
_MultiProcessingDataLoaderIter._shutdown = True
_MultiProcessingDataLoaderIter._workers_status = _AllRun()  # type: ignore[assignment]


class NoBatch(Exception):
    """The loading processes have been silent for too long."""


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


class Patience:
    """Torch's look for a batch, which gives up when there has been none for too long.

    Torch's own time-out would look whether the processes are alive only at its end.
    """

    def __init__(self, look: Callable[..., tuple[bool, Any]], timeout: float) -> None:
        self._look = look
        self._timeout = timeout
        self._since: float | None = None

    def __call__(self, timeout: float | None = None) -> tuple[bool, Any]:
        timeout = LOOK if timeout is None else timeout
        began = time.monotonic() if self._since is None else self._since
        found, data = self._look(timeout if not self._timeout else min(timeout, LOOK, self._timeout))
        self._since = None if found else began
        if not found and self._timeout and time.monotonic() - began >= self._timeout:
            raise NoBatch
        return found, data


class Packets(Iterator[Packet]):
    """Packets of `batches`, made ahead of their use in as many processes as asked.

    (The number is the user's choice: torch's advice of one per core is wrong for remote files.)

    Args:
        batches: what the samples of each batch are. With `keep`, they may change between two calls of `again`.
        workers: number of processes.
        ahead: batches that each of them prepares.
        pin_memory: put batches into page-locked memory.
        collated: function that makes a batch of samples.
        timeout: seconds without a batch after which that is an error; 0 waits for ever.
        keep: let the processes live when all batches are made, for `again`.
    """

    def __init__(
        self,
        dataset: SeededDataset,
        batches: Iterable[list[SampleKey]],
        workers: int,
        ahead: int = 2,
        pin_memory: bool = False,
        collated: Callable[[Any], Packet] = collate,
        timeout: float = 0.0,
        keep: bool = False,
    ) -> None:
        self._timeout = timeout
        self._processes: list[Any] = []
        with warnings.catch_warnings(), child_handler_kept(), self._explained():
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
            self._loader = DataLoader(
                dataset,
                batch_sampler=batches,
                num_workers=workers,
                collate_fn=collated,
                worker_init_fn=start,
                prefetch_factor=max(1, ahead) if workers else None,
                persistent_workers=keep and workers > 0,
                pin_memory=pin_memory,
                generator=torch.Generator(),  # or the choice of workers would change the global one
            )
            self._packets = iter(self._loader)
        self._processes = list(getattr(self._packets, "_workers", ()))
        if self._processes:
            event = self._packets._workers_done_event  # type: ignore[attr-defined]
            self._packets._workers_done_event = Ending(event)  # type: ignore[attr-defined]
            self._packets._try_get_data = Patience(self._packets._try_get_data, timeout)  # type: ignore[attr-defined]
        # Python ends child processes by SIGTERM and waits; ours ignore it, so they must be gone before.
        atexit.register(_close_if_alive, weakref.ref(self))

    def __next__(self) -> Packet:
        with self._explained():
            return next(self._packets)

    @property
    def alive(self) -> bool:
        """Whether all loading processes still run."""
        return all(p.is_alive() for p in self._processes)

    def again(self) -> None:
        """Begin with the batches, which may be others by now, anew; what is left of the last ones is thrown away."""
        with self._explained():
            self._packets = iter(self._loader)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what has happened to the loading processes.

        Raises:
            UserError: they died, are silent, or cannot pass batches on.
        """
        try:
            yield
        # Processes that live and give nothing.
        except NoBatch as e:
            for process in self._processes:
                process.kill()  # it would not hear of its end either
            raise UserError(
                f"no batch has come from {len(self._processes)} loading process(es) within {self._timeout:g} s: a stalled "
                "file system, or a dataset that waits for something. datasets.<name>.timeout: 0 waits for ever"
            ) from e
        # A process that died, or a resource of the machine that has run out.
        except (RuntimeError, OSError, EOFError) as e:
            for process in self._processes:
                process.join(0.1)  # a process that is just ending counts as dead
            dead = [p.exitcode for p in self._processes if not p.is_alive()]
            short_of = shortage(e) if not dead else next((d for d in dead if d in (errno.EMFILE, errno.ENOSPC)), 0)
            if short_of == errno.ENOSPC:
                raise UserError(
                    "shared memory (/dev/shm) is full, through which samples come: docker run --shm-size, or "
                    "num_worker_per_gpu: 0"
                ) from e
            if short_of == errno.EMFILE:
                raise UserError(
                    "too many open files: raise the limit with ulimit -n, or lower num_worker_per_gpu"
                ) from e
            if not dead:
                raise  # a mistake in the dataset's code
            raise UserError(death(dead[0])) from e

    def close(self) -> None:
        """End the processes."""
        if self._processes:
            self._packets._shutdown_workers()  # type: ignore[attr-defined]
        for process in self._processes:
            if process.is_alive():
                process.kill()  # stuck in a read, or waiting for what a dead one has taken along
                process.join(1.0)


def death(code: int | None) -> str:
    """What to say of a loading process that ended with an exit code, less than 0 for a signal."""
    if code == -signal.SIGBUS:
        return (
            f"a loading process died of a bus error (exit code {code}): a file that is mapped into memory, as an LMDB is, was "
            "cut while it was read, or shared memory (/dev/shm) is full: docker run --shm-size"
        )
    if code == -signal.SIGSEGV:
        return f"a loading process died of a memory fault (exit code {code}): a decoder or another library failed"
    return (
        f"a loading process died (exit code {code}). The system kills processes (-9) when memory is short: "
        "lower num_worker_per_gpu or num_prefetch_queue, or enlarge shared memory (docker run --shm-size)"
    )


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
