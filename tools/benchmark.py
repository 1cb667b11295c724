"""Speed and memory, as ratios against a peer measured in the same run: ``python tools/benchmark.py [section ...]``.

Peers take turns and the best of several rounds counts, so that a busy machine harms both alike. Peak memory is the growth of a
fresh process's resident set. Nothing here is a test: tests never look at a clock. Sections live in tools/benchmarks/.
"""

import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
# Python puts this folder on sys.path; its list.py must not shadow anything.
sys.path[:] = [p for p in sys.path if Path(p).resolve() != REPO / "tools"]
# The plain transcriptions of the formulas that we compare with.
sys.path += [str(REPO / "tests" / "archs"), str(REPO / "tests" / "core" / "ops")]

import argparse
from collections.abc import Sequence

import torch

from relume.tools.benchmarks.common import alone, discover


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sections", nargs="*", metavar="section", help="what to measure; everything when omitted")
    parser.add_argument("--list", action="store_true", help="name the sections and stop")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--alone", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    if arguments.alone:
        alone(*arguments.alone)
        return 0
    sections = discover()
    if arguments.list:
        print("\n".join(sections))
        return 0
    for name in arguments.sections:
        if name not in sections:
            parser.error(f"no section is called '{name}'; there are: {', '.join(sections)}")
    print(f"torch {torch.__version__}, {arguments.threads} thread(s)\n")
    for name in arguments.sections or sections:
        for what, ours, peer, ratio in sections[name]():
            print(f"{what:<52} {ours:>16}   {peer:<28} {ratio:>8}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
