"""Compare runs picture by picture: an HTML page, or a paper's table in Markdown, LaTeX or CSV.

``relume compare RUN ... -o page.html [--full]``      a page that needs nothing else, to look at the pictures and scores
``relume compare RUN ... --md | --latex | --csv``     the table, to standard output; the best bold, the second underlined

RUN is ``experiments/NAME`` (its last validation), ``results/NAME`` (a test), a folder of such, or with ``--gt`` a folder of
pictures that others made. Runs are compared on the pictures that all of them have. Differences are to the first one, with their
95 % paired bootstrap interval over the pictures; the decimals of the table are those that the interval leaves meaning to.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from ..errors import UserError, expanded, printable
from ..reports import files
from ..reports.comparison import Compared, Comparison, compared, entry_of
from ..runtime import streams


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("runs", nargs="+", metavar="RUN_OR_FOLDER", help="runs, folders of runs, folders of pictures")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the page, .html")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--md", action="store_true", help="print the table as Markdown")
    form.add_argument("--latex", action="store_true", help="print it as LaTeX")
    form.add_argument("--csv", action="store_true", help="print every figure as CSV, unrounded")
    parser.add_argument("--full", action="store_true", help="put the pictures beside the page in full")
    parser.add_argument("--side", type=int, default=256, help="longer side of the pictures inside the page (256)")
    parser.add_argument("--pictures", type=int, metavar="N", help="pictures of each data set in the page at most; all")
    parser.add_argument("--gt", metavar="DIR", help="targets that folders of pictures are scored against")
    parser.add_argument("--lq", metavar="DIR", help="inputs that the page shows beside them")
    data = (
        "folder of inputs or targets that runs name and the page may show; those in the working directory it may anyhow"
    )
    parser.add_argument("--data", action="append", default=[], metavar="DIR", help=data)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: no output is asked for, a number is out of range, or a folder is not there.
    """
    # Refuse options that do not go together.
    if arguments.output is None and not (arguments.md or arguments.latex or arguments.csv):
        raise UserError("compare: give -o page.html, or one of --md, --latex and --csv")
    if arguments.side < 16 or (arguments.pictures is not None and arguments.pictures < 0):
        raise UserError("--side: at least 16 pixels; --pictures: at least 0")
    for folder in arguments.data:
        if not expanded(folder).is_dir():
            raise UserError(f"--data: {folder}: there is no such folder")
    if arguments.output is not None and arguments.output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{arguments.output}: the page's name ends in .html")
    # The comparison, as a table.
    notes: list[str] = []
    comparison = compared(entries(arguments, notes), notes)
    streams.note(*notes)
    if text := table(comparison, arguments):
        print(text, end="")
    if arguments.output is not None:
        from ..reports import page

        said_before = len(notes)
        named = [expanded(folder) for folder in (*arguments.data, arguments.gt, arguments.lq) if folder is not None]
        shown = page.write(
            comparison,
            arguments.output,
            side=arguments.side,
            full=arguments.full,
            most=arguments.pictures,
            named=named,
        )
        streams.note(*notes[said_before:])
        size = arguments.output.stat().st_size / 2**20
        said = sys.stderr if text else sys.stdout
        print(f"{arguments.output}: {len(comparison.entries)} runs, {shown} images, {size:.1f} MiB", file=said)


def table(comparison: Comparison, arguments: argparse.Namespace) -> str:
    """The form that was asked for."""
    from ..reports import tables

    if arguments.md:
        return tables.markdown(comparison)
    if arguments.latex:
        return tables.latex(comparison)
    return tables.comma_separated(comparison) if arguments.csv else ""


def entries(arguments: argparse.Namespace, notes: list[str]) -> list[Compared]:
    """What is named on the command line, each once."""
    found: dict[Path, files.Run] = {}
    foreign: set[Path] = set()
    # Folders of runs, and folders of pictures that others made.
    for text in arguments.runs:
        inside = files.find(text)
        if not inside:
            folder = expanded(text)
            foreign.add(folder.resolve())
            inside = [files.Run(folder)]
        found.update({r.root.resolve(): r for r in inside})
    runs = list(found.values())
    # Labels, which the parent folder distinguishes where two runs have one name.
    names = Counter(r.name for r in runs)
    every: list[Compared | None] = []
    for each in runs:
        parent = each.root.resolve().parent.name
        label = printable(each.name if names[each.name] == 1 else f"{parent}/{each.name}")
        if each.root.resolve() in foreign:
            from ..reports import foreign as pictures

            every.append(pictures.entry_of(each, label, arguments.gt, arguments.lq, notes))
        else:
            every.append(entry_of(each, label, notes))
    known = [e for e in every if e is not None]
    sets = {d for e in known if e.run.root.resolve() not in foreign for d in (*e.rows, *e.means)}
    if len(sets) == 1:  # what others made is of that set, too
        for each_ in [e for e in known if e.run.root.resolve() in foreign]:
            each_.rows = {next(iter(sets)): next(iter(each_.rows.values()))}
    return known
