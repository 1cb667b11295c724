"""Show every final value of an option file and where it came from.

``relume describe options/x.yml [--set-only] [--ranks 4] [--force_yml train:ema_decay=0.99 ...]``

Numbers of iterations that are given in epochs are shown in both, if the training set is here. Its files are listed,
not opened.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable
from typing import Any

from ...datasets import build_dataset
from ..annotations import Epochs
from ..errors import UserError, in_one_line, printable
from ..options import Options, counts, reference, resolve
from ..options.places import missing
from ..options.reading.loader import spelled
from . import _arguments

DEFAULT = "default"
"""What stands in place of an origin where the file says nothing."""


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
    parser.add_argument("--set-only", action="store_true", help="only what the file, its bases and --force_yml set")
    parser.add_argument("--ranks", type=int, default=1, metavar="N", help="processes that will train together (1)")
    _arguments.add_overrides(parser)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    if arguments.ranks < 1:
        raise UserError(f"--ranks: must be at least 1, got {arguments.ranks}")
    resolved = resolve(_arguments.option_file(arguments), arguments.force_yml)
    rows = [row for row in resolved.rows() if matters(row, arguments.set_only)]
    if not counts.given(resolved.options):
        print(table(rows))
        return
    try:
        epoch = epoch_of(resolved.options, arguments.ranks)
    except Exception as e:  # a training set may be anybody's code
        print(table(rows))
        print(f"\nEpochs are not counted in iterations: {in_one_line(e)}")
        return
    print(table((key, in_both(key, value, epoch), origin) for key, value, origin in rows))
    print(f"\n{epoch.sentence}")


def epoch_of(opt: Options, ranks: int) -> counts.Epoch:
    """How long an epoch of the training set is, whose files are listed.

    Raises:
        UserError: it is not here.
    """
    if "train" not in opt.datasets:
        raise UserError("there is no training set (datasets.train)")
    if absent := missing(opt, ("train",), weights=False):
        raise UserError("; ".join(absent))
    dataset = build_dataset(opt.datasets["train"], phase="train", scale=opt.scale)
    length = counts.length_of(dataset)
    return counts.Epoch.of(counts.resolved(opt, length, ranks), length, ranks)


class Both(str):
    """A number of epochs and the iterations that they are, as text."""


def in_both(key: str, value: Any, epoch: counts.Epoch) -> Any:
    """A value with the iterations that it stands for, where it is given in epochs."""
    if key == "train.total_epoch" and value is not None:
        value = Epochs(value)
    if not any(True for _ in counts.spans(value)):
        return value
    return Both(f"{spelled(value)} (= {spelled(counts.in_iterations(value, epoch))} iterations)")


def matters(row: tuple[str, Any, str], set_only: bool) -> bool:
    """Whether to show a row: what the file sets; and with its defaults what has an effect here."""
    dotted, _, origin = row
    return origin != DEFAULT or not (set_only or dotted in inert())


@functools.cache
def inert() -> set[str]:
    """Keys that are accepted for other frameworks' files, and do nothing."""
    return {k.place for s in ("", *reference.SECTIONS) for k in reference.section(s) if not k.has_effect}
