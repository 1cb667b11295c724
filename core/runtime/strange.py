"""What a weights file may not be, whatever reads it: one that unpacks to more than it says, or that contains itself."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files.ceilings import in_force

CONTAINERS = (Mapping, list, tuple)
DEEPEST = 200
"""Dictionaries and lists within one another."""


EXPORTED = {".onnx": "an ONNX file", ".pt2": "a program of torch.export"}
"""Suffixes of what `relume export` writes for other programs."""


def refuse_exported(path: Path) -> None:
    """Refuse a file that holds a whole network for other programs, and no weights by their names.

    Raises:
        UserError: its suffix is that of such a file.
    """
    if (what := EXPORTED.get(path.suffix.lower())) is not None:
        raise UserError(
            f"{path}: is {what}, which holds no weights by their names; give the file that it was exported from, or export "
            ".safetensors, which is read here too"
        )


def refuse_bomb(path: Path) -> None:
    """Refuse a zip file whose entries are together larger than it, as ``torch.save`` never writes them.

    One that another program has compressed may unpack to ``data.max_unpacked_bytes``.

    Raises:
        UserError: its entries unpack to more.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(e.file_size for e in archive.infolist())
    except Exception:  # it is no zip file, or damaged, which reading it will say
        return
    if total > max(path.stat().st_size, in_force().max_unpacked_bytes):
        raise UserError(
            f"{path}: unpacks to {total:,} bytes, more than data.max_unpacked_bytes; torch.save packs nothing"
        )


def refuse_nesting(content: Any, path: str | Path) -> None:
    """Refuse dictionaries and lists that contain themselves, or lie more than `DEEPEST` deep in one another.

    A pickle of a few bytes can make them, and whatever goes through them would not come back.

    Raises:
        UserError: there are such.
    """
    heights: dict[int, int | None] = {}  # None while what is in it is being looked at
    waiting = [content] if isinstance(content, CONTAINERS) else []
    while waiting:
        value = waiting[-1]
        inner = [v for v in (value.values() if isinstance(value, Mapping) else value) if isinstance(v, CONTAINERS)]
        if id(value) not in heights:
            heights[id(value)] = None
            new = [v for v in inner if id(v) not in heights]
            waiting += new
            if new:
                continue
        waiting.pop()
        below = [heights.get(id(v)) for v in inner]
        if heights[id(value)] is None:
            known = [b for b in below if b is not None]
            if len(known) < len(below) or max(known, default=0) >= DEEPEST:
                raise UserError(
                    f"{path}: has dictionaries or lists that contain themselves, or lie too deep in one another"
                )
            heights[id(value)] = 1 + max(known, default=0)
