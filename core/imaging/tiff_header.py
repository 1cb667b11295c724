"""The structure of TIFF files (TIFF 6.0, and BigTIFF), which Exif blocks have too: directories of tags."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

TIFF_START = (b"II", b"MM")
SHORT = 3
"""The kind of a value of two bytes."""
MOST_DIRECTORIES, MOST_ENTRIES = 64, 4096
"""Largest numbers of directories and entries that are looked at: a file may lead in circles."""
OUTSIDE = (struct.error, OverflowError)
"""What a place beyond the end raises; the second beyond all memory, which the numbers of a BigTIFF reach."""


class Layout(NamedTuple):
    """How a file's numbers are packed."""

    first: int
    """Where it says where its first directory is."""
    offset: struct.Struct
    entries: struct.Struct
    """How many entries a directory has, which comes first in it."""
    entry: struct.Struct
    """Tag, kind and number of values; the value itself, or its place, follows, as large as an offset."""
    short: struct.Struct
    long: struct.Struct


def layout(data: bytes) -> Layout | None:
    """The layout of a TIFF file; None of other files."""
    if data[:2] not in TIFF_START:
        return None
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"\x2b\x00", b"\x00\x2b")
    formats = ("Q", "Q", "HHQ", "H", "I") if big else ("I", "H", "HHI", "H", "I")
    return Layout(8 if big else 4, *(struct.Struct(order + form) for form in formats))


def directories(data: bytes) -> Iterator[int]:
    """Where the first directories of a TIFF file are, in their order, up to a pointer beyond the end."""
    form = layout(data)
    if form is None:
        return
    try:
        (at,) = form.offset.unpack_from(data, form.first)
        for _ in range(MOST_DIRECTORIES):
            if not at:
                return
            yield at
            (entries,) = form.entries.unpack_from(data, at)
            (at,) = form.offset.unpack_from(
                data, at + form.entries.size + entries * (form.entry.size + form.offset.size)
            )
    except OUTSIDE:
        return


def tag(data: bytes, number: int, at: int | None = None) -> int | None:
    """The first value of a tag of shorts or longs in a directory of a TIFF file, the first one unless it is `at`; or None."""
    form = layout(data)
    at = next(directories(data), None) if at is None else at
    if form is None or at is None:
        return None
    try:
        (entries,) = form.entries.unpack_from(data, at)
        at += form.entries.size
        for _ in range(min(entries, MOST_ENTRIES)):
            found, kind, values = form.entry.unpack_from(data, at)
            at += form.entry.size
            if found == number:
                sample = form.short if kind == SHORT else form.long
                if values * sample.size > form.offset.size:
                    (at,) = form.offset.unpack_from(data, at)
                value: int = sample.unpack_from(data, at)[0]
                return value
            at += form.offset.size
    except OUTSIDE:
        pass
    return None
