"""Show the final values of an option file and where each came from.

``relume describe options/x.yml [--all | --set-only] [--ranks 4] [--force_yml train:ema_decay=0.99 ...]``

What the file, its bases and --force_yml set is all there; of the defaults what says how to compute; ``--all`` shows the rest.
Numbers of iterations are shown in epochs too, and those that are given in epochs in iterations, if the training set is here.
Its files are listed, not opened. The memory that a training takes is estimated, and the batch that this machine allows.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Iterable
from typing import Any

from ...datasets import build_dataset
from ..annotations import Epochs
from ..errors import UserError, in_one_line, printable
from ..files import trust
from ..options import Options, Resolved, counts, reference, resolve
from ..options.places import missing
from ..options.plugins import READ
from ..options.reading.loader import spelled
from ..runtime import streams
from . import _arguments

DEFAULT = "default"
"""What stands in place of an origin where the file says nothing."""
BESIDES = ("datasets.", "val.metrics.", "data.", "dist_params.")
"""Where defaults say how data are loaded and scores computed, which the file's own lines are enough for."""


def table(rows: Iterable[tuple[str, Any, str]]) -> str:
    """The rows in aligned columns: key, value, origin."""
    cells = [
        (key, value if isinstance(value, Both) else spelled(value), printable(origin)) for key, value, origin in rows
    ]
    first = max(len(c[0]) for c in cells)
    second = max((len(c[1]) for c in cells if len(c[1]) <= 60), default=0)
    return "\n".join(f"{key:<{first}}  {value:<{second}}  {origin}".rstrip() for key, value, origin in cells)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    _arguments.add_option_file(parser, positional=True)
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--all", action="store_true", help="every key, also those that are off by default")
    extent.add_argument("--set-only", action="store_true", help="only what the file, its bases and --force_yml set")
    parser.add_argument("--ranks", type=int, default=1, metavar="N", help="processes that will train together (1)")
    _arguments.add_overrides(parser)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: ``--ranks`` is below 1.
    """
    if arguments.ranks < 1:
        raise UserError(f"--ranks: must be at least 1, got {arguments.ranks}")
    with trust.looking():
        resolved = resolve(_arguments.option_file(arguments), arguments.force_yml)
    streams.note(*(note for note in resolved.notes if READ in note.text))
    show(resolved, arguments)
    if resolved.options.train is not None and "train" in resolved.options.datasets and not arguments.set_only:
        print(f"\n{memory_of(resolved.options)}")


def memory_of(opt: Options) -> str:
    """What a training takes, and into which micro-batches the memory at hand divides it."""
    from ..building.footprint import memory_line

    try:
        return memory_line(opt)
    except Exception as e:  # networks and losses may be anybody's code
        return f"Memory is not estimated: {in_one_line(e)}"


def show(resolved: Resolved, arguments: argparse.Namespace) -> None:
    """Print the table, and how long an epoch is."""
    every = [row for row in resolved.rows() if row[0] not in inert() or row[2] != DEFAULT]
    rows = every if arguments.all else [row for row in every if matters(row, arguments.set_only)]
    left = 0 if arguments.set_only else len(every) - len(rows)
    notes = [f"{left} more keys have their defaults; --all shows them"] if left else []
    opt = resolved.options
    if opt.train is not None and (opt.datasets or counts.given(opt)):
        rows, said = with_epochs(rows, opt, arguments.ranks)
        notes.insert(0, said)
    print("\n\n".join([table(rows), *notes]))


def with_epochs(rows: list[tuple[str, Any, str]], opt: Options, ranks: int) -> tuple[list[tuple[str, Any, str]], str]:
    """The rows with iterations in epochs and the reverse, and a sentence on how long an epoch is."""
    try:
        epoch, total = epoch_of(opt, ranks)
    except Exception as e:  # a training set may be anybody's code
        what = "Epochs are not counted in iterations" if counts.given(opt) else "Iterations are not counted in epochs"
        return rows, f"{what}: {in_one_line(e)}"
    known = reference.iterations_in(opt)
    counted = [(key, in_both(key, value, epoch, key in known), origin) for key, value, origin in rows]
    return counted, f"{epoch.sentence}; {epoch.said_of(total)}"


def epoch_of(opt: Options, ranks: int) -> tuple[counts.Epoch, int]:
    """How long an epoch of the training set is, whose files are listed; and the iterations of the whole run.

    Raises:
        UserError: it is not here.
    """
    if "train" not in opt.datasets:
        raise UserError("there is no training set (datasets.train)")
    if absent := missing(opt, ("train",), weights=False):
        more = f" ({len(absent) - 1} more are missing)" if len(absent) > 1 else ""
        raise UserError(f"{absent[0]}{more}")
    dataset = build_dataset(opt.datasets["train"], phase="train", scale=opt.scale)
    length = counts.length_of(dataset)
    found = counts.resolved(opt, length, ranks)
    assert found.train is not None
    return counts.Epoch.of(found, length, ranks), found.train.total_iter


class Both(str):
    """A number of epochs and the iterations that they are, or the reverse, as text."""


def in_both(key: str, value: Any, epoch: counts.Epoch, counted: bool) -> Any:
    """A value with the iterations that it stands for, where it is given in epochs.

    Args:
        counted: whether it is a number of iterations; then it comes with its epochs where it is not given in them.
    """
    if key == "train.total_epoch" and value is not None:
        value = Epochs(value)
    if any(True for _ in counts.spans(value)):
        return Both(f"{spelled(value)} (= {spelled(counts.in_iterations(value, epoch))} iterations)")
    several = isinstance(value, (list, tuple))
    numbers = list(value) if several else [value]
    if not counted or not numbers or not all(isinstance(n, int) and n > 0 for n in numbers):
        return value
    if key == "datasets.train.iters":  # each has its own batch, and begins where the one before it ends
        ends = [epoch.epochs_of(n) for n in itertools.accumulate(numbers)]
        epochs = [end - before for end, before in zip(ends, [0.0, *ends], strict=False)]
    else:
        epochs = [epoch.epochs_of(n) for n in numbers]
    shown = [counts.rounded(n) for n in epochs]
    of_them = f"[{', '.join(shown)}] epochs" if several else str(Epochs(float(shown[0])))
    return Both(f"{spelled(value)} (= {of_them})")


def matters(row: tuple[str, Any, str], set_only: bool) -> bool:
    """Whether to show a row without ``--all``: what the file sets; of the defaults those that say what is computed."""
    dotted, value, origin = row
    if origin != DEFAULT:
        return True
    off = value is False or value in ("off", "none") or (value is None and "." in dotted)
    return not (set_only or off or dotted.startswith(BESIDES))


@functools.cache
def inert() -> set[str]:
    """Keys that are accepted for other frameworks' files, and do nothing."""
    return {k.place for s in ("", *reference.SECTIONS) for k in reference.section(s) if not k.has_effect}
