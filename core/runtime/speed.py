"""How torch computes: precision of products, choice of convolutions, determinism; and what a few steps spend their time on."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ..annotations import Count, Section, setting
from ..files import replacing, temporary_name

log = logging.getLogger("relume")

Precision = Literal["highest", "high", "medium"]


@dataclass(frozen=True, eq=False)
class Profile(Section):
    """Which steps are measured: torch's profiler writes a Chrome trace and a table of the ten most expensive operations."""

    start: Count = setting(10, "First iteration that is measured.")
    steps: Count = setting(5, "How many are.")


@contextlib.contextmanager
def computing(precision: Precision, benchmark: bool, deterministic: bool) -> Iterator[None]:
    """Inside: float32 products and convolutions in that precision, and cuDNN's fastest convolutions or deterministic ones.

    ``highest`` forbids TF32, which torch allows cuDNN by default; the others allow it in products too.
    """
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    modes = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which older cuBLAS wants to have
        if benchmark:
            log.info("train.cudnn_benchmark is off, since deterministic: true takes precedence")
    try:
        torch.set_float32_matmul_precision(precision)
        cudnn.allow_tf32 = precision != "highest"
        cudnn.benchmark = benchmark and not deterministic
        cudnn.deterministic = deterministic
        deterministically(deterministic)
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before[1:]
        deterministically(*modes)


def deterministically(wanted: bool, warn_only: bool = False) -> None:
    """Have torch use deterministic algorithms or not; where that is so already, nothing is called that imports the compiler."""
    if (wanted, warn_only) != (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    ):
        torch.use_deterministic_algorithms(wanted, warn_only=warn_only)


class Profiler:
    """Measures some of the steps of a run.

    Args:
        which: None measures nothing.
        folder: folder that gets ``profile_<first>.json``, which chrome://tracing and Perfetto open, and
            ``profile_<first>.txt``.
    """

    def __init__(self, which: Profile | None, folder: Path, device: torch.device) -> None:
        self.which = which
        self.folder = folder
        self.device = device
        self.running: Any = None

    def before(self, iteration: int) -> None:
        """A step begins."""
        if self.which is not None and iteration == self.which.start:
            kinds = [torch.profiler.ProfilerActivity.CPU]
            if self.device.type == "cuda":
                kinds.append(torch.profiler.ProfilerActivity.CUDA)
            self.running = torch.profiler.profile(activities=kinds)
            self.running.__enter__()

    def after(self, iteration: int, last: bool) -> None:
        """A step is over, perhaps the last one of the run."""
        if self.running is None or self.which is None:
            return
        if iteration < self.which.start + self.which.steps - 1 and not last:
            return
        found, self.running = self.running, None
        found.__exit__(None, None, None)
        order = f"self_{self.device.type if self.device.type == 'cuda' else 'cpu'}_time_total"
        table = found.key_averages().table(sort_by=order, row_limit=10, max_name_column_width=60)
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = self.folder / f"profile_{self.which.start}"
        trace = temporary_name(stem.with_suffix(".json"), ".json")  # the profiler writes to names only
        found.export_chrome_trace(str(trace))
        trace.replace(stem.with_suffix(".json"))
        with replacing(stem.with_suffix(".txt")) as file:
            file.write(table.encode())
        log.info(
            "Profile of iterations %d to %d, the ten most expensive operations (trace: %s.json):\n%s",
            self.which.start,
            iteration,
            stem,
            table,
        )
