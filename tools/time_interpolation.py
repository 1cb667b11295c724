"""Time a frame interpolator at the usual sizes, padding included.

``python tools/time_interpolation.py -opt options/vfi/phase2.yml [--sizes 480p 720p 1080p 2k 4k 256x448] [--amp bf16]``

Inputs are random, batch 1; weights do not matter and are not loaded. Each call is synchronised and timed alone, after warm-up.
Peak memory is the GPU's; on a CPU, the process's highest resident memory so far.
"""

from __future__ import annotations

import argparse
import platform
import re
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from relume.core.cli import script
from relume.core.errors import UserError
from relume.core.load import load_model
from relume.core.models.interpolation import InterpolationModel
from relume.core.runtime.distributed import named_device

PRESETS = {
    "480p": (480, 854),
    "720p": (720, 1280),
    "1080p": (1080, 1920),
    "2k": (1080, 2048),
    "2160p": (2160, 3840),
    "4k": (2160, 3840),
}
"""Height and width."""


class Timing(NamedTuple):
    """What one size took."""

    size: tuple[int, int]
    milliseconds: list[float]
    memory: float
    """Peak, in MiB."""


def size_of(text: str) -> tuple[int, int]:
    """(height, width) of a preset or of ``256x448``.

    Raises:
        UserError: it is neither.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if text not in PRESETS and (match is None or not int(match[1]) * int(match[2])):
        raise UserError(f"--sizes: '{text}' is neither {', '.join(PRESETS)} nor height x width such as 256x448")
    return PRESETS[text] if match is None else (int(match[1]), int(match[2]))


def build(file: str, device: torch.device) -> tuple[InterpolationModel, int]:
    """The model of an option file as it is initialised, and its number of parameters.

    Raises:
        UserError: the model does not interpolate frames.
    """
    model = load_model(file, untrained=True, device=device)
    if not isinstance(model, InterpolationModel):
        raise UserError(f"{file}: {type(model).__name__} does not interpolate frames; InterpolationModel does")
    return model, sum(p.numel() for network in model.networks.values() for p in network.parameters())


@torch.no_grad()
def measure(
    model: Any, size: tuple[int, int], device: torch.device, warmup: int, runs: int, amp: torch.dtype | None
) -> Timing:
    """Time `runs` calls after `warmup` ones."""
    img0, img1 = (torch.rand(1, 3, *size, device=device) for _ in range(2))
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    milliseconds = []
    for run in range(warmup + runs):
        if on_gpu:
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
            model.predict({"img0": img0, "img1": img1})
        if on_gpu:
            torch.cuda.synchronize(device)
        if run >= warmup:
            milliseconds.append(1000 * (time.perf_counter() - begin))
    if on_gpu:
        memory = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        unit = 2**20 if sys.platform == "darwin" else 2**10
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return Timing(size, milliseconds, memory)


def table(timings: Sequence[Timing]) -> str:
    """An aligned text table."""
    rows = [["height x width", "mean ms", "median", "p90", "fps", "peak MiB"]]
    for timing in timings:
        ms = np.array(timing.milliseconds)
        figures = (ms.mean(), np.median(ms), np.percentile(ms, 90), 1000 / ms.mean())
        rows.append([f"{timing.size[0]}x{timing.size[1]}", *(f"{f:.2f}" for f in figures), f"{timing.memory:.0f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("-opt", "--opt", required=True, metavar="FILE", help="option file of the network")
    parser.add_argument("--sizes", nargs="+", default=["720p"], help=f"{', '.join(PRESETS)}, or height x width")
    parser.add_argument("--warmup", type=int, default=50, help="calls before the timed ones")
    parser.add_argument("--runs", type=int, default=100, help="timed calls")
    parser.add_argument("--amp", choices=("off", "bf16", "fp16"), default="off")
    parser.add_argument("--tta", choices=("none", "hflip", "rot180", "dihedral"), default="none")
    parser.add_argument("--flow_scale", type=float, default=1.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def run(a: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: a number is out of range.
    """
    if a.runs < 1 or a.warmup < 0:
        raise UserError("--runs must be at least 1, and --warmup not negative")
    if not 0 < a.flow_scale <= 1:
        raise UserError(f"--flow_scale: must be above 0 and at most 1, not {a.flow_scale:g}")
    sizes = [size_of(text) for text in a.sizes]
    device = named_device(a.device)
    model, parameters = build(a.opt, device)
    model.tta, model.flow_scale = a.tta, a.flow_scale
    amp = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[a.amp]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"{a.opt}: {parameters:,} parameters, {device} ({name}), torch {torch.__version__}, amp {a.amp}, batch 1")
    print(f"{a.warmup} calls to warm up, {a.runs} timed")
    print(table([measure(model, size, device, a.warmup, a.runs, amp) for size in sizes]))


if __name__ == "__main__":
    script(__file__, sys.modules[__name__])
