"""List what runs can do without, all checkpoints but the best and the last; delete it with --yes.

``relume clean [DIR or RUN ...] [--pictures] [--archived] [--yes]``

Kept of every run: the weights ``best`` and ``latest``, the newest checkpoint whose checksums are right, from which training
goes on, ``interrupted`` and ``best.state``, the checkpoint of the best validation where there are no weights called best, and
what the options of another run in the same folder name. Runs that are going on are left alone. Nothing is deleted without
``--yes``.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from ..errors import UserError, printable
from ..reports import files
from ..reports.leftovers import Leftover, leftovers
from ..reports.text import aligned, amount
from ..runtime import streams


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("runs", nargs="*", default=["experiments"], metavar="RUN", help="runs, or folders of runs")
    parser.add_argument(
        "--pictures", action="store_true", help="also pictures of all validations but each image's last"
    )
    parser.add_argument(
        "--archived", action="store_true", help="also whole runs that a fresh one of their name moved aside"
    )
    parser.add_argument("--yes", action="store_true", help="delete what would be listed")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: there are no runs, or files could not be deleted.
    """
    found = list({r.root.resolve(): r for text in arguments.runs for r in files.find(text)}.values())
    if not found:
        raise UserError(f"{', '.join(map(str, arguments.runs))}: there are no runs here")
    every: list[Leftover] = []
    for each in found:
        superfluous, said = leftovers(each, pictures=arguments.pictures, archived=arguments.archived)
        every += superfluous
        streams.note(*said)
    if not every:
        print(f"nothing to delete in {len(found)} runs")
        return
    rows = [[printable(x.path, 400), amount(x.bytes), x.why] for x in every]
    print(aligned(rows, right=(1,)))
    total = amount(sum(x.bytes for x in every))
    if not arguments.yes:
        print(f"{len(every)} files and folders, {total}; nothing was deleted. The same with --yes deletes them")
        return
    failed = [line for x in every if (line := delete(x.path))]
    print(f"deleted: {len(every) - len(failed)} of {len(every)} files and folders, {total}")
    if failed:
        raise UserError(f"not deleted: {'; '.join(failed[:3])}")


def delete(path: Path) -> str | None:
    """Delete a file or a folder; why that failed, else None."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as e:
        return f"{path}: {e.strerror or e}"
    return None
