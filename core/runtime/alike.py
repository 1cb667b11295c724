"""What must be the same on all ranks, and the search for the first thing that is not."""

from __future__ import annotations

import hashlib
import itertools
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import RanksError
from . import distributed

PACKAGE = Path(__file__).parents[2]
OURS = ("archs", "core", "datasets", "losses", "schedulers")
"""The folders of the package whose code a run may execute."""
MOST = 5
"""Differences that a message names."""
ABSENT = "nothing"
STRETCH = 1000
"""Texts of a long list that travel at once."""


def require(facts: Mapping[str, Any]) -> None:
    """Compare what this rank knows with what rank 0 does.

    Args:
        facts: values by name (of what `messages.pack` sends); a list of texts may be long.

    Raises:
        RanksError: some rank's differ. It names rank, keys and both values, of lists the first in which they differ, and is
            the same on all ranks.
    """
    if distributed.world_size() == 1:
        return
    lists = {k: v for k, v in facts.items() if isinstance(v, list)}
    mine = {k: v if isinstance(v, (int, float, str, bool, type(None))) else str(v) for k, v in facts.items()}
    mine.update({k: _digest(v) for k, v in lists.items()})
    # The values travel only where their digests differ: there may be many ranks.
    digest = _digest(mine)
    same = distributed.gather(distributed.broadcast(digest) == digest)
    differing = [r for r, alike in enumerate(same) if not alike]
    if not differing:
        return
    theirs = distributed.broadcast(mine)
    who = differing[0]
    said = distributed.gather(list(differences(theirs, mine)) if distributed.rank() == who else [])[who]
    long = set(distributed.broadcast(list(lists)))
    said = [(k, *(first_difference(lists.get(k, []), who) if k in long else (a, b))) for k, a, b in said]
    names = distributed.named()
    more = f" (and {len(differing) - 1} more ranks differ)" if len(differing) > 1 else ""
    left = f"; {len(said) - MOST} more" if len(said) > MOST else ""
    lines = "; ".join(f"{key}: {a} on rank 0, {b} on rank {who}" for key, a, b in said[:MOST])
    raise RanksError(f"{names[who]} differs from {names[0]}{more}: {lines}{left}", 2)


def differences(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, their value and mine of all that differ, as text.

    >>> list(differences({"a": 1, "b": 2}, {"b": 3, "a": 1, "c": 4}))
    [('b', '2', '3'), ('c', 'nothing', '4')]
    """
    for key in [*theirs, *(k for k in mine if k not in theirs)]:
        if (values := (theirs.get(key, ABSENT), mine.get(key, ABSENT)))[0] != values[1]:
            yield key, str(values[0]), str(values[1])


def of_code(plugins: Iterable[str] = ()) -> dict[str, str]:
    """Versions, and a digest of each file of ours and of plug-ins, by its name."""
    import relume

    versions = {
        "version of Relume": relume.__version__,
        "version of torch": torch.__version__,
        "version of Python": ".".join(platform.python_version_tuple()[:2]),
    }
    files = {f.relative_to(PACKAGE).as_posix(): f for room in OURS for f in sorted((PACKAGE / room).rglob("*.py"))}
    files |= {Path(p).name: Path(p) for p in plugins if p.endswith(".py") and Path(p).is_file()}
    return versions | {f"code of {name}": hashlib.sha256(f.read_bytes()).hexdigest()[:12] for name, f in files.items()}


def first_difference(mine: Sequence[str], who: int) -> tuple[str, str]:
    """The first texts in which the lists of rank 0 and of rank `who` differ; all ranks call it together.

    Only digests of stretches travel, and the one stretch that it is about: lists may have millions of names.
    """
    stretches = [mine[i : i + STRETCH] for i in range(0, len(mine), STRETCH)]
    own = [_digest(s) for s in stretches]
    theirs = distributed.broadcast(own)
    at = next((i for i, (a, b) in enumerate(zip(theirs, own, strict=False)) if a != b), min(len(theirs), len(own)))
    at = distributed.gather(at)[who]
    here = list(stretches[at]) if at < len(stretches) else []
    there = distributed.broadcast(here)
    pairs = itertools.zip_longest(there, here, fillvalue=ABSENT)
    found: tuple[str, str] = distributed.gather(next((p for p in pairs if p[0] != p[1]), (ABSENT, ABSENT)))[who]
    return found


def _digest(facts: Mapping[str, Any] | Sequence[str]) -> str:
    said = sorted(facts.items()) if isinstance(facts, Mapping) else facts
    return hashlib.sha256(repr(said).encode()).hexdigest()
