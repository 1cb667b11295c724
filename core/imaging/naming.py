"""Names of files: those that results get, short where that is enough and never the same twice, and the order of time."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath


def unique_names(paths: Sequence[str]) -> list[str]:
    """A name for the results of each file: its stem, as BasicSR has it, unless another file would get the same name.

    Those that clash get as many of their folders in front as distinguish them, then their suffix, and files that are listed
    twice their number. Names depend on the list alone, so every rank and every run finds the same.

    >>> unique_names(["data/a.png", "data/day/b.png", "data/night/b.png"])
    ['a', 'day_b', 'night_b']
    >>> unique_names(["b.png", "b.jpg", "c.png", "c.png"])
    ['b_png', 'b_jpg', 'c_png_00002', 'c_png_00003']
    """
    lengths = [0] * len(paths)
    longest = [_longer_names(path, i) for i, path in enumerate(paths)]
    while True:
        names = [options[length] for options, length in zip(longest, lengths, strict=True)]
        counts = Counter(names)
        if len(counts) == len(names):
            return names
        # The longest ones end in different numbers, so this ends.
        for i, name in enumerate(names):
            if counts[name] > 1:
                lengths[i] = min(lengths[i] + 1, len(longest[i]) - 1)


def _longer_names(path: str, index: int) -> list[str]:
    """The names that a file may get, from short to long."""
    pure = PurePath(path)
    parts = [*(part for part in pure.parts[:-1] if part != pure.anchor), pure.stem]
    names = ["_".join(parts[-n:]) for n in range(1, len(parts) + 1)]
    names.append(names[-1] + pure.suffix.replace(".", "_"))
    return [*names, f"{names[-1]}_{index:05d}"]


NO_NUMBER = sys.maxsize
"""More than the digits of any number: text comes behind numbers."""


def natural_order(name: str) -> tuple[list[tuple[int, str]], str]:
    """A key that sorts names with the numbers in them compared as numbers: the order of time, however frames are numbered.

    >>> sorted(["10.png", "2.png", "1.png", "b1.png", "a10_2.png", "a9_10.png"], key=natural_order)
    ['1.png', '2.png', '10.png', 'a9_10.png', 'a10_2.png', 'b1.png']
    """
    parts = re.split(r"([0-9]+)", name)
    numbers = [p.lstrip("0") if i % 2 else "" for i, p in enumerate(parts)]  # longer is larger, however long they are
    return [
        (len(n), n) if i % 2 else (NO_NUMBER, p) for i, (p, n) in enumerate(zip(parts, numbers, strict=True)) if p
    ], name


LONGEST = 255
"""Bytes in the name of a file, beyond which file systems refuse it."""


def fitting(name: str, reserve: int = 0) -> str:
    """`name`, a file's or with folders in front, each part shortened to what file systems allow.

    What is cut off is replaced by a digest of the whole part, so that different names stay different. Suffixes are kept.

    Args:
        reserve: bytes that the caller may still add.

    >>> fitting("a/b.png"), len(fitting("x" * 300 + ".png"))
    ('a/b.png', 255)
    """
    return "/".join(_fitting(part, LONGEST - reserve) for part in name.split("/"))


def _fitting(part: str, most: int) -> str:
    data = os.fsencode(part)
    if len(data) <= most:
        return part
    stem, suffix = os.path.splitext(part)
    tail = f"~{hashlib.sha256(data).hexdigest()[:12]}{suffix if len(os.fsencode(suffix)) <= 16 else ''}"
    # A character of several bytes that is cut through goes, too.
    return os.fsencode(stem)[: most - len(os.fsencode(tail))].decode(errors="ignore") + tail
