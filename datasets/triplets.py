"""Two frames and the one to be found between them, from files: reading, sizes, and the augmentation that they share."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..core.errors import UserError, printable
from ..core.imaging.opencv import cv2
from ..core.imaging.storage import UnreadableFile, is_url, read_lines
from .base import ImageDataset, Item, OnError, Phase
from .origins import advice
from .sources import Source, first_names, refuse_small
from .transforms import Image, resize, to_tensor, too_small

CROP_MULTIPLE = 32
"""Crops that are cut smaller than asked for have sides that are multiples of this."""


class Triplet(NamedTuple):
    """Names of three frames in the order of time, the middle one's time between the others' 0 and 1, and a name for results."""

    files: tuple[str, ...]
    timestep: float = 0.5
    name: str | None = None


class Switches(NamedTuple):
    """Which random changes training samples undergo."""

    reverse_channels: bool = True
    reverse_time: bool = True
    flip: bool = True
    rotate: bool = True


def augment(
    images: Sequence[Image], timestep: float, size: int | None, switches: Switches
) -> tuple[list[Image], float]:
    """A random patch of (img0, gt, img1) under random changes, the same for all three, as RIFE and its descendants have it.

    The choices are drawn in the original's order, whatever the switches are: the patch's top and left from NumPy's global
    generator; then from Python's one number each for exchanging red and blue, running time backwards, flipping upside
    down, flipping left to right (each if below 1/2), and one number for a rotation by 90 degrees clockwise, 180, or 90
    counter-clockwise (below 1/4, 1/2, 3/4).

    Args:
        images: three (H, W, 3) arrays.
        timestep: timestep of the middle one.
        size: side of the patch, at most the frames' sides; whole frames when None.
        switches: what may happen.

    Returns:
        img0, gt, img1 and the timestep, which is ``1 - timestep`` when time runs backwards.
    """
    changed = list(images)
    if size is not None:
        height, width = images[1].shape[:2]
        top, left = np.random.randint(height - size + 1), np.random.randint(width - size + 1)
        changed = [image[top : top + size, left : left + size] for image in changed]
    channels, backwards, upside_down, mirrored = (random.random() < 0.5 for _ in range(4))  # noqa: S311
    turn = random.random()  # noqa: S311
    if switches.reverse_channels and channels:
        changed = [image[..., ::-1] for image in changed]
    if switches.reverse_time and backwards:
        changed, timestep = changed[::-1], 1 - timestep
    if switches.flip and upside_down:
        changed = [image[::-1] for image in changed]
    if switches.flip and mirrored:
        changed = [image[:, ::-1] for image in changed]
    if switches.rotate and turn < 0.75:
        quarters = 3 if turn < 0.25 else 2 if turn < 0.5 else 1
        changed = [np.rot90(image, quarters) for image in changed]
    return changed, timestep


class FrameDataset(ImageDataset):
    """Triplets of frames. Subclasses give `triplet` and ``__len__``, and `frames` where they are not files.

    An item has ``img0``, ``img1`` and ``gt``, (3, H, W) float32 RGB in [0, 1], ``timestep``, a float32 scalar, the strings
    ``img0_path`` and ``gt_path``, and ``name``, under which its results are filed.

    Args:
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        gt_size: side of the training patch; whole frames when None.
        switches: random changes in training.
        enlarge: cut patches from frames smaller than `gt_size` as large as they can be, and enlarge those to `gt_size`.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next one.
    """

    def __init__(
        self,
        phase: Phase = "train",
        gt_size: int | None = None,
        switches: Switches = Switches(),  # noqa: B008  (immutable)
        enlarge: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(on_error)
        self.training = phase == "train"
        self.gt_size = gt_size
        self.patch_limit: int | None = None
        self.switches = switches
        self.enlarge = enlarge

    def limit_patches(self) -> None:
        self.patch_limit, self.enlarge = self.gt_size, True

    def triplet(self, index: int) -> tuple[Any, Triplet]:
        """Where the frames of a sample are, and their names.

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError

    def frames(self, where: Any, triplet: Triplet) -> list[Image]:
        """img0, gt, img1 as (H, W, 3) RGB."""
        return [where.pixels(name) for name in triplet.files]

    def load(self, index: int) -> Item:
        """The sample `index`.

        Raises:
            UserError: its frames differ in size.
        """
        where, triplet = self.triplet(index)
        images = self.frames(where, triplet)
        paths = [where.path(name) for name in triplet.files]
        for image, path in zip(images, paths, strict=True):
            if image.shape != images[0].shape:
                sizes = [f"{i.shape[0]}x{i.shape[1]}" for i in (image, images[0])]
                raise UserError(f"{path}: is {sizes[0]} (height x width), but {paths[0]} is {sizes[1]}")
        timestep = triplet.timestep
        if self.training:
            images, timestep = self._augment(images, timestep, paths[1])
        img0, gt, img1 = map(to_tensor, images)
        return {
            "img0": img0,
            "img1": img1,
            "gt": gt,
            "timestep": torch.tensor(timestep, dtype=torch.float32),
            "img0_path": paths[0],
            "gt_path": paths[1],
            "name": triplet.name or os.path.splitext(triplet.files[1])[0].replace("/", "_"),
        }

    def _augment(self, images: list[Image], timestep: float, path: str) -> tuple[list[Image], float]:
        if self.gt_size is None:
            return augment(images, timestep, None, self.switches)
        height, width = images[0].shape[:2]
        size = min(self.gt_size, self.patch_limit or self.gt_size)
        if size > min(height, width):
            if not self.enlarge:
                raise UserError(too_small(path, (height, width), size))
            size = min(height, width) // CROP_MULTIPLE * CROP_MULTIPLE or min(height, width)
        images, timestep = augment(images, timestep, size, self.switches)
        return [resize(image, self.gt_size, self.gt_size) for image in images], timestep


