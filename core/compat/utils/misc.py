"""``basicsr.utils.misc``."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch


def set_random_seed(seed: int) -> None:
    """Seed all global generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def get_time_str() -> str:
    """``20260131_235959``."""
    return time.strftime("%Y%m%d_%H%M%S", time.localtime())


def scandir(
    dir_path: str, suffix: str | tuple[str, ...] | None = None, recursive: bool = False, full_path: bool = False
) -> Iterator[str]:
    """The files of a folder, hidden ones left out, in alphabetical order: paths relative to it, or whole ones.

    Args:
        suffix: what their names end in; any when None.
        recursive: whether to go into folders below.
    """
    for root, folders, files in os.walk(dir_path):
        folders[:] = sorted(f for f in folders if not f.startswith(".")) if recursive else []
        for name in sorted(files):
            path = Path(root) / name
            if not name.startswith(".") and (suffix is None or name.endswith(suffix)):
                yield str(path) if full_path else path.relative_to(dir_path).as_posix()


def sizeof_fmt(size: float, suffix: str = "B") -> str:
    """A size in bytes for people."""
    for unit in ("", "K", "M", "G", "T", "P", "E", "Z"):
        if abs(size) < 1024.0:
            return f"{size:3.1f} {unit}{suffix}"
        size /= 1024.0
    return f"{size:3.1f} Y{suffix}"
