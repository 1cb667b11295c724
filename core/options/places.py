"""Files and folders that options name and this machine may lack. What is in them is not looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import hub
from ..errors import UserError, did_you_mean, expanded, printable
from ..errors.paths import FILE, FOLDER, NOT_THERE, kind_of, reason
from ..files.reading import INHERITED
from .schema import Options

DATA = ("dataroot", "meta_info")
"""How the parameters of data sets begin that say where the data is."""
NOTHING = "none"
"""What Restormer's files say for a folder that there is not."""
WEIGHTS = ("pretrain_network_", "resume_state")
"""How the keys of ``path`` begin that name a file to read."""


def missing(opt: Options, phases: Sequence[str] = (), weights: bool = True) -> list[str]:
    """One line for every file or folder that is named and not there; remote ones are taken to exist.

    Args:
        phases: phases of the data sets that matter (``train``, ``val``, ``test``); all when omitted.
        weights: whether what ``path`` names matters.
    """
    lines = []
    sets = opt.sets(*phases) if phases else opt.datasets
    # Weights that an index names, and what is not looked for.
    for key, value in [*(_in_path(opt.path) if weights else ()), *_in_data(sets, "datasets")]:
        if value.startswith(hub.PREFIX):
            name = value.removeprefix(hub.PREFIX)
            if name not in (known := hub.index()):
                lines.append(f"{hub.PREFIX}{hub.unknown(name, known)} ({key})")
            continue
        if "://" in value or value == NOTHING or value.startswith(INHERITED):
            continue
        # What is there, of which kind.
        try:
            place = expanded(value)
        except UserError as e:  # no file can have this name
            lines.append(f"{e} ({key})")
            continue
        shown = printable(value) or "''"
        what = "file" if key.startswith("path.") else "file or folder"
        try:
            kind = kind_of(place)
        except OSError as e:
            kind, why = "", reason(e)
        only_file = what == "file" or key.rpartition(".")[2].startswith("meta_info")
        if kind == FILE or (kind == FOLDER and not only_file):
            continue
        if kind or why != NOT_THERE:
            wanted = "file" if only_file else what
            lines.append(f"{shown}: {f'{kind}, not a {wanted}' if kind else why} ({key})")
            continue
        # Nothing is there: say what is near.
        near = (
            did_you_mean(place.name, [p.name for p in place.parent.glob("*")], files=True)
            if place.parent.is_dir()
            else ""
        )
        lines.append(f"{shown}: no such {what}.{near} ({key}){_origin(value) if what != 'file' else ''}")
    return lines


def _origin(value: str) -> str:
    """Where the data of a folder that is not there comes from, if it is that of a published set."""
    from ...datasets.origins import advice

    return advice(value)


def _in_path(path: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in path.items():
        if key.startswith(WEIGHTS) and isinstance(value, str):
            yield f"path.{key}", value


def _in_data(block: Any, dotted: str) -> Iterator[tuple[str, str]]:
    """Keys and values in data sets' blocks, also in those within others (mixtures)."""
    if isinstance(block, Mapping):
        if block.get("download"):
            return
        for key, value in block.items():
            inner = f"{dotted}.{key}"
            if isinstance(key, str) and key.startswith(DATA):
                values = [value] if isinstance(value, str) else value if isinstance(value, Sequence) else []
                yield from ((inner, v) for v in values if isinstance(v, str))
            else:
                yield from _in_data(value, inner)
    elif isinstance(block, (list, tuple)):
        for i, value in enumerate(block):
            yield from _in_data(value, f"{dotted}[{i}]")