class TripletDataset(FrameDataset):
    """A fixed list of triplets under one root.

    Args:
        root: folder.
        triplets: triplets, in order.
        origin: what listed them, for messages.
        expected: how many there are in the whole set, where that is known.

    Raises:
        UserError: files are missing; up to ten are named.
    """

    def __init__(
        self, root: str | Path, triplets: Sequence[Triplet], origin: str, expected: int | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        names = dict.fromkeys(name for triplet in triplets for name in triplet.files)
        missing = [name for name in names if not os.path.isfile(os.path.join(root, name))]
        if missing:
            raise UserError(
                f"{origin}: {len(missing)} of {len(names)} frames are not in {root}: {first_names(missing, 3)}"
            )
        self.source = Source(str(root), names)
        self.triplets = list(triplets)
        self.partial = f"{len(self.triplets)} of {expected} samples" if expected and expected != len(triplets) else ""

    def __len__(self) -> int:
        return len(self.triplets)

    def triplet(self, index: int) -> tuple[Any, Triplet]:
        return self.source, self.triplets[index]

    def require_patch(self, size: int) -> None:
        """Check, without decoding, that frames are large enough for training patches of `size`.

        Raises:
            UserError: some are smaller; up to ten are named.
        """
        if not self.enlarge:
            refuse_small([(self.source, t.files[1]) for t in self.triplets], min(size, self.patch_limit or size))


# ------------------------------------------------------------------ lists and folders
def read_list(path: str | Path, example: str, allow_outside: bool | None = None) -> list[tuple[int, str]]:
    """Line numbers and lines of a list file, blank ones left out.

    Args:
        path: path of the list.
        example: example of its lines, for messages.
        allow_outside: take what leads out of the data set's folder; None where no option allows that.

    Raises:
        UserError: there is no such file, nothing in it, or a path in it that leads out of the data set's folder.
    """
    try:
        lines = read_lines(path)
    except UnreadableFile as e:
        raise UserError(f"{e}; expected a list with lines such as '{example}'") from e
    for number, line in () if allow_outside else lines:
        refuse_outside(line.split(), f"{path}:{number}", option=allow_outside is not None)
    if not lines:
        raise UserError(f"{path}: the list is empty; expected lines such as '{example}'")
    return lines


def refuse_outside(paths: Iterable[str], place: str, option: bool = False) -> None:
    """Refuse a listed path that leaves the folder that it is taken from.

    Args:
        place: place of the list and its line, for the message.
        option: whether there is an option ``allow_outside``.

    Raises:
        UserError: a path leads out of the data set's folder.
    """
    for path in paths:
        if ".." in re.split(r"[/\\]", path) or path.startswith(("/", "~", "\\")) or is_url(path):
            advice = "; allow_outside: true takes it, if the list is your own" if option else ""
            raise UserError(f"{place}: '{printable(path)}' leads out of the data set's folder{advice}")


def existing(candidates: Iterable[Path], what: str) -> Path:
    """The first of some folders that is there.

    Raises:
        UserError: none is.
    """
    every = list(candidates)
    for path in every:
        if path.is_dir():
            return path
    raise UserError(f"{every[0]}: there is no such folder. {what}.{advice(str(every[0]))}")


def shrink_by_area(image: Image, height: int, width: int) -> Image:
    """Resized by averaging over areas (OpenCV's INTER_AREA), which is how benchmarks make 2K frames from 4K ones."""
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
