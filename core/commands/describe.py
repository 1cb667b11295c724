"""Show every final value of an option file and where it came from.

``relume describe options/x.yml [--set-only] [--force_yml train:ema_decay=0.99 ...]``
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable
from typing import Any

from ..options import reference, resolve
from ..options.reader import spelled
from . import _arguments

DEFAULT = "default"
"""What stands in place of an origin where the file says nothing."""


def table(rows: Iterable[tuple[str, Any, str]]) -> str:
    """The rows in aligned columns: key, value, origin."""
    cells = [(key, spelled(value), origin) for key, value, origin in rows]
    first = max(len(c[0]) for c in cells)
    second = max((len(c[1]) for c in cells if len(c[1]) <= 60), default=0)
    return "\n".join(f"{key:<{first}}  {value:<{second}}  {origin}".rstrip() for key, value, origin in cells)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    _arguments.add_option_file(parser, positional=True)
    parser.add_argument("--set-only", action="store_true", help="only what the file, its bases and --force_yml set")
    _arguments.add_overrides(parser)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    rows = resolve(_arguments.option_file(arguments), arguments.force_yml).rows()
    print(table(row for row in rows if matters(row, arguments.set_only)))


def matters(row: tuple[str, Any, str], set_only: bool) -> bool:
    """Whether to show a row: what the file sets; and with its defaults what has an effect here."""
    dotted, _, origin = row
    return origin != DEFAULT or not (set_only or dotted in inert())


@functools.cache
def inert() -> set[str]:
    """Keys that are accepted for other frameworks' files, and do nothing."""
    return {k.place for s in ("", *reference.SECTIONS) for k in reference.section(s) if not k.has_effect}
