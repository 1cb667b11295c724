"""Fetch public weights by name, once, resumed where they stopped, and checked.

``relume download realesrgan-x4plus``; ``--list`` shows what there is, with licences. ``path.pretrain_network_g: hub:NAME`` and
``relume infer --weights hub:NAME`` take the same names, and fetch what is not here yet. Files go to ``$RELUME_HOME/weights``
(``~/.cache/relume/weights``); ``$RELUME_HOME/weights.yml`` may name others.
"""

from __future__ import annotations

import argparse
import sys

from ..errors import UserError, expanded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="names of the weights")
    parser.add_argument("--list", action="store_true", help="show all that are known")
    parser.add_argument("--to", metavar="FOLDER", help="folder to write to, instead of the cache")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: no weights are named.
    """
    from .. import hub

    if arguments.list:
        for entry in hub.index().values():
            print(f"{entry.name:<28} {entry.network['type']:<18} {entry.licence:<14} {entry.about}")
        return
    if not arguments.names:
        raise UserError("which weights? Give a NAME, or --list")
    wanted = [hub.entry(name.removeprefix(hub.PREFIX)) for name in arguments.names]
    for entry in wanted:
        shown = sys.stderr.isatty()
        say = (lambda text: print(f"\r{text}  ", end="", file=sys.stderr, flush=True)) if shown else None
        place = hub.fetched(entry, expanded(arguments.to) if arguments.to else None, say)
        if shown:
            print(file=sys.stderr)
        print(f"{place}  ({entry.licence})")
