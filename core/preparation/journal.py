"""What a command has begun to write into a folder, so that it goes on when it is given again after an interruption."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from rich.progress import track

from ..errors import UserError
from ..imaging.storage import is_url, write_bytes

FILE = "prepare.json"
"""File in the folder that is written: the settings, by command and source."""
T = TypeVar("T")
R = TypeVar("R")
File = TypeVar("File", str, Path)


def begin(out: str | Path, command: str, source: str | Path, settings: dict[str, Any], dry: bool = False) -> bool:
    """Note what is written into `out`, unless `dry`; whether the same command has been given before, which now goes on.

    Raises:
        UserError: of the same source something else has been written there.
    """
    if is_url(out):
        return False
    path = Path(out) / FILE
    known = _known(path)
    key = f"{command} {os.path.realpath(source)}"
    before = known.get(key)
    if before is not None and before != settings:
        differing = ", ".join(f"{k} {before.get(k)}, not {v}" for k, v in settings.items() if before.get(k) != v)
        raise UserError(f"{out}: was made of {source} with {differing}; choose another folder, or remove this one")
    if before is None and not dry:
        write_bytes(path, (json.dumps({**known, key: settings}, indent=1) + "\n").encode())
    return before is not None


def _known(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise UserError(f"{path}: is damaged; remove it, and what was made beside it")
    return found


def missing(targets: Iterable[File], goes_on: bool) -> list[File]:
    """The files that are not there yet.

    Raises:
        UserError: one is there that no earlier call has made.
    """
    wanted = list(targets)
    left = [t for t in wanted if is_url(t) or not os.path.lexists(t)]
    if len(left) < len(wanted) and not goes_on:
        there = next(t for t in wanted if t not in left)
        raise UserError(f"{there}: is there already, and this command did not make it; choose another folder")
    return left


def each(
    work: Callable[[T], R], items: list[T], workers: int, what: str, processes: bool = False, ahead: int = 64
) -> Iterator[R]:
    """Results of `work` in the order of `items`, several at once, and at most `ahead` items before they are taken.

    Args:
        what: words shown beside the progress, which is not shown when this is empty.
        processes: use processes instead of threads, where the work holds Python's lock.
    """
    shown = track(range(0, len(items), ahead), what, disable=not what)
    if workers <= 1:
        for start in shown:
            yield from map(work, items[start : start + ahead])
        return
    pool: Executor = ProcessPoolExecutor(workers) if processes else ThreadPoolExecutor(workers)
    with pool:
        for start in shown:
            yield from pool.map(work, items[start : start + ahead])
