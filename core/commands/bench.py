"""Measure what an option file's network costs: parameters, MACs, time and memory over input sizes.

``relume bench -opt x.yml [--against y.yml] [--sizes 64 128] [--full] [--json FILE]``

A batch of one through network_g: a forward pass without gradients, and a training step (forward, backward, update). It is an
image, two frames, a clip of 5 frames, or noise, as the network takes it. MACs are those that torch's FlopCounterMode counts,
also for the size of the first validation picture. Memory is that of the tensors at most, the weights aside. ``--full`` adds
256 x 256 to 4K, channels_last, compile and mixed precision. With ``--against`` both networks take turns in the same process,
and ratios are given. Sizes that would not fit into ``--minutes`` are left out, and named.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .. import options
from ..errors import UserError, in_one_line
from ..options import Options
from ..reports.calls import Call, validation_size
from ..reports.costs import Cost, Setting, cost, macs, macs_of_shapes, parameter_count
from ..reports.text import aligned, amount
from ..runtime import memory
from ..runtime.checkpoint import write_atomically
from . import _arguments

SIZES = [(64, 64), (128, 128)]
LARGE = [(256, 256), (512, 512), (1080, 1920), (2160, 3840)]
EAGER = Setting()
SETTINGS = (
    Setting("channels_last", channels_last=True),
    Setting("bf16", amp="bf16"),
    Setting("compile", compiled=True),
)
GROWTH = 1.5
"""Exponent of pixels by which time is taken to grow: convolutions have 1, attention over the whole picture 2."""
AT_LEAST = 3
"""Times that a size is computed at least, each forward pass and each step: to begin with, for the memory, and timed."""


RUNS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    _arguments.add_option_file(parser)
    parser.add_argument("--against", metavar="FILE", help="another option file, to be measured in turns with the first")
    parser.add_argument("--sizes", nargs="+", metavar="HxW", default=[], help="input sizes, 128 or 720x1280")
    parser.add_argument("--full", action="store_true", help="also 256x256 to 4K, channels_last, compile, bf16")
    parser.add_argument("--minutes", type=float, help="time to spend at most (4; 30 with --full)")
    parser.add_argument("--device", default=None, help="cpu or cuda (a GPU if there is one and num_gpu is not 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    _arguments.add_overrides(parser)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: ``--minutes`` is not positive, an option file has no ``network_g``, or the results cannot be written.
    """
    # What to measure.
    sizes = [parsed(text) for text in arguments.sizes] or [*SIZES, *(LARGE if arguments.full else [])]
    minutes = arguments.minutes if arguments.minutes is not None else (30.0 if arguments.full else 4.0)
    if minutes <= 0:
        raise UserError(f"--minutes: more than 0, not {arguments.minutes}")
    twice = arguments.allow_duplicate_keys
    files = [arguments.opt, *([arguments.against] if arguments.against else [])]
    every = [options.load(f, arguments.force_yml, allow_duplicate_keys=twice) for f in files]
    for file, opt in zip(files, every, strict=True):
        if "g" not in opt.networks:
            raise UserError(f"{file}: there is no network_g to be measured")
    device, until = chosen_device(arguments.device, every[0]), time.monotonic() + 60 * minutes
    torch.manual_seed(0)
    calls = [Call.of(opt, device) for opt in every]
    # The measurement, the same input for all networks in turn.
    costs, notes = measured(calls, sizes, arguments.full, device, until)
    described = []
    for file, opt, call, found in zip(files, every, calls, zip(*costs, strict=True), strict=True):
        at_val, why = at_validation(call, opt, found[0], until)
        if why:
            notes.append(f"{file}: MACs of a validation picture are not known: {why}")
        described.append(
            {
                "file": str(file), "network": opt["network_g"]["type"], "parameters": parameter_count(call.network),
                "given": call.said(), "val": at_val, "costs": [asdict(c) for c in found],
            }
        )  # fmt: skip
    # The table, and the same as JSON.
    print(table(described, costs))
    for line in notes:
        print(f"note: {line}")
    if arguments.json:
        content: dict[str, Any] = {
            "device": str(device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        text = json.dumps({**content, "networks": described, "notes": notes}, indent=2) + "\n"
        try:
            write_atomically(arguments.json, lambda file: file.write(text.encode()))
        except OSError as e:
            raise UserError(f"{arguments.json}: cannot be written ({e.strerror or e})") from e


def parsed(text: str) -> tuple[int, int]:
    """``(720, 1280)`` of ``720x1280``; a single number is both.

    Raises:
        UserError: `text` is no size.
    """
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.isdigit() and 0 < int(p) <= 16384 for p in parts):
        raise UserError(f"--sizes: expected a size such as 128 or 720x1280, got '{text}'")
    return int(parts[0]), int(parts[-1])


def chosen_device(asked: str | None, opt: Options) -> torch.device:
    """Where to measure.

    Raises:
        UserError: the device is not there.
    """
    if asked is None:
        return torch.device("cuda" if torch.cuda.is_available() and opt.num_gpu != 0 else "cpu")
    if asked not in ("cpu", "cuda") or (asked == "cuda" and not torch.cuda.is_available()):
        raise UserError(f"--device: cpu or, where there is a GPU, cuda; not '{asked}'")
    return torch.device(asked)


def measured(
    calls: list[Call], sizes: list[tuple[int, int]], full: bool, device: torch.device, until: float
) -> tuple[list[list[Cost]], list[str]]:
    """The costs of all networks, a list for each size and setting, and what was left out.

    Raises:
        UserError: nothing could be measured on some size.
    """
    found: list[list[Cost]] = []
    notes: list[str] = []
    took: dict[str, tuple[float, int]] = {}
    if all(call.side for call in calls):
        sizes = sizes[:1]  # generators have one size
    plans = [(EAGER, size) for size in sizes]
    plans += [(setting, sizes[min(1, len(sizes) - 1)]) for setting in SETTINGS] if full else []
    for setting, size in plans:
        pixels = size[0] * size[1]
        seconds, of_pixels = took.get(setting.name, (0.0, pixels))
        expected = seconds * max(pixels / of_pixels, 1) ** GROWTH
        if found and time.monotonic() + expected > until:
            notes.append(f"{size[0]} x {size[1]} ({setting.name}) is left out: about {expected:,.0f} s (--minutes)")
            continue
        try:
            of_size = cost(calls, size, setting, device, until)
        except (RuntimeError, MemoryError) as e:  # out of memory; no compiler
            if not found:
                raise UserError(f"{size[0]} x {size[1]}: {in_one_line(e)}") from e
            notes.append(f"{size[0]} x {size[1]} ({setting.name}) is left out: {in_one_line(e)}")
            continue
        found.append(of_size)
        took[setting.name] = sum(AT_LEAST * (c.forward + c.step) for c in of_size), pixels
    return found, notes


def at_validation(call: Call, opt: Options, known: Cost, until: float) -> tuple[dict[str, int] | None, str]:
    """Size and MACs of the first validation picture, or None and why they are not known.

    Args:
        known: what another size costs: by it, a picture that would take too long to be counted is left out.
    """
    size, why = (call.side, call.side) if call.side else None, ""
    if size is None:
        size, why = validation_size(opt)
    if size is None:
        return None, why
    found = macs_of_shapes(call.network.eval(), *call.inputs(*size))
    if found is None:
        larger = size[0] * size[1] / (known.height * known.width)
        if time.monotonic() + known.forward * larger > until or known.forward_memory * larger > memory.there_is() / 2:
            return None, f"it would take too long, or too much memory, to count them on {size[0]} x {size[1]}"
        try:
            found = macs(call.network, *call.inputs(*size))
        except UserError as e:
            return None, str(e)
    return {"height": size[0], "width": size[1], "macs": found}, ""


def table(described: list[dict[str, Any]], costs: list[list[Cost]]) -> str:
    """What was measured; of two networks, the ratios of the second to the first under them."""
    lines = []
    for each in described:
        val = each["val"]
        at = f"; {giga(val['macs'])} G MACs for a validation picture of {val['height']} x {val['width']}" if val else ""
        on = f" {each['given']}" if each["given"] else ""
        lines.append(f"{each['file']}: {each['network']}{on}, {each['parameters']:,} parameters{at}")
    rows = [["input", "", "", "MACs (G)", "forward", "memory", "step", "memory"]]
    for of_size in costs:
        for number, c in enumerate(of_size):
            who = f"({number + 1})" if len(of_size) > 1 else ""
            times = (milliseconds(seconds) for seconds in (c.forward, c.step))
            memories = (amount(held) if held else "-" for held in (c.forward_memory, c.step_memory))
            both = [cell for pair in zip(times, memories, strict=True) for cell in pair]
            rows.append([f"{c.height} x {c.width}", c.setting, who, giga(c.macs), *both])
        if len(of_size) > 1:
            a, b = of_size[:2]
            pairs = [(a.macs, b.macs), (a.forward, b.forward), (a.forward_memory, b.forward_memory)]
            pairs += [(a.step, b.step), (a.step_memory, b.step_memory)]
            rows.append(["", "", "(2) / (1)", *(f"{y / x:.2f}" if x else "-" for x, y in pairs)])
    return "\n".join([*lines, "", aligned(rows, right=(3, 4, 5, 6, 7))])


def giga(count: int) -> str:
    """The number in units of 10^9."""
    return f"{count / 1e9:.3f}"


def milliseconds(value: float) -> str:
    """A duration."""
    return f"{1000 * value:.1f} ms" if value < 10 else f"{value:.1f} s"
