"""How many CPU threads each rank uses."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from ..errors import UserError
from . import distributed

ON_A_GPU = 8
"""Threads that a rank has use for when its tensors are elsewhere."""
MOST = 32
"""Threads, and loading processes, for each core beyond which they are a slip, and systems refuse to start them."""
CGROUP = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """CPU cores that this process may use: those it is bound to, and no more than a container's share."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP.read_text().split()
        return max(1, min(bound, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no limit, or no Linux
        return bound


def refuse_too_many(key: str, number: int) -> None:
    """Refuse more threads or processes than this machine starts in a reasonable time.

    Raises:
        UserError: `number` is larger; the message names the option.
    """
    if number > (most := MOST * cores()):
        machine = f"this machine of {_some(cores(), 'core')}"
        raise UserError(f"{key}: must be at most {most} on {machine}, got {number}")


def chosen(asked: int | None, available: int, ranks: int, loading: int, on_gpu: bool) -> tuple[int, str]:
    """Threads of a rank, and why so many, in words.

    Loading processes that keep cores busy cost a training more than further threads gain it.

    Args:
        asked: threads that the options ask for.
        available: cores of this node.
        ranks: ranks that share them.
        loading: processes of each rank that load while it computes.
        on_gpu: whether its tensors are on a GPU.

    >>> chosen(4, 16, 2, 2, False)
    (4, 'dist_params.threads')
    """
    if asked is not None:
        return asked, "dist_params.threads"
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdecimal() and int(said) > 0:
        return int(said), f"OMP_NUM_THREADS={said}"
    number = max(1, available // ranks - loading)
    share = f"{_some(available, 'core')} for {_some(ranks, 'rank')}"
    return min(number, ON_A_GPU) if on_gpu else number, f"{share} with {loading} loading process(es) each"


def _some(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


@contextlib.contextmanager
def shared_out(asked: int | None, loading: int, device: torch.device) -> Iterator[str]:
    """Inside: torch computes with the threads that are this rank's due. Gives that in words.

    Args:
        asked, loading: see `chosen`.
        device: device of this rank.

    Raises:
        UserError: more threads are asked for than this machine starts.
    """
    before = torch.get_num_threads()
    number, why = chosen(asked, cores(), distributed.ranks_here(), loading, device.type == "cuda")
    refuse_too_many(why.partition("=")[0], number)
    torch.set_num_threads(number)
    try:
        yield f"{_some(number, 'CPU thread')} per rank ({why})"
    finally:
        torch.set_num_threads(before)
