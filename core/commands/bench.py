"""Measure what an option file's network costs: parameters, MACs, time and memory over input sizes.

``relume bench -opt x.yml [--against y.yml] [--sizes 64 128] [--full] [--json FILE]``

A batch of one image through network_g: a forward pass without gradients, and a training step (forward, backward, update).
MACs are those that torch's FlopCounterMode counts, also for the size of the first validation picture. Memory is that of the
tensors at most, the weights aside. ``--full`` adds 256 x 256 to 4K, channels_last, compile and mixed precision. With
``--against`` both networks take turns in the same process, and ratios are given. Sizes that would not fit into ``--minutes``
are left out, and named.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...archs import build_network
from ...datasets import build_dataset
from .. import options
from ..errors import UserError, in_one_line
from ..options import Options
from ..reports.costs import Cost, Setting, cost, input_channels, macs, parameters
from ..reports.text import aligned, amount
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
    """Do what the command line asks for."""
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
    device = chosen_device(arguments.device, every[0])
    torch.manual_seed(0)
    networks = [build_network(opt["network_g"]).to(device) for opt in every]
    channels = [input_channels(opt["network_g"]) for opt in every]
    costs, notes = measured(networks, channels, sizes, arguments.full, device, time.monotonic() + 60 * minutes)
    described = []
    for file, opt, network, found, channel in zip(
        files, every, networks, zip(*costs, strict=True), channels, strict=True
    ):
        size, why = validation_size(opt)
        at_val = None
        if size is not None:
            try:
                at_val = macs(network.eval(), torch.rand(1, channel, *size, device=device))
            except UserError as e:
                why = str(e)
        if why:
            notes.append(f"{file}: MACs of a validation picture are not known: {why}")
        described.append(
            {
                "file": str(file), "network": opt["network_g"]["type"], "parameters": parameters(network),
                "val": None if at_val is None or size is None else {"height": size[0], "width": size[1], "macs": at_val},
                "costs": [asdict(c) for c in found],
            }
        )  # fmt: skip
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
    """``(720, 1280)`` of ``720x1280``; a single number is both."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.isdigit() and 0 < int(p) <= 16384 for p in parts):
        raise UserError(f"--sizes: expected a size such as 128 or 720x1280, got '{text}'")
    return int(parts[0]), int(parts[-1])


def chosen_device(asked: str | None, opt: Options) -> torch.device:
    """Where to measure."""
    if asked is None:
        return torch.device("cuda" if torch.cuda.is_available() and opt.num_gpu != 0 else "cpu")
    if asked not in ("cpu", "cuda") or (asked == "cuda" and not torch.cuda.is_available()):
        raise UserError(f"--device: cpu or, where there is a GPU, cuda; not '{asked}'")
    return torch.device(asked)


def measured(
    networks: list[torch.nn.Module], channels: list[int], sizes: list[tuple[int, int]], full: bool,
    device: torch.device, until: float,
) -> tuple[list[list[Cost]], list[str]]:  # fmt: skip
    """The costs of all networks, a list for each size and setting, and what was left out."""
    found: list[list[Cost]] = []
    notes: list[str] = []
    took: dict[str, float] = {}
    plans = [(EAGER, size) for size in sizes]
    plans += [(setting, sizes[min(1, len(sizes) - 1)]) for setting in SETTINGS] if full else []
    for setting, size in plans:
        pixels = size[0] * size[1]
        expected = took.get(setting.name, 0.0) * pixels
        if found and time.monotonic() + expected > until:
            notes.append(f"{size[0]} x {size[1]} ({setting.name}) is left out: about {expected:,.0f} s (--minutes)")
            continue
        began = time.monotonic()
        try:
            found.append(cost(networks, channels, size, setting, device))
        except (RuntimeError, MemoryError) as e:  # out of memory; no compiler
            if not found:
                raise UserError(f"{size[0]} x {size[1]}: {in_one_line(e)}") from e
            notes.append(f"{size[0]} x {size[1]} ({setting.name}) is left out: {in_one_line(e)}")
        took[setting.name] = (time.monotonic() - began) / pixels
    return found, notes


def validation_size(opt: Options) -> tuple[tuple[int, int] | None, str]:
    """Height and width of the first validation picture's input; or None and why."""
    sets = opt.sets("val", "test")
    if not sets:
        return None, "there is no validation set"
    phase, block = next(iter(sets.items()))
    try:
        item = build_dataset(block, phase=phase.split("_")[0], scale=opt.scale)[0]
        height, width = item["lq"].shape[-2:]
        return (int(height), int(width)), ""
    except Exception as e:
        return None, in_one_line(e)


def table(described: list[dict[str, Any]], costs: list[list[Cost]]) -> str:
    """What was measured; of two networks, the ratios of the second to the first under them."""
    lines = []
    for each in described:
        val = each["val"]
        at = f"; {giga(val['macs'])} G MACs for a validation picture of {val['height']} x {val['width']}" if val else ""
        lines.append(f"{each['file']}: {each['network']}, {each['parameters']:,} parameters{at}")
    rows = [["input", "", "", "MACs (G)", "forward", "memory", "step", "memory"]]
    for of_size in costs:
        for number, c in enumerate(of_size):
            who = f"({number + 1})" if len(of_size) > 1 else ""
            step, held = (
                "-" if v is None else form(v) for v, form in ((c.step, milliseconds), (c.step_memory, amount))
            )
            size = f"{c.height} x {c.width}"
            rows.append(
                [size, c.setting, who, giga(c.macs), milliseconds(c.forward), amount(c.forward_memory), step, held]
            )
        if len(of_size) > 1:
            a, b = of_size[:2]
            pairs = [(a.macs, b.macs), (a.forward, b.forward), (a.forward_memory, b.forward_memory)]
            pairs += [(a.step or 0, b.step or 0), (a.step_memory or 0, b.step_memory or 0)]
            rows.append(["", "", "(2) / (1)", *(f"{y / x:.2f}" if x else "-" for x, y in pairs)])
    return "\n".join([*lines, "", aligned(rows, right=(3, 4, 5, 6, 7))])


def giga(count: int) -> str:
    """In units of 10^9."""
    return f"{count / 1e9:.3f}"


def milliseconds(value: float) -> str:
    """A duration."""
    return f"{1000 * value:.1f} ms" if value < 10 else f"{value:.1f} s"
