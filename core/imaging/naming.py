"""Names under which results of images are filed: short where that is enough, and never the same twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath


def unique_names(paths: Sequence[str]) -> list[str]:
    """A name for the results of each file: its stem, as BasicSR has it, unless another file would get the same name.

    Those that clash get as many of their folders in front as tell them apart, then their suffix, and files that are listed
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
