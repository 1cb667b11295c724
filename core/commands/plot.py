"""Draw the curves of one or more runs: losses and validation scores, as a picture.

``relume plot RUN ... -o curves.png|svg|pdf [--keys l_pix val/psnr] [--smooth 0.9] [--against hours] [--log]``

RUN is ``experiments/NAME``, its name alone, or a folder of runs. Without ``--keys`` there is a panel for every loss and
every score. Losses are smoothed as TensorBoard does it, with the raw values behind them. Hours are those in which the
run was running: a pause between a stop and a restart is left out.
"""

from __future__ import annotations

import argparse
from fnmatch import fnmatch
from pathlib import Path

from ..errors import UserError, did_you_mean, printable
from ..reports import files
from ..reports.curves import curves
from ..reports.figure import draw
from ..runtime import streams

LEFT_OUT = ("lr", "grad_norm", "mean/*", "epoch/*", "*_input")
"""Curves that are drawn only when they are asked for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="runs, or folders of runs")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="FILE", help="the picture: .png, .svg or .pdf"
    )
    parser.add_argument(
        "--keys", nargs="+", default=[], metavar="KEY", help="curves to draw, with * for any characters"
    )
    parser.add_argument(
        "--smooth", type=float, default=0.6, help="weight of the past in [0, 1), 0 for raw values (0.6)"
    )
    axes = ("iterations", "samples", "hours")
    parser.add_argument(
        "--against", choices=axes, default="iterations", help="quantity of the horizontal axis (iterations)"
    )
    parser.add_argument("--log", action="store_true", help="logarithmic axis for losses")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: ``--smooth`` is out of range, or there are no records or no such curves.
    """
    if not 0 <= arguments.smooth < 1:
        raise UserError(f"--smooth: at least 0 and less than 1, not {arguments.smooth}")
    found = list({r.root.resolve(): r for text in arguments.runs for r in files.find(text)}.values())
    every = [curves(each, arguments.against) for each in found]
    for each in every:
        streams.note(*each.run.broken)
        if not each.points:
            streams.note(f"{each.run.root}: has no records, and no curve")
    known = list(dict.fromkeys(name for each in every for name in each.points))
    known.sort(key=lambda name: ("/" in name, not name.startswith("l_")))
    if not known:
        raise UserError(f"{', '.join(arguments.runs)}: there are no records (metrics.jsonl) to draw")
    for key in arguments.keys:
        if not any(fnmatch(name, key) for name in known):
            raise UserError(
                f"--keys: no run has a curve '{printable(key)}'.{did_you_mean(key, known)} There are: {', '.join(known)}"
            )
    if arguments.keys:
        names = [n for key in arguments.keys for n in known if fnmatch(n, key)]
    else:
        names = [n for n in known if not any(fnmatch(n, pattern) for pattern in LEFT_OUT)] or known
    draw(arguments.output, every, list(dict.fromkeys(names)), arguments.against, arguments.smooth, arguments.log)
    print(f"{arguments.output}: {len(set(names))} curves of {sum(bool(e.points) for e in every)} runs")
