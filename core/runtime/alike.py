"""What must be the same on all ranks, and the search for the first thing that is not."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from . import distributed
from .distributed import RanksError

PACKAGE = Path(__file__).parents[2]
OURS = ("archs", "core", "datasets", "losses", "schedulers")
"""The folders of the package whose code a run may execute."""
MOST = 5
"""Differences that a message names."""
ABSENT = "nothing"


def require(facts: Mapping[str, Any]) -> None:
    """Compare what this rank knows with what rank 0 does.

    Args:
        facts: values by name (of what `messages.pack` sends).

    Raises:
        RanksError: some rank's differ. It names rank, keys and both values, and is the same on all ranks.
    """
    if distributed.world_size() == 1:
        return
    mine = {k: v if isinstance(v, (int, float, str, bool, type(None))) else str(v) for k, v in facts.items()}
    # The values travel only where their digests differ: there may be many ranks.
    digest = _digest(mine)
    same = distributed.gather(distributed.broadcast(digest) == digest)
    differing = [r for r, alike in enumerate(same) if not alike]
    if not differing:
        return
    theirs = distributed.broadcast(mine)
    who = differing[0]
    said = distributed.gather(list(differences(theirs, mine)) if distributed.rank() == who else [])[who]
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


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()
