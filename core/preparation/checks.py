"""Checks of image pairs: missing partners, sizes, damage, and pictures that training and validation share."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ...datasets.sources import Folder
from ..errors import in_one_line, listing
from ..imaging.opencv import cv2
from ..imaging.visual import to_uint8

NEAR = 5
"""Number of the 64 bits of two pictures' hashes that may differ for them to be near-duplicates."""
FLAT = 8.0
"""Grey levels of deviation below which a small picture is too flat for its hash to say anything."""


@dataclass(frozen=True)
class Look:
    """What is known of a picture: its size, digests of its pixels (exact, and 64 bits that survive small changes)."""

    height: int
    width: int
    exact: bytes
    near: int | None
    error: str = ""


def look(source: Folder, name: str) -> Look:
    """Decode a picture and digest it; with `error` where that fails.

    The near digest is the difference hash (dHash): whether each of 8 x 8 cells is brighter than its right neighbour.
    """
    try:
        pixels = source.pixels(name)
    except Exception as e:
        return Look(0, 0, b"", None, in_one_line(e))
    gray = cv2.cvtColor(np.ascontiguousarray(to_uint8(pixels)), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    near = int("".join("1" if b else "0" for b in bits), 2) if small.std() >= FLAT else None
    return Look(pixels.shape[0], pixels.shape[1], hashlib.sha256(pixels.tobytes()).digest(), near)


def looks(source: Folder, workers: int) -> dict[str, Look]:
    """By key, what is known of every picture of a folder."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        return dict(zip(source.files, pool.map(lambda n: look(source, n), source.files.values()), strict=True))


def pairs(lq: Folder, gt: Folder, scale: int, seen: tuple[dict[str, Look], dict[str, Look]]) -> Iterator[str]:
    """What is wrong with two folders of pairs, a line each."""
    for one, other in ((lq, gt), (gt, lq)):
        alone = [n for key, n in one.files.items() if key not in other.files]
        if alone:
            yield f"{one.root}: {len(alone)} without a partner in {other.root}: {listing(alone)}"
    for source, found in zip((lq, gt), seen, strict=True):
        for key, each in found.items():
            if each.error:
                yield (
                    each.error if source.files[key] in each.error else f"{source.path(source.files[key])}: {each.error}"
                )
    for key in [k for k in lq.files if k in gt.files]:
        a, b = seen[0][key], seen[1][key]
        if not a.error and not b.error and (a.height * scale, a.width * scale) != (b.height, b.width):
            yield (
                f"{lq.path(lq.files[key])}: {a.height}x{a.width}, its target {b.height}x{b.width}, "
                f"which is not {scale} times as large"
            )


def twins(train: dict[str, Look], val: dict[str, Look]) -> Iterator[tuple[str, str, str]]:
    """Pictures that two sets share: ``(of train, of val, "identical" or "near-duplicate")``."""
    exact: dict[bytes, list[str]] = defaultdict(list)
    for key, each in train.items():
        if not each.error:
            exact[each.exact].append(key)
    known = [(key, each.near) for key, each in train.items() if each.near is not None]
    hashes = np.array([near for _, near in known], np.uint64)
    for key, each in val.items():
        if each.error:
            continue
        same = exact.get(each.exact, [])
        yield from ((k, key, "identical") for k in same)
        if each.near is None or not known:
            continue
        differing = np.bitwise_xor(hashes, np.uint64(each.near))
        bits = np.unpackbits(differing.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
        for i in np.flatnonzero(bits <= NEAR):
            if known[i][0] not in same:
                yield known[i][0], key, "near-duplicate"


def problems(lq: str, gt: str, scale: int, val: Sequence[str] | None, workers: int) -> tuple[int, list[str]]:
    """How many pairs there are, and what is wrong with them.

    Args:
        lq, gt: folders of the training pairs.
        val: folders of the validation pairs, input and target, which are checked as well and held against the training's.
    """
    inputs, targets = Folder(lq), Folder(gt)
    seen = looks(inputs, workers), looks(targets, workers)
    found = list(pairs(inputs, targets, scale, seen))
    if val is not None:
        others = Folder(val[0]), Folder(val[1])
        their = looks(others[0], workers), looks(others[1], workers)
        found += pairs(*others, scale, their)
        for a, b, how in twins(seen[1], their[1]):
            found.append(f"{targets.path(targets.files[a])} and {others[1].path(others[1].files[b])}: {how} pictures")
    return sum(key in targets.files for key in inputs.files), found
