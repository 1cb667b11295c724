"""Links in folders that may have come from elsewhere, through which what is written would land in a stranger's place."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UserError, printable


def refuse_links(folder: Path, told: str) -> None:
    """Refuse a folder that is a link, or that has one, or anything else but files and folders, in it, at any depth.

    Args:
        folder: folder to look at; it need not be there. What it is in may be a link.
        told: what the folder is, for the message: ``the experiment``.

    Raises:
        UserError: naming the link and where it leads.
    """
    if folder.is_symlink():
        _refuse(folder, folder, told)
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    if entry.is_symlink():
                        _refuse(folder, Path(entry.path), told)
                    if not entry.is_file(follow_symlinks=False) and not entry.is_dir(follow_symlinks=False):
                        raise UserError(
                            f"{printable(entry.path)}: {told} has a pipe, a socket or a device in it, which a run would "
                            "wait for, or write to. Remove it"
                        )
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:  # nothing can be written there either
            continue


def _refuse(folder: Path, link: Path, told: str) -> None:
    try:
        target = os.readlink(link)
    except OSError:
        target = "?"
    what = "is" if link == folder else "has"
    raise UserError(
        f"{printable(link)}: {told} {what} a link (to {printable(target)}), through which a run would write elsewhere. "
        "Remove it, or put a copy in its place; path.experiments_root and path.results_root may be links"
    )
