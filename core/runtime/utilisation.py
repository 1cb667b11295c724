"""What a step's time goes to, the operations of its products and convolutions, and what share of a GPU that is."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch

log = logging.getLogger("relume")

PEAKS = {
    r"A100\b.*": (312.0, 156.0, 19.5),
    r"H100 PCIe": (756.0, 378.0, 51.0),
    r"H100 80GB HBM3": (989.0, 494.5, 67.0),
    r"H200": (989.0, 494.5, 67.0),
    r"L40S": (362.0, 183.0, 91.6),
    r"L4": (121.0, 60.0, 30.3),
    r"A10": (125.0, 62.5, 31.2),
    r"V100-SXM2\b.*": (125.0, 15.7, 15.7),
    r"T4": (65.0, 8.1, 8.1),
    r"GeForce RTX 3090": (71.0, 35.6, 35.6),
    r"GeForce RTX 4090": (165.2, 82.6, 82.6),
}
"""TFLOP/s of half precision, TF32 and float32 without sparsity, as the vendor states them, by the name that CUDA gives."""
MOST_SHAPES = 8
"""Sizes of batches whose operations are counted; data of ever changing size are left uncounted beyond."""


def peak(name: str, amp: str, precision: str) -> float | None:
    """The most TFLOP/s of a GPU in the precision of a run; None of one that is not known.

    >>> peak("NVIDIA H200", "bf16", "highest"), peak("NVIDIA H200", "off", "high"), peak("Some GPU", "off", "highest")
    (989.0, 494.5, None)
    """
    bare = re.sub(r"^(NVIDIA|Tesla)\s+", "", name)
    known = next((p for pattern, p in PEAKS.items() if re.fullmatch(pattern, bare)), None)
    if known is None:
        return None
    return known[0 if amp != "off" else 1 if precision != "highest" else 2]


class Clock:
    """What the time between two lines of the log went to, in seconds per step."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.data = self.host = self.device = 0.0
        self.steps = 0

    def step(self, data: float, whole: float) -> None:
        """A step waited for `data` and took `whole`: the rest is the host's, who tells a device what to do, or computes."""
        self.steps += 1
        self.data += data
        self.host += whole - data

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, the host asks the device for what it has computed, and waits."""
        began = time.perf_counter()
        yield
        self.device += time.perf_counter() - began

    def take(self) -> dict[str, float]:
        """The means for a line; the next line's begin after this one."""
        steps = max(self.steps, 1)
        found = {"data": self.data / steps, "device": self.device / steps, "host": self.host / steps}
        self.clear()
        return {f"perf/wait_{k}" if k != "host" else "perf/host": v for k, v in found.items()}


class Utilisation:
    """How many floating-point operations a second a run does on its GPU.

    They are counted in the first step of each size of batch, whose numbers that changes in no bit, and only where a GPU does
    them: a CPU has other limits. Compiled networks, which a look inside would have run uncompiled, are counted as before they
    were, and then nothing else is.

    Args:
        compiled: whether networks are.
        most: TFLOP/s of the GPU at most; see `peak`.
    """

    def __init__(self, device: torch.device, compiled: bool, most: float | None) -> None:
        self.on, self.compiled = device.type != "cpu", compiled
        self.most = most
        self.flops: dict[Any, int] = {}
        self.now: int | None = None

    @contextlib.contextmanager
    def counting(self, batches: Any) -> Iterator[None]:
        """Inside, a step of these batches is made."""
        self.now = None
        if not self.on:
            yield
            return
        key = tuple(tuple(v.shape) for b in batches for v in b.values() if isinstance(v, torch.Tensor))
        if key not in self.flops and len(self.flops) < MOST_SHAPES:
            from .operations import CompiledCalls, Counted

            seen = CompiledCalls() if self.compiled else Counted()
            with seen.counting() if isinstance(seen, CompiledCalls) else seen:
                yield
            self.flops[key] = seen.flops
            left_out = [*(["losses"] if self.compiled else []), *sorted(seen.unknown)]
            if left_out and len(self.flops) == 1:
                log.info("The TFLOP/s of the log leave out the work of: %s", ", ".join(left_out))
        else:
            yield
        self.now = self.flops.get(key)

    def of(self, seconds: float) -> dict[str, float]:
        """What a step that took so long means, where its operations are known."""
        if not self.now or seconds <= 0:
            return {}
        rate = self.now / seconds / 1e12
        return {"perf/tflops": rate, **({"perf/mfu": rate / self.most} if self.most else {})}


def in_words(scalars: Mapping[str, float]) -> str:
    """What a line says of a GPU's work: what each step waited for in the mean, peak memory, TFLOP/s and their share of the most
    that the GPU can do; nothing of a CPU's.

    >>> in_words({"perf/tflops": 12.34, "perf/mfu": 0.5, "perf/wait_device": 0.2, "perf/memory_gib": 3.21})
    '[wait: data 0.000, device 0.200, host 0.000] [3.2 GiB, 12.3 TFLOP/s, 50 % of peak] '
    """
    if (rate := scalars.get("perf/tflops")) is None:
        return ""
    data, device, host = (scalars.get(f"perf/{k}", 0.0) for k in ("wait_data", "wait_device", "host"))
    share = f", {100 * scalars['perf/mfu']:.0f} % of peak" if "perf/mfu" in scalars else ""
    waits = f"[wait: data {data:.3f}, device {device:.3f}, host {host:.3f}] "
    return f"{waits}[{scalars.get('perf/memory_gib', 0.0):.1f} GiB, {rate:.1f} TFLOP/s{share}] "
