"""Try spoilt option files and absurd values, and count what becomes of them: ``python tools/fuzz_options.py --n 3000``.

Two sorts of trials. In a *value* trial, one option of a complete tiny file gets a value of the right type that nobody means,
and ``relume train`` runs two iterations with it. In a *text* trial, pieces of a file are lost, doubled or put in, and
``relume check`` reads it. Every trial is a fork of this process with limits on time and addresses. What must come of it: it
ran, or was refused by a message that quotes the option (of a value) and says nothing unprintable. Everything else is a
defect, and is printed with the number of the trial: ``--only NUMBER`` with the same seed tries that one again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from relume.core import options
from relume.core.cli import script
from relume.core.errors import UserError
from relume.tools.fuzzing import cases, trials, values

LIMITS = {"value": 60.0, "text": 20.0}
"""Seconds of processor time for a trial of each sort."""
READING = 3.0
"""Seconds from which on reading a file is slow."""


LENGTHS = ("total_iter", "total_epoch", "num_images", "renditions")
"""Options that make a run long, and do not spoil it."""


class Trial(NamedTuple):
    """One file to try, with what was done to it in words."""

    number: int
    sort: str
    case: str
    what: str
    file: bytes
    names: tuple[str, ...] = ()


def trial(number: int, seed: int, ground: dict[str, dict[str, Any]], folder: Path, sorts: tuple[str, ...]) -> Trial:
    """The trial of this number, which depends on the seed and on nothing else."""
    rng = random.Random(f"{seed} {number}")  # noqa: S311  (no secrets)
    sort = rng.choice(sorts)
    name = rng.choice(list(ground))
    opt = ground[name]
    if sort == "text":
        return Trial(number, sort, name, name, values.mutated(yaml.safe_dump(opt, sort_keys=False), rng))
    spots = list(cases.places(opt))
    own = [spot for spot in spots if cases.is_named(opt, spot[0], name)]
    path, annotation = rng.choice(own if own and rng.random() < 0.5 else spots)
    value = values.of(annotation, rng, folder)
    while (
        path[-1] in LENGTHS and isinstance(value, (int, float)) and 10 < value <= 1e9
    ):  # which would only take its time
        value = values.of(annotation, rng, folder)
    text = yaml.dump(cases.changed(opt, path, value), sort_keys=False, allow_unicode=False)
    what = f"{name}: {'.'.join(path)} = {value!r:.100}"
    return Trial(number, sort, name, what, text.encode("utf-8", "surrogatepass"), (path[-1],))


def outcomes(
    numbers: range | list[int], seed: int, folder: Path, sorts: tuple[str, ...] = ("value", "text")
) -> Iterator[tuple[Trial, trials.Outcome]]:
    """Try each number in turn, inside `folder`."""
    cases.data(folder)
    ground = cases.cases(folder)
    imported = set()
    for number in numbers:
        found = trial(number, seed, ground, folder, sorts)
        if found.case not in imported:
            options.check(ground[found.case])  # imports its components, once, before forks need them
            imported.add(found.case)
        (folder / "fuzz.yml").write_bytes(found.file)
        command = ["train", "-opt", "fuzz.yml"] if found.sort == "value" else ["check", "fuzz.yml"]
        outcome = trials.attempt(command, folder, LIMITS[found.sort], found.names)
        if found.sort == "text" and outcome.kind in ("ran", "refused") and outcome.seconds > READING:
            outcome = outcome._replace(kind="slow")
        yield found, outcome


def warm_up() -> None:
    """Import what a run imports, once, before forks need it."""
    import torch

    import relume.core.commands.check
    import relume.core.commands.train
    import relume.core.pipeline  # noqa: F401

    torch.set_num_threads(1)  # forks of a process with threads of OpenMP may wait for them forever


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many trials, and which."""
    parser.add_argument("--n", type=int, default=300, help="how many trials (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other trials")
    parser.add_argument("--only", type=int, help="only the trial of this number; its file and message are printed")
    parser.add_argument("--sort", choices=tuple(LIMITS), help="only trials of this sort; both when omitted")
    parser.add_argument("--verbose", action="store_true", help="print what is no defect as well")


def run(arguments: argparse.Namespace) -> None:
    """Try, count, and fail when there are defects.

    Raises:
        UserError: some trials are defects.
    """
    sorts = (arguments.sort,) if arguments.sort else tuple(LIMITS)
    numbers = range(arguments.n) if arguments.only is None else [arguments.only]
    counts: Counter[tuple[str, str]] = Counter()
    warm_up()
    with tempfile.TemporaryDirectory(prefix="relume-fuzz-") as name:
        folder = Path(name).resolve()
        print(f"seed {arguments.seed}", flush=True)
        for found, outcome in outcomes(numbers, arguments.seed, folder, sorts):
            counts[found.sort, outcome.kind] += 1
            if arguments.only is not None:
                print(found.file.decode("utf-8", "replace"), outcome.said, sep="\n", flush=True)
            if outcome.kind in trials.DEFECTS or arguments.verbose:
                last = (outcome.said.strip().splitlines() or [""])[-1]
                print(f"{found.number}\t{found.sort}\t{outcome.kind}\t{found.what!a}\t{last[:300]!a}", flush=True)
    for sort in sorts:
        print(f"{sort}: " + ", ".join(f"{counts[sort, kind]} {kind}" for kind in trials.KINDS))
    defects = sum(count for (_, kind), count in counts.items() if kind in trials.DEFECTS)
    if defects:
        raise UserError(f"{defects} of {len(numbers)} trials are defects (seed {arguments.seed})")


if __name__ == "__main__":
    script(__file__, sys.modules[__name__])
