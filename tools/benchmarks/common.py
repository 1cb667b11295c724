"""What every section of the benchmark shares: the register of sections, turns between peers, memory of a fresh process.

A section is a function in any file of this folder, ``@section("name")``, that returns rows. Every file is found by itself.
"""

from __future__ import annotations

import importlib
import pkgutil
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]


class Gain(NamedTuple):
    """A row that another measurement can be compared with."""

    what: str
    ours: str
    peer: str
    ratio: str
    times: float
    """How many times better than the peer: of time and memory, the peer's over ours."""


Row = tuple[str, str, str, str] | Gain
"""What was measured, ours, the peer's, and the ratio or the target."""
Measurement = Callable[[], list[Row]]
Job = Callable[[], Any]

SECTIONS: dict[str, Measurement] = {}


def section(name: str) -> Callable[[Measurement], Measurement]:
    """Register a function under the name that the command line knows it by.

    Raises:
        ValueError: two functions are registered under one name.
    """

    def register(function: Measurement) -> Measurement:
        if name in SECTIONS:
            raise ValueError(f"two sections of the benchmark are called {name!r}")
        SECTIONS[name] = function
        return function

    return register


def discover() -> dict[str, Measurement]:
    """All sections of all files of this folder."""
    for module in sorted(found.name for found in pkgutil.iter_modules([str(HERE)])):
        importlib.import_module(f"{__package__}.{module}")
    return SECTIONS


def best_of(rounds: int, *contestants: Job) -> list[float]:
    """Shortest time of each contestant in seconds, taking turns after an unmeasured call; waits for a GPU in use."""

    def settled() -> float:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()

    for contestant in contestants:
        contestant()
    times = [float("inf")] * len(contestants)
    for _ in range(rounds):
        for i, contestant in enumerate(contestants):
            began = settled()
            contestant()
            times[i] = min(times[i], settled() - began)
    return times


def paired(rounds: int, *contestants: Job) -> list[float]:
    """Seconds of each contestant, so that quotients of the first are medians over pairs of neighbouring calls.

    On one thread of a CPU seconds are those that the processor spent on this process, which other processes of a busy machine
    disturb least; else those of a clock. Contestants take turns, forwards and backwards, after an unmeasured call.
    """
    clock = time.process_time if torch.get_num_threads() == 1 and not torch.cuda.is_initialized() else time.perf_counter
    for contestant in contestants:
        contestant()
    spent: list[list[float]] = [[] for _ in contestants]
    for i in range(rounds):
        turns = list(zip(contestants, spent, strict=True))
        for contestant, mine in turns if i % 2 == 0 else reversed(turns):
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            began = clock()
            contestant()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            mine.append(clock() - began)
    first = statistics.median(spent[0])
    return [first * statistics.median(b / a for a, b in zip(spent[0], other, strict=True)) for other in spent]


class Products(TorchDispatchMode):
    """Notes the matrix products and convolutions of what runs inside, forward and backward, to call them again alone.

    That is what a network cannot do without, as the library has it; Fourier transforms count as well. The same memory serves
    all calls with tensors of one shape, so that their time is less than that of the same calls within the network.
    """

    NAMES = frozenset(
        {*("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_", "convolution", "convolution_backward")}
        | {"_linear_pointwise", "_fft_r2c", "_fft_c2r", "_fft_c2c"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
        self.memory: dict[Any, torch.Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in self.NAMES:
            self.calls.append((func, *torch.utils._pytree.tree_map(self.another, (args, kwargs or {}))))
        return func(*args, **(kwargs or {}))

    def another(self, value: Any) -> Any:
        """A tensor of the same shape and layout, of random numbers; other values as they are."""
        if not isinstance(value, torch.Tensor):
            return value
        key = value.shape, value.stride(), value.dtype
        if key not in self.memory:
            reach = sum((n - 1) * step for n, step in zip(*key[:2], strict=True)) + 1 if value.numel() else 0
            numbers = torch.randn(reach, dtype=value.dtype, device=value.device)
            self.memory[key] = numbers.as_strided(*key[:2])
        return self.memory[key]

    def again(self) -> None:
        """All calls, one after another."""
        for func, args, kwargs in self.calls:
            func(*args, **kwargs)


def products_of(job: Job) -> Job:
    """The matrix products and convolutions of `job`, alone."""
    job()
    with Products() as products:
        job()
    return products.again


def share_row(what: str, ours: float, products: float) -> Row:
    """Seconds of ours and of its products and convolutions alone, and their share: what is left is all that can be saved."""
    return what, seconds(ours), f"{seconds(products)} its products alone", f"{100 * products / ours:.0f} %"


def peak_mib(prepare: Callable[..., Job], *arguments: str) -> float:
    """Growth of a fresh process's resident set while it runs the job that ``prepare(*arguments)`` returns.

    ``prepare`` is a module-level function of a file of this folder: only its name and the strings travel. What it builds and
    warms up itself does not count.

    Raises:
        RuntimeError: the process fails.
    """
    where = f"{prepare.__module__.rsplit('.', 1)[-1]}:{prepare.__qualname__}"
    command = [sys.executable, str(HERE.parent / "benchmark.py"), "--threads", str(torch.get_num_threads())]
    run = subprocess.run([*command, "--alone", where, *arguments], capture_output=True, text=True)  # nosec B603
    if run.returncode:
        raise RuntimeError(f"measuring {where} {' '.join(arguments)} in a process of its own failed:\n{run.stderr}")
    return float(run.stdout.split()[-1])


def alone(where: str, *arguments: str) -> None:
    """The other side of `peak_mib`, in the fresh process: run the job and print how far the resident set grew, in MiB."""
    module, function = where.split(":")
    job = getattr(importlib.import_module(f"{__package__}.{module}"), function)(*arguments)
    before = resident_mib()
    job()
    print(resident_mib() - before)


def resident_mib(process: int | str = "self") -> float:
    """Largest resident set of a process so far. (Linux's getrusage would count the parent's, before exec, as well.)

    Of others it is 0 once they have ended, and where the system does not tell.
    """
    status = Path(f"/proc/{process}/status")
    if status.exists():
        found = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(found[0].split()[1]) / 1024 if found else 0.0
    if process != "self":
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def seconds(value: float) -> str:
    """A duration as people write it."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def time_row(what: str, ours: float, peer: float, name: str) -> Row:
    """Seconds of ours and of the peer called ``name``, and how many times faster ours is."""
    return Gain(what, seconds(ours), f"{seconds(peer)} {name}", f"{peer / ours:.2f} x", peer / ours)


def memory_row(what: str, ours: float, peer: float, name: str) -> Row:
    """MiB of ours and of the peer called ``name``, and ours as a share of the peer's."""
    return Gain(what, f"{ours:.0f} MiB", f"{peer:.0f} MiB {name}", f"{100 * ours / peer:.0f} %", peer / ours)
