"""How much memory a network needs for a picture, how much there is, and what to do when that was wrong: smaller tiles."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ..errors import UserError

log = logging.getLogger("relume")

SHARE = 0.5
"""Share of the free memory that a network's activations may take."""
ENOUGH = 640 * 2**20
"""Bytes for activations on a CPU, where larger tiles are not faster: a process stays below 2 GiB with large pictures, too."""
WORKSPACE = 1.5
"""What libraries allocate besides the tensors that are seen, as a factor."""
SIDES = (64, 128)
"""Sides of the tiles that a network's need is measured with."""
SMALLEST = 32
"""Side below which tiles are not halved."""


class Peak(TorchFunctionMode):
    """Inside: counts the bytes of all tensors that are alive at the same time, of those made here.

    What is made and gone within one function of torch is not seen. (A mode that sees it needs seconds to be imported.)

    Attributes:
        most: largest number of bytes so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.seen:
            return
        size = storage.nbytes()
        self.seen.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


def need(fn: Callable[[Tensor], Any], x: Tensor) -> int:
    """Bytes that ``fn(x)`` of (B, C, H, W) has at once, at most, besides `x` and parameters."""
    with torch.no_grad(), Peak() as peak:
        fn(x)
    return int(peak.most * WORKSPACE)


def free(device: torch.device) -> int:
    """Bytes that this process can still have on a device: of a CPU, within what the system and its limits leave."""
    if device.type == "cuda":
        available, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(available + cached)
    return min((f for f in (_of_system(), _of_group(), _of_process()) if f is not None), default=ENOUGH)


def _of_system() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_group() -> int | None:
    """The bytes that the control group of a container leaves."""
    for most, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            return max(int(Path(most).read_text()) - int(Path(used).read_text()), 0)
    return None


def _of_process() -> int | None:
    """Within ``ulimit -v``."""
    with contextlib.suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            return max(limit - pages * os.sysconf("SC_PAGE_SIZE"), 0)
    return None


def budget(device: torch.device) -> int:
    """Bytes for a network's activations."""
    share = int(free(device) * SHARE)
    return share if device.type == "cuda" else min(share, ENOUGH)


class Need:
    """How a network's need grows with its input: measured on two small ones, and continued as a line, or faster if it is.

    Args:
        fn: the network, from (B, C, H, W).
        channels: channels of its input.
        multiple: what the sizes of its input must be multiples of.
        device: device on which it computes.
        batch: B.
    """

    def __init__(
        self, fn: Callable[[Tensor], Any], channels: int, multiple: int, device: torch.device, batch: int = 1
    ) -> None:
        sides = [-(-side // multiple) * multiple for side in SIDES]
        sides[1] = max(sides[1], sides[0] + multiple)
        small, large = (need(fn, torch.rand(batch, channels, s, s, device=device)) for s in sides)
        few, many = sides[0] ** 2, sides[1] ** 2
        growth = math.log(max(large, 1) / max(small, 1)) / math.log(many / few)
        self.power = min(max(growth, 1.0), 2.0)
        # Below a power of 1 there is a part that does not grow: copies of weights.
        slope = max((large - small) / (many - few), 1.0) if growth < 1 else large / many
        self.fixed = max(large - slope * many, 0.0)
        self.slope, self.pixels = slope, many

    def of(self, pixels: int) -> int:
        """Bytes for an input of so many pixels."""
        return int(self.fixed + self.slope * self.pixels * (pixels / self.pixels) ** self.power)

    def side(self, most: int, multiple: int) -> int:
        """Side of the largest square tile within so many bytes."""
        growing = max(most - self.fixed, 1.0) / (self.slope * self.pixels)
        side = math.isqrt(int(self.pixels * growing ** (1 / self.power)))
        return max(side // multiple * multiple, multiple, SMALLEST // multiple * multiple)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was not enough, of a GPU or of the machine."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)


def halved(tile: int | None, height: int, width: int, multiple: int) -> int:
    """The next smaller tile after one that was too large; None was the whole picture.

    Raises:
        UserError: it is as small as it may be.
    """
    before = min(tile or math.inf, max(height, width))
    smaller = max(int(before) // 2 // multiple * multiple, multiple)
    if before <= max(SMALLEST, multiple):
        raise UserError(
            f"memory is not enough even for tiles of {int(before)} pixels; free some, or give another --device"
        )
    return max(smaller, SMALLEST // multiple * multiple)
