"""Show every final value of an option file and where it came from.

``python tools/describe.py options/x.yml [--force_yml train:ema_decay=0.99 ...]``
"""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts this folder on sys.path; its list.py must not shadow anything.
sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from relume.core.annotations import plain
from relume.core.errors import UserError
from relume.core.options import resolve
from relume.core.options.reader import YAMLDumper


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


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="describe.py", description="Show final options and where each came from.")
    parser.add_argument("opt", help="option file (YAML)")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="a:b=v", help="overrides, as for train.py")
    arguments = parser.parse_args(argv)
    try:
        print(table(resolve(arguments.opt, arguments.force_yml).rows()))
    except UserError as e:
        print(e, file=sys.stderr)
        return e.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
