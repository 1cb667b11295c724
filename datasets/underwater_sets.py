"""Where published underwater datasets keep their images, so that an option file only names the dataset and its folder.

Pairs, ``type: PairedImageDataset, layout: UIEB, dataroot: /data/UIEB`` (input folder, ground-truth folder):

=======  ==================================================  =============================================  ==========
layout   training                                            validation and test                            sizes
=======  ==================================================  =============================================  ==========
LSUI     ``train/input``, ``train/gt``; or, not yet split,   ``test/input``, ``test/gt``; or, not yet       same
         ``input``, ``GT``                                   split, ``input``, ``GT``
UIEB     ``raw-890``, ``reference-890``                      the same                                       same
EUVP     ``Paired/underwater_dark/trainA``, ``trainB``, and  ``test_samples/Inp``, ``test_samples/GTr``     same
         so ``underwater_imagenet``, ``underwater_scenes``
UFO-120  ``train_val/lrd``, ``train_val/hr``                 ``TEST/lrd``, ``TEST/hr``                      ``scale: 2``
=======  ==================================================  =============================================  ==========

LSUI and UIEB come without a split: ``meta_info_file`` lists the files to use. EUVP's three sets are three roots, which
``weights`` can weigh. UFO-120 at one size: ``scale: 1, resize: [256, 256]``.

Images without ground truth, ``type: SingleImageDataset, layout: UCCS, dataroot_lq: /data/UCCS``: U-45 (a flat folder), UCCS
(``blue``, ``blue-green``, ``green``), SQUID (``Katzaa``, ``Michmoret``, ``Nachsholim``, ``Satil``) and UIEB-challenging
(``challenging-60``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from ..core.errors import UserError, did_you_mean
from ..core.imaging.storage import is_url, join
from .origins import advice
from .sources import first_names

PairedLayout = Literal["LSUI", "UIEB", "EUVP", "UFO-120"]
SingleLayout = Literal["U-45", "UCCS", "SQUID", "UIEB-challenging"]

Folders = tuple[tuple[str, str], ...]
"""(input, ground truth), relative to the dataset's folder."""


class Split(NamedTuple):
    """The folders of one split: the usual ones, and another form in which the dataset goes round."""

    usual: Folders
    other: Folders = ()


EUVP_SETS = ("underwater_dark", "underwater_imagenet", "underwater_scenes")
WHOLE_LSUI = (("input", "GT"),)
PAIRED: dict[str, tuple[Split, Split]] = {
    "LSUI": (Split((("train/input", "train/gt"),), WHOLE_LSUI), Split((("test/input", "test/gt"),), WHOLE_LSUI)),
    "UIEB": (Split((("raw-890", "reference-890"),)), Split((("raw-890", "reference-890"),))),
    "EUVP": (
        Split(tuple((f"Paired/{s}/trainA", f"Paired/{s}/trainB") for s in EUVP_SETS)),
        Split((("test_samples/Inp", "test_samples/GTr"),)),
    ),
    "UFO-120": (Split((("train_val/lrd", "train_val/hr"),)), Split((("TEST/lrd", "TEST/hr"),))),
}
"""Training split, and the one for validation and test."""

SINGLE: dict[str, tuple[str, ...]] = {
    "U-45": (".",),
    "UCCS": ("blue", "blue-green", "green"),
    "SQUID": ("Katzaa", "Michmoret", "Nachsholim", "Satil"),
    "UIEB-challenging": ("challenging-60",),
}


def paired_folders(layout: str, roots: Sequence[str], training: bool) -> list[tuple[str, str | None]]:
    """(input folder, ground-truth folder) of each part of the dataset in each of `roots`.

    Raises:
        UserError: unknown layout, no roots, or folders are missing; they are named, and what is there instead.
    """
    _check(layout, get_args(PairedLayout), roots, "dataroot")
    split = PAIRED[layout][0 if training else 1]
    found: list[tuple[str, str | None]] = []
    for root in roots:
        present = [f for f in (split.usual, split.other) if f and not _missing(root, [n for pair in f for n in pair])]
        if not present:
            _refuse(layout, root, [n for pair in split.usual for n in pair], [n for pair in split.other for n in pair])
        found += [(join(root, lq), join(root, gt)) for lq, gt in present[0]]
    return found


def single_folders(layout: str, roots: Sequence[str]) -> list[str]:
    """The image folders of a test set without ground truth in each of `roots`. Errors as `paired_folders`."""
    _check(layout, get_args(SingleLayout), roots, "dataroot_lq")
    for root in roots:
        if _missing(root, SINGLE[layout]):
            _refuse(layout, root, SINGLE[layout])
    return [root if name == "." else join(root, name) for root in roots for name in SINGLE[layout]]


def _check(layout: str, known: Sequence[str], roots: Sequence[str], option: str) -> None:
    if layout not in known:
        raise UserError(f"layout: there is no '{layout}'.{did_you_mean(layout, known)} Known: {', '.join(known)}.")
    if not roots:
        raise UserError(f"layout {layout} needs {option}, the folder that it lies in")


def _missing(root: str, names: Sequence[str]) -> list[str]:
    """The sub-folders that are not there; remote ones are taken on trust, and missed when they are listed."""
    if is_url(root):
        return []
    return [name for name in names if not os.path.isdir(os.path.join(os.path.expanduser(root), name))]


def _refuse(layout: str, root: str, needed: Sequence[str], instead: Sequence[str] = ()) -> None:
    folder = os.path.expanduser(root)
    if not os.path.isdir(folder):
        raise UserError(f"{root}: there is no such folder (layout {layout}).{advice(root)}")
    there = sorted(os.listdir(folder))
    either = f" (or {', '.join(instead)})" if instead else ""
    raise UserError(
        f"{root}: layout {layout} needs {', '.join(needed)}{either}; missing: {', '.join(_missing(root, needed))}. "
        f"There is: {first_names(there) or 'nothing'}"
    )
