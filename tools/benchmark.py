"""Speed and memory, as ratios against a peer measured in the same run: ``python tools/benchmark.py [section ...]``.

Peers take turns, and the median over pairs of neighbouring calls counts (of what waits for a disk or for other processes, the
best of several rounds), so that a busy machine harms both alike. Peak memory is the growth of a fresh process's resident set.
Nothing here is a test: tests never look at a clock. Sections live in tools/benchmarks/.

``--save last.json`` keeps by how much each row is ahead of its peer; ``--compare last.json`` then fails where a row has lost
10 % of that, twice in a row. Run it before and after a change on the same machine. ``--draw last.json docs/performance.png``
makes the chart of docs/performance.md.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from relume.core.cli import script
from relume.core.errors import UserError
from relume.tools.benchmarks.chart import draw
from relume.tools.benchmarks.common import Gain, Measurement, Row, alone, discover

REPO = Path(__file__).resolve().parents[1]
# The plain transcriptions of the formulas that we compare with.
sys.path += [str(REPO / "tests"), str(REPO / "tests" / "archs"), str(REPO / "tests" / "core" / "ops")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("sections", nargs="*", metavar="section", help="what to measure; everything when omitted")
    parser.add_argument("--list", action="store_true", help="name the sections and stop")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--save", metavar="FILE", help="where to keep this measurement as JSON")
    parser.add_argument("--compare", metavar="FILE", help="a kept measurement: fail on rows that are worse by 10 %%")
    parser.add_argument("--draw", nargs=2, metavar=("FILE", "PNG"), help="draw a kept measurement's times, and stop")
    parser.add_argument("--alone", nargs="+", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: there is no such section.
    """
    torch.set_num_threads(arguments.threads)
    if arguments.alone:
        alone(*arguments.alone)
        return
    if arguments.draw:
        draw(kept(Path(arguments.draw[0])), Path(arguments.draw[1]))
        return
    sections = discover()
    if arguments.list:
        print("\n".join(sections))
        return
    for name in arguments.sections:
        if name not in sections:
            raise UserError(f"no section is called '{name}'; there are: {', '.join(sections)}")
    before = kept(Path(arguments.compare)) if arguments.compare else {}
    print(f"torch {torch.__version__}, {arguments.threads} thread(s)\n")
    gains: dict[str, float] = {}
    for name in arguments.sections or sections:
        gains |= measure(sections[name], before)
    if arguments.save:
        Path(arguments.save).write_text(json.dumps({"torch": torch.__version__, "gains": gains}, indent=1) + "\n")
    if arguments.compare:
        judge(gains, before, arguments.compare)


LOSS = 0.9
"""A row of this share of what it was ahead by has become worse."""


def measure(section: Measurement, before: dict[str, float]) -> dict[str, float]:
    """Print a section's rows; where one is worse than `before`, once more, and the better of both counts."""
    gains = shown(section(), before)
    if any(value < LOSS * before.get(what, 0) for what, value in gains.items()):
        print("once more, since a row is worse than before:")
        again = shown(section(), before)
        gains = {what: max(value, again.get(what, 0)) for what, value in gains.items()}
    return gains


def shown(rows: list[Row], before: dict[str, float]) -> dict[str, float]:
    """Print rows, and return by how much those are ahead that can be compared."""
    gains = {row.what: row.times for row in rows if isinstance(row, Gain)}
    for row in rows:
        change = f"   was {before[row[0]]:.2f} x as good" if row[0] in before else ""
        print(f"{row[0]:<52} {row[1]:>16}   {row[2]:<28} {row[3]:>8}{change}", flush=True)
    return gains


def kept(path: Path) -> dict[str, float]:
    """What ``--save`` wrote.

    Raises:
        UserError: the file is missing or is something else.
    """
    try:
        found = json.loads(path.read_text())["gains"]
        return {str(what): float(value) for what, value in found.items()}
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}); relume's benchmark writes it with --save") from e
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise UserError(f"{path}: no measurement of this benchmark, which --save writes") from e


def judge(gains: dict[str, float], before: dict[str, float], file: str) -> None:
    """Fail if a row is worse than it was, or if there is nothing to compare.

    Raises:
        UserError: which rows, and by how much.
    """
    common = gains.keys() & before.keys()
    if not common:
        raise UserError(f"{file}: has none of the rows that were measured")
    worse = [
        f"{w}: {before[w]:.2f} x, now {gains[w]:.2f} x" for w in gains if w in common and gains[w] < LOSS * before[w]
    ]
    if worse:
        raise UserError(
            f"{len(worse)} of {len(common)} rows are worse than in {file} by 10 % or more: {'; '.join(worse)}"
        )
    print(f"\nnone of {len(common)} rows is worse than in {file} by 10 %")


if __name__ == "__main__":
    script(__file__, sys.modules[__name__])
