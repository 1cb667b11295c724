"""Kernel or plain form under ``auto``, by which of them was faster on this device: measured once, kept in a file.

What is measured is an op's registered call (`core.ops.self_test`) with tensors about as large as those at hand: the rows of a
map are rounded up to a power of 4, its width is as it is. Results of both are compared there as well. The choice is kept in
``kernels.json`` in `core.hub.home`, by device, versions of PyTorch and Triton, and a digest of the kernels' sources; ranks of a
machine take turns and read it, so that they choose alike.

Nothing is measured, and kernels are used wherever they run, under ``RELUME_KERNELS=on``, by deterministic algorithms (results
must not depend on a clock), by ranks on several machines (which could choose differently), by ``torch.compile``, and while a
CUDA graph is captured.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import logging
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import self_test
from .modes import NAMES

log = logging.getLogger("relume")
FILE = "kernels.json"
REPEATS = 5
"""Timed calls of each form, of which the median counts."""
LARGEST = 1 << 24
"""Elements of the map that is tried: larger ones count as this one."""
EXACT = 512
"""Widths up to which each counts for itself; larger ones are rounded up to a power of 2."""
KNOWN: dict[tuple[Any, ...], str | None] = {}
"""What was chosen in this process."""


def slower(op: str, shape: tuple[int, ...], x: Tensor) -> str | None:
    """Why the plain form of `op` is to be preferred, in a few words, or None.

    Args:
        op: a key of `core.ops.modes.NAMES`, whose kernels run and passed their self-test.
        shape: shape of what it works on.
        x: a tensor of the dtype and on the device.
    """
    if op not in self_test.SIZED or torch.are_deterministic_algorithms_enabled() or _several_machines():
        return None
    side, width = size_class(shape)
    here = op, torch.is_grad_enabled(), x.dtype, x.device, side, width
    if here not in KNOWN:
        if x.is_cuda and torch.cuda.is_current_stream_capturing():
            return None
        KNOWN[here] = _chosen(op, side, width, x)
    return KNOWN[here]


@functools.cache
def size_class(shape: tuple[int, ...]) -> tuple[int, int]:
    """Size of a map: the side of the square of its rows, a power of 2 from 8 on, and its width."""
    width = shape[-1] if shape[-1] <= EXACT else 1 << (shape[-1] - 1).bit_length()
    rows = math.prod(shape[:-1])
    side = 8
    while side**2 < rows and 4 * side**2 * width <= LARGEST:
        side *= 2
    return side, width


def _several_machines() -> bool:
    """Whether there may be several: more ranks than this one has GPUs."""
    dist = torch.distributed
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > torch.cuda.device_count()


def _chosen(op: str, side: int, width: int, x: Tensor) -> str | None:
    from ..hub import home, turn

    pass_ = "step" if torch.is_grad_enabled() else "forward"
    key = f"{op}, {pass_}, {str(x.dtype).removeprefix('torch.')}, {side**2} x {width}"
    pair = _read(home()).get(key)
    if pair is None:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                home().mkdir(parents=True, exist_ok=True)
                stack.enter_context(turn(home() / (FILE + ".lock")))
            pair = _read(home()).get(key)  # another rank may have measured it meanwhile
            if pair is None:
                found = _tried(op, key, side, width, x)
                if not isinstance(found, tuple):
                    return found
                pair = found
                _keep(home(), key, pair)
    plain, fused = pair
    return None if fused <= plain else f"slower here: {fused:.3g} ms, plain {plain:.3g} ms for {side**2} x {width}"


def _tried(op: str, key: str, side: int, width: int, x: Tensor) -> tuple[float, float] | str | None:
    """Milliseconds of both, or why the fused one cannot be used, or None where there is no memory to find out."""
    log.info("Trying the fused %s against plain PyTorch: %s.", NAMES[op], key.partition(", ")[2])
    try:
        return _measured(op, side, width, x)
    except torch.OutOfMemoryError:  # kernels, which keep less, are the better choice for now
        return None
    except Exception as e:  # of a compiler, a driver or a kernel: there is no common class
        return f"its trial on {side**2} x {width} {self_test.failure(e)}"


def _measured(op: str, side: int, width: int, x: Tensor) -> tuple[float, float] | str:
    """Milliseconds of the plain form and of the fused one, or what is wrong with the results of the latter."""
    function, _ = self_test.CASES[op]
    given = self_test.drawn(self_test.SIZED[op](side, width), x.device, x.dtype)
    gradients = torch.is_grad_enabled()
    calls = [
        functools.partial(self_test.called, op, mode, function, given, gradients=gradients) for mode in ("off", "on")
    ]
    wrong = self_test.difference(calls[1](), calls[0](), x.dtype)
    if wrong:
        return f"its trial on {side**2} x {width} found {wrong}"
    return milliseconds(calls[0], x.device), milliseconds(calls[1], x.device)


def milliseconds(call: Callable[[], Any], device: torch.device) -> float:
    """Milliseconds of a call on a GPU that ran before."""
    times: list[float] = []
    with torch.cuda.device(device):
        for _ in range(REPEATS):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            end.synchronize()
            times.append(float(begin.elapsed_time(end)))
    return statistics.median(times)


# ------------------------------------------------------------------------------------------------------------- the file
@functools.cache
def source() -> str:
    """A digest of the kernels' sources."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _device() -> str:
    return torch.cuda.get_device_name()


def _section() -> tuple[str, str]:
    """The device, and what else the figures hold for."""
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = "none"
    return _device(), f"torch {torch.__version__}, triton {triton}, {source()}"


def _whole(folder: Path) -> dict[str, Any]:
    """What the file holds; nothing where it is missing, damaged, or something else."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _read(folder: Path) -> dict[str, tuple[float, float]]:
    device, versions = _section()
    section = _whole(folder).get(device)
    if not isinstance(section, dict) or section.get("of") != versions or not isinstance(section.get("ms"), dict):
        return {}
    return {
        key: (float(pair[0]), float(pair[1]))
        for key, pair in section["ms"].items()
        if isinstance(pair, list) and len(pair) == 2 and all(type(v) in (int, float) and v > 0 for v in pair)
    }


def _keep(folder: Path, key: str, pair: tuple[float, float]) -> None:
    from ..files.replacing import replacing

    device, versions = _section()
    content = _whole(folder) | {device: {"of": versions, "ms": {**_read(folder), key: pair}}}
    try:
        with replacing(folder / FILE) as file:
            file.write(json.dumps(content, indent=1).encode())
    except OSError as e:
        log.debug("What kernels took cannot be kept in %s: %s", folder, e)
