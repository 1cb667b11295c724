"""What a dataset consists of, in few words: so that ranks on different nodes can tell whether they see the same files."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from ...core.annotations import declared
from ..base import DatasetTraits

MOST_SIZES = 2000
"""Files whose sizes are asked for, spread evenly: on a remote file system each is a question."""


def contents(dataset: Any) -> dict[str, int | str]:
    """Number of samples, digest of their names relative to the folder that has them all, digest of sizes of local files.

    Names are those of `DatasetTraits.result_path`; where a dataset knows none, only the number is there.
    """
    found: dict[str, int | str] = {"samples": len(dataset)}
    path_of = declared(dataset, "result_path", DatasetTraits)
    paths = [str(path) for i in range(len(dataset)) if (path := path_of(i)) is not None]
    if not paths:
        return found
    found["names"] = _digest(relative(paths))
    step = max(1, len(paths) // MOST_SIZES)
    sizes = [size for path in paths[::step] if (size := _size(path)) is not None]
    if sizes:
        found["sizes of files"] = _digest([str(s) for s in sizes])
    return found


def relative(paths: list[str]) -> list[str]:
    """Paths without the folders that all of them share, whose names may differ between nodes.

    >>> relative(["/a/b/x.png", "/a/b/c/y.png"]), relative(["s3://bucket/x.png"])
    (['x.png', 'c/y.png'], ['x.png'])
    """
    folders = [path.replace("\\", "/").rpartition("/")[0] for path in paths]
    shared = os.path.commonprefix([f"{folder}/" for folder in folders]).rpartition("/")[0]  # noqa: RUF071
    return [path[len(shared) :].lstrip("/") for path in paths]


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return None


def _digest(texts: list[str]) -> str:
    whole = hashlib.sha256()
    for text in texts:
        whole.update(text.encode(errors="surrogateescape") + b"\0")
    return whole.hexdigest()[:16]
