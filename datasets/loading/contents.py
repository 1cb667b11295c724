"""What a dataset consists of, so that ranks on different nodes can tell whether they see the same files."""

from __future__ import annotations

import os
from typing import Any

from ...core.annotations import declared
from ..base import DatasetTraits

MOST_SIZES = 2000
"""Files whose sizes are asked for, spread evenly: on a remote file system each is a question."""


def contents(dataset: Any) -> dict[str, int | list[str]]:
    """Number of samples, their names relative to the folder that has them all, and the sizes of those that are local files.

    Names are those of `DatasetTraits.result_path`; where a dataset knows none, only the number is there.
    """
    found: dict[str, int | list[str]] = {"samples": len(dataset)}
    path_of = declared(dataset, "result_path", DatasetTraits)
    paths = [str(path) for i in range(len(dataset)) if (path := path_of(i)) is not None]
    if not paths:
        return found
    found["names"] = names = relative(paths)
    step = max(1, len(paths) // MOST_SIZES)
    some = zip(names[::step], paths[::step], strict=True)
    sizes = [f"{name} of {size} bytes" for name, path in some if (size := _size(path)) is not None]
    if sizes:
        found["sizes of files"] = sizes
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
