"""Folders packed into one: an LMDB database, or tar files as WebDataset reads them."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import track

from ...datasets.archives import write_index
from ...datasets.sources import Folder, Source, first_names, lmdb_key
from ..errors import UserError, first_line, require
from ..files import replacing
from ..imaging.storage import write_bytes
from . import journal
from .images import KINDS, meta_line

UNFINISHED = {"data.mdb", "lock.mdb", "meta_info.txt"}
"""What a database that was never finished has in its folder."""


def pack(folder: str, out: str, batch: int = 1000, kind: str = "images", workers: int = 1, dry: bool = False) -> int:
    """Pack a folder into an LMDB database, files as they are (no precision is lost); how many.

    The database appears under its name when it is complete. One that was interrupted is gone on with.

    Raises:
        UserError: `out` exists, does not end in .lmdb, or an image is damaged.
    """
    if not out.endswith(".lmdb"):
        raise UserError(f"{out}: the name of an LMDB folder ends in .lmdb")
    if os.path.exists(out):
        raise UserError(f"{out}: is there already; remove it first")
    require("lmdb", "packing an LMDB database")
    source = Folder(folder, KINDS[kind])
    unfinished = f"{out}.unfinished"
    refuse_others(unfinished)
    for name in source.files.values():
        if "\n" in name or "\r" in name or _undecodable(name):
            raise UserError(f"{source.path(name)!r}: a list has one name a line, in UTF-8; rename this file")
    if not dry:
        fill(source, unfinished, out, batch, workers)
        os.replace(unfinished, out)
    return len(source.files)


def fill(source: Source, unfinished: str, out: str, batch: int, workers: int) -> None:
    """Put a folder's files into the database `unfinished`, and its list beside them.

    Raises:
        UserError: it cannot be written, or an image is damaged.
    """
    lmdb = require("lmdb", "packing an LMDB database")
    names = list(source.files.values())
    notes = Path(unfinished, "meta_info.txt")
    os.makedirs(unfinished, exist_ok=True)
    known = listed(notes)
    lines: list[str] = []
    try:
        environment = opened(lmdb, unfinished, source)
        for start in track(range(0, len(names), batch), "Packing"):
            work = partial(checked, source, known, environment)
            found = list(journal.each(work, names[start : start + batch], workers, ""))
            lines += [line for line, _ in found]
            with environment.begin(write=True) as writing:
                for name, (_, new) in zip(names[start : start + batch], found, strict=True):
                    if new:
                        writing.put(lmdb_key(name), source.read(name))
            write_bytes(notes, ("\n".join(lines) + "\n").encode())
        wanted = {lmdb_key(name) for name in names}
        with environment.begin(write=True) as writing:  # of files that have gone since an interruption
            for key in [k for k in writing.cursor().iternext(values=False) if bytes(k) not in wanted]:
                writing.delete(key)
        environment.close()
    except lmdb.Error as e:
        raise UserError(f"{out}: cannot be written ({first_line(e)})") from e


def opened(lmdb: Any, unfinished: str, source: Source) -> Any:
    """The database that is filled; a damaged one is begun anew."""
    names = source.files.values()
    size = 2 * sum(os.path.getsize(source.path(n)) for n in names) + 4096 * len(names) + (1 << 24)
    try:
        return lmdb.open(unfinished, map_size=size)
    except lmdb.Error:
        shutil.rmtree(unfinished)
        os.makedirs(unfinished)
        return lmdb.open(unfinished, map_size=size)


def listed(notes: Path) -> dict[str, str]:
    """By name, the lines that an interrupted command has written."""
    if not notes.is_file():
        return {}
    lines = notes.read_text(encoding="utf-8", errors="replace").splitlines()
    return {line.rpartition(" (")[0]: line for line in lines if line.endswith(") 1")}


def checked(source: Source, known: dict[str, str], environment: Any, name: str) -> tuple[str, bool]:
    """An image's line in the list, and whether it is to be put into the database. One that is there needs no decoding."""
    if name in known:
        with environment.begin() as reading:
            if reading.get(lmdb_key(name)) == source.read(name):
                return known[name], False
    return f"{meta_line(source, name)} 1", True


