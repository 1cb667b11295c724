"""Files by path or by URL: ``/data/x.png`` is opened directly, ``s3://bucket/x.png`` (any fsspec URL) through fsspec."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean, require


class UnreadableFile(UserError):
    """A file is missing, cannot be opened, or is damaged."""


def is_url(path: str | Path) -> bool:
    """Whether fsspec, rather than the operating system, opens this path."""
    return "://" in str(path)


def _remote(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it. Not kept: fsspec caches it per process, safely across forks."""
    fsspec = require("fsspec.core", f"the URL {url}", "pip install 'relume[remote]'")
    try:
        filesystem, inner = fsspec.url_to_fs(url)
        return filesystem, str(inner)
    except (ImportError, ValueError) as e:  # the protocol's own package is missing, or no such protocol
        raise UserError(f"{url}: {str(e).splitlines()[0]}") from e


def join(root: str, name: str) -> str:
    """``root/name``, for paths and URLs alike."""
    return f"{root.rstrip('/')}/{name}" if is_url(root) else os.path.join(root, name)


def read_bytes(path: str | Path) -> bytes:
    """The whole file.

    Raises:
        UnreadableFile: naming the path and the reason.
    """
    try:
        if is_url(path):
            filesystem, inner = _remote(str(path))
            return bytes(filesystem.cat_file(inner))
        return Path(path).expanduser().read_bytes()
    except OSError as e:
        raise UnreadableFile(f"{path}: cannot be read ({e.strerror or e})") from e


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write the whole file or nothing: readers, and a run that dies in the middle, never see half of it."""
    if is_url(path):
        filesystem, inner = _remote(str(path))
        filesystem.pipe_file(inner, data)
        return
    target = Path(path).expanduser()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def list_files(root: str) -> list[str]:
    """Names of all files below `root`, relative to it, with ``/`` between folders, sorted. Hidden ones are left out.

    Raises:
        UserError: there is no such folder.
    """
    names = _remote_files(root) if is_url(root) else _local_files(root)
    return sorted(n for n in names if not any(part.startswith(".") for part in n.split("/")))


def _local_files(root: str) -> Iterator[str]:
    if not os.path.isdir(root):
        parent = Path(root).expanduser().absolute().parent
        siblings = [p.name for p in parent.iterdir()] if parent.is_dir() else []
        what = "is a file, not a folder" if os.path.isfile(root) else "there is no such folder"
        raise UserError(f"{root}: {what}.{did_you_mean(Path(root).name, siblings) if siblings else ''}")
    seen: set[tuple[int, int]] = set()
    for folder, below, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a symbolic link back up
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        relative = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if relative == "." else f"{relative}/"
        yield from (prefix + f for f in files)


def _remote_files(root: str) -> Iterator[str]:
    filesystem, inner = _remote(root)
    inner = inner.rstrip("/")
    if not filesystem.isdir(inner):
        raise UserError(f"{root}: there is no such folder.")
    return (path.removeprefix(inner).lstrip("/") for path in filesystem.find(inner))
