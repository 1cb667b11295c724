"""Show every final value of an option file and where it came from.

``relume describe options/x.yml [--force_yml train:ema_decay=0.99 ...]``
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import yaml

from ..annotations import plain
from ..options import resolve
from ..options.reader import YAMLDumper
from . import _arguments


def spelled(value: Any) -> str:
    """A value as YAML on one line."""
    text: str = yaml.dump(plain(value), Dumper=YAMLDumper, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("...\n").strip()


def table(rows: Iterable[tuple[str, Any, str]]) -> str:
    """The rows in aligned columns: key, value, origin."""
    cells = [(key, spelled(value), origin) for key, value, origin in rows]
    first = max(len(c[0]) for c in cells)
    second = max((len(c[1]) for c in cells if len(c[1]) <= 60), default=0)
    return "\n".join(f"{key:<{first}}  {value:<{second}}  {origin}".rstrip() for key, value, origin in cells)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    _arguments.add_option_file(parser, positional=True)
    _arguments.add_overrides(parser)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    print(table(resolve(_arguments.option_file(arguments), arguments.force_yml).rows()))
