"""Loading processes that cannot hand over what they have made: one line, and no waiting for ever."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import resource

import pytest
import torch

from relume.core.errors import UserError
from relume.datasets.loading import packets as packets_of
from relume.datasets.loading.packets import Packets
from relume.datasets.loading.sampler import SampleKey
from relume.datasets.loading.worker import SeededDataset


def all_files(more: int = 0) -> list[int]:
    """Open as many files as this process may, of which there are from now on few, and `more`."""
    most = max(map(int, os.listdir("/proc/self/fd"))) + 8 + more
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken: list[int] = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    return taken


class Short:
    """A data set after whose first sample its process may open `spare` more files, or no more shared memory."""

    def __init__(self, spare: int | None) -> None:
        self.spare = spare

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, object]:
        if self.spare is None:

            def full(*_: object) -> None:
                raise RuntimeError(
                    "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
                )

            torch.UntypedStorage._share_fd_cpu_ = full
        elif index == 0:
            for file in all_files()[: self.spare]:
                os.close(file)
        return {"lq": torch.zeros(3, 512, 512)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("spare", [None, 0])
def test_no_sample_is_waited_for_in_vain(spare: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets_of, "LOOK", 0.2)
    keys = [[SampleKey(0, i, i)] for i in range(64)]
    packets = Packets(SeededDataset(Short(spare), 0), keys, 1, ahead=8)
    try:
        with pytest.raises(UserError, match="shared memory" if spare is None else "too many open files"):
            held = [next(packets) for _ in range(64)]
            assert not held
    finally:
        packets.close()


@pytest.mark.parametrize("spare", [0, 16, 24])  # for the first queue, in the second process, in the third
def test_processes_that_cannot_be_started_for_want_of_files_say_so(spare: int) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    keys = [[SampleKey(0, i, i)] for i in range(4)]
    taken = all_files(spare)
    try:
        for file in taken[:spare]:
            os.close(file)
        with pytest.raises(UserError, match="too many open files: raise the limit with ulimit -n"):
            Packets(SeededDataset(Short(None), 0), keys, 8)
    finally:
        for file in taken[spare:]:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    gc.collect()  # what is left of the iterator must have nothing to complain about, which pytest would tell
    assert not multiprocessing.active_children()