def refuse_others(folder: str) -> None:
    """Refuse to work in a folder that an earlier `pack` has not left.

    Raises:
        UserError: there is something of this name that no `pack` made.
    """
    if not os.path.lexists(folder):
        return
    ours = os.path.isdir(folder) and not os.path.islink(folder) and set(os.listdir(folder)) <= UNFINISHED
    if not ours:
        raise UserError(f"{folder}: is in the way, and was not made here; move it, or choose another name")


def _undecodable(name: str) -> bool:
    """Whether a name on disk is in no encoding that is known here."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


# ------------------------------------------------------------------ tar
Sample = tuple[str, list[tuple[str, Source, str]]]
"""A key, and its files: what follows the key in the archive, and where each comes from."""


def samples(folder: str, gt: str | None, kind: str) -> list[Sample]:
    """What is packed: each file of a folder as ``<key>.png``, or a pair as ``<key>.lq.png`` and ``<key>.gt.png``.

    WebDataset takes what precedes the first dot of a file's own name for the key, so that other dots become ``_``.

    Raises:
        UserError: files without a partner, or two of the same key.
    """
    sources = {"": Folder(folder, KINDS[kind])} if gt is None else {"lq.": Folder(folder), "gt.": Folder(gt)}
    keys = [set(source.files) for source in sources.values()]
    if alone := sorted(keys[0] ^ keys[-1]):
        raise UserError(f"{folder}, {gt}: files without a partner: {first_names(alone)}")
    found: dict[str, list[tuple[str, Source, str]]] = {}
    for key in sorted(keys[0]):
        where, _, own = key.rpartition("/")
        name = f"{where}/{own.replace('.', '_')}" if where else own.replace(".", "_")
        if name in found:
            raise UserError(f"{folder}: two files would both be {name} in the archive; rename one")
        parts = [(prefix, source, source.files[key]) for prefix, source in sources.items()]
        found[name] = [(f"{p}{n.rpartition('.')[2].lower()}", s, n) for p, s, n in parts]
    return list(found.items())


def shards(
    folder: str,
    out: str,
    gt: str | None = None,
    per: int = 1000,
    kind: str = "images",
    workers: int = 1,
    dry: bool = False,
) -> tuple[int, int]:
    """Write tar files ``000000.tar``, ... as WebDataset reads them; how many samples and how many files there are.

    The bytes of the archives depend on the files' names and bytes only. Each appears when it is complete, and those that are
    there are left.

    Args:
        gt: targets of the same names, for pairs.
        per: samples in a file.

    Raises:
        UserError: an image is damaged or lacks its partner, or `out` has archives made otherwise.
    """
    if per < 1:
        raise UserError(f"--samples: at least 1, not {per}")
    every = samples(folder, gt, kind)
    settings = {"gt": gt and os.path.realpath(gt), "samples": per, "kind": kind, "count": len(every)}
    goes_on = journal.begin(out, "tar", folder, settings, dry)
    parts = {f"{i:06d}.tar": every[i * per : (i + 1) * per] for i in range(-(-len(every) // per))}
    if not dry:
        left = journal.missing([Path(out, name) for name in parts], goes_on)
        list(journal.each(lambda path: shard(path, parts[path.name]), left, workers, "Packing"))
        write_index(out)
    return len(every), len(parts)


def shard(path: Path, part: list[Sample]) -> None:
    """Write one tar file, whole or not at all."""
    with replacing(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for key, files in part:
            for suffix, source, name in files:
                meta_line(source, name)  # decoded: damage is found now
                content = source.read(name)
                entry = tarfile.TarInfo(f"{key}.{suffix}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
