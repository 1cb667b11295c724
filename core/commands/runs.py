"""List the runs of a folder: state, iteration, best score, time left, disk, options that differ.

``relume runs [DIR] [--against RUN] [--sort best] [--json]``

DIR is ``experiments`` when omitted; ``results``, or the folder of one run, will do as well. Only files are read, so that it can
be asked at any moment, also of runs on other machines that share the disk. A state is ``running``, ``finished``,
``stopped at N``, ``NaN at N``, ``failed at N`` or ``not started``.
"""

from __future__ import annotations

import argparse
import json

from ..errors import UserError, did_you_mean, expanded, printable
from ..reports import files
from ..reports.states import Standing, standing
from ..reports.text import aligned, amount, duration, rounded
from ..runtime import streams

SHOWN = 4
"""Differing options that a row of the table shows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("folder", nargs="?", default="experiments", metavar="DIR", help="folder of runs (experiments)")
    parser.add_argument("--against", metavar="RUN", help="say in which options every run differs from this one")
    sorts = ("name", "best", "iteration", "updated", "disk")
    parser.add_argument("--sort", choices=sorts, default="name", help="order of the rows; the best first (name)")
    parser.add_argument("--json", action="store_true", help="all that is known, as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: the folder has no runs, or not the one of ``--against``, or that has no options.
    """
    folder = expanded(arguments.folder)
    found = [files.Run(folder)] if folder.is_dir() and files.is_run(folder) else files.runs_in(folder)
    if not found:
        raise UserError(f"{folder}: there are no runs in this folder")
    chosen = None
    if arguments.against:
        chosen = next((r for r in found if r.name == arguments.against.rstrip("/").rpartition("/")[2]), None)
        if chosen is None:
            hint = did_you_mean(arguments.against, [r.name for r in found])
            raise UserError(f"--against: there is no run '{printable(arguments.against)}' in {folder}.{hint}")
        if not chosen.options:
            raise UserError(f"--against: {chosen.root} has no file of resolved options to compare with")
    every = ordered([standing(r, chosen) for r in found], arguments.sort)
    if arguments.json:
        print(json.dumps([s.to_json() for s in every], indent=2, allow_nan=False))
    else:
        print(table(every, chosen))
    streams.note(*(line for s in every for line in s.broken))


def ordered(every: list[Standing], by: str) -> list[Standing]:
    """The runs in the order that is asked for; by name first, so that equals stay in that order."""
    if by == "best":
        return sorted(
            every,
            key=lambda s: (s.best is None, (s.best.value * (-1 if s.best.better == "higher" else 1)) if s.best else 0),
        )
    keys = {"iteration": lambda s: -s.iteration, "disk": lambda s: -s.disk}
    if by == "updated":
        return sorted(every, key=lambda s: s.updated or "", reverse=True)
    return sorted(every, key=keys[by]) if by in keys else every


def table(every: list[Standing], chosen: files.Run | None) -> str:
    """A row for each run, then why those ended that did not finish."""
    rows = [["name", "state", "iteration", "best", "left", "disk"]]
    for s in every:
        of = f" of {s.total:,}" if s.total else ""
        at = f" @ {s.best.iteration:,}" if s.best and s.best.iteration else ""
        best = f"{printable(s.best.metric, 40)} {rounded(s.best.value)}{at}" if s.best else "-"
        rows.append([printable(s.name, 80), s.short, f"{s.iteration:,}{of}", best, duration(s.eta), amount(s.disk)])
    if chosen is not None:
        rows[0].append(f"differs from {printable(chosen.name, 40)}")
        for row, s in zip(rows[1:], every, strict=True):
            row.append(difference(s, chosen))
    text = aligned(rows, right=(2, 4, 5))
    ends = [f"{printable(s.name, 80)}: {printable(s.reason, 300)}" for s in every if s.reason and s.state != "running"]
    total = f"{len(every)} runs, {amount(sum(s.disk for s in every))}"
    return "\n".join([text, "", *ends, total])


def difference(s: Standing, chosen: files.Run) -> str:
    """``train.optim_g.lr=1e-3, ...``; what the run has not is ``key=-``."""
    if s.name == chosen.name:
        return "(the one compared with)"
    said = [f"{k}={'-' if new is None else printable(new, 40)}" for k, (_, new) in s.differences.items()]
    more = f", and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
    return ", ".join(said[:SHOWN]) + more or "in nothing"
