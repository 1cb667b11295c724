"""Check an option file: every mistake at once, and which files are not here; touches no data, no GPU.

``relume check options/x.yml [--force_yml train:ema_decay=0.99 ...]``
"""

from __future__ import annotations

import argparse

from ..options.places import missing
from . import _arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The option file, and what overrides it."""
    _arguments.add_option_file(parser, positional=True)
    _arguments.add_debug(parser)
    _arguments.add_overrides(parser)


def run(arguments: argparse.Namespace) -> None:
    """Say that the options are valid; mistakes are raised. ``train --check`` and ``test --check`` come here too."""
    resolved = _arguments.resolve(arguments)
    opt = resolved.options
    print(f"{_arguments.option_file(arguments)}: valid ({opt.model_type}, {', '.join(opt.datasets)})")
    for note in (*map(str, resolved.notes), *missing(opt)):
        print(f"note: {note}")
