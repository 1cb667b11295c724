"""Speed and memory, as ratios against a peer measured in the same run: ``python tools/benchmark.py [section ...]``.

Peers take turns and the best of several rounds counts, so that a busy machine harms both alike. Peak memory is the growth of a
fresh process's resident set. Nothing here is a test: tests never look at a clock. Sections live in tools/benchmarks/.
"""

import argparse
import sys
from pathlib import Path

import torch

from relume.core.cli import script
from relume.core.errors import UserError
from relume.tools.benchmarks.common import alone, discover

REPO = Path(__file__).resolve().parents[1]
# The plain transcriptions of the formulas that we compare with.
sys.path += [str(REPO / "tests" / "archs"), str(REPO / "tests" / "core" / "ops")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("sections", nargs="*", metavar="section", help="what to measure; everything when omitted")
    parser.add_argument("--list", action="store_true", help="name the sections and stop")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--alone", nargs="+", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    torch.set_num_threads(arguments.threads)
    if arguments.alone:
        alone(*arguments.alone)
        return
    sections = discover()
    if arguments.list:
        print("\n".join(sections))
        return
    for name in arguments.sections:
        if name not in sections:
            raise UserError(f"no section is called '{name}'; there are: {', '.join(sections)}")
    print(f"torch {torch.__version__}, {arguments.threads} thread(s)\n")
    for name in arguments.sections or sections:
        for what, ours, peer, ratio in sections[name]():
            print(f"{what:<52} {ours:>16}   {peer:<28} {ratio:>8}", flush=True)


if __name__ == "__main__":
    script(__file__, sys.modules[__name__])
