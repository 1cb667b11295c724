"""Pairs of stereo images: two views of a scene, degraded and as they should be."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np

from ..core.annotations import Count, NonNegative, Positive
from ..core.errors import UserError
from ..core.imaging.image_io import to_float
from ..core.imaging.normalisation import normalise
from ..core.imaging.storage import join
from . import DATASETS
from .base import ImageDataset, Item, OnError, Phase
from .sources import IOBackend, Source, as_backend, first_names, open_source, refuse_small
from .transforms import Color, Image, random_crop, random_flip_rotate, to_tensor, with_channels

ENDINGS = {"gt": (("/hr0", "/hr1"), ("_L", "_R")), "lq": (("/lr0", "/lr1"), ("_L", "_R"))}
"""How the names of left and right view end, without suffix: NAFSSR's layout, and that of its older lists."""


class View(NamedTuple):
    """Where the two views of one image are."""

    source: Source
    left: str
    right: str


@DATASETS.register(aliases=("PairedImageSRLRDataset",))
class PairedStereoImageDataset(ImageDataset):
    """NAFSSR's data (Chu, Chen, Yu, CVPRW 2022): a folder for each scene, with ``hr0.png`` and ``hr1.png`` in `dataroot_gt`,
    ``lr0.png`` and ``lr1.png`` in `dataroot_lq`, left and right; or ``<scene>_L.png``, ``<scene>_R.png`` in both.

    An item has ``lq`` and ``gt``, (6, H, W) float32 in [0, 1]: RGB of the left view, then of the right. Scenes are paired by
    name. Augmentation changes both views alike, so that rows keep corresponding; a flip leaves the left view the left one.

    Args:
        dataroot_gt: folder of the ground truths.
        dataroot_lq: folder of the inputs, or the same.
        io_backend: ``{type: disk}``, ``{type: lmdb}`` or ``{type: tar}``.
        gt_size: side of the training patch in the ground truth; whole images when omitted.
        gt_size_h: height of the training patch, with `gt_size_w`, in place of `gt_size`.
        gt_size_w: width of the training patch.
        scale: ground truth size / input size.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        use_hflip: mirror both views at random.
        use_vflip: turn both upside down at random.
        use_rot: transpose both at random as well, after which columns correspond instead of rows.
        use_flip: another name of `use_hflip`.
        flip_LR: exchange the views at random.
        flip_RGB: one of the six orders of the colour channels at random.
        inverse_RGB: each colour channel at random as its negative.
        naive_inverse_RGB: all of them together at random.
        random_offset: shift the views against each other by up to so many input pixels, at random.
        filename_tmpl: accepted for NAFNet's files; names follow from the layout.
        mean: value subtracted from each channel of a view, or of both views.
        std: divisor of each channel.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next scene.
        color: ``gray`` for one channel of each view, the gray value in [0, 1]; ``y`` for luma in [16/255, 235/255]; RGB when
            omitted.
    """

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str,
        io_backend: IOBackend | None = None,
        gt_size: Count | None = None,
        gt_size_h: int | None = None,
        gt_size_w: int | None = None,
        scale: int = 1,
        phase: Phase = "train",
        use_hflip: bool = False,
        use_vflip: bool = False,
        use_rot: bool = False,
        use_flip: bool = False,
        flip_LR: bool = False,
        flip_RGB: bool = False,
        inverse_RGB: bool = False,
        naive_inverse_RGB: bool = False,
        random_offset: NonNegative = 0,
        filename_tmpl: str = "{}",
        mean: list[float] | None = None,
        std: list[Positive] | None = None,
        on_error: OnError = "raise",
        color: Color = None,
    ) -> None:
        super().__init__(on_error)
        if (gt_size_h is None) != (gt_size_w is None):
            raise UserError("gt_size_h and gt_size_w belong together")
        self.patch = (gt_size_h, gt_size_w) if gt_size_h and gt_size_w else None
        for size in (gt_size, *(self.patch or ())):
            if size is not None and (size <= 0 or size % scale):
                raise UserError(f"gt_size must be a positive multiple of scale {scale}; got {size}")
        backend = as_backend(io_backend)
        gt, lq = (find_views(root, kind, backend) for root, kind in ((dataroot_gt, "gt"), (dataroot_lq, "lq")))
        refuse_unpaired(gt, lq, dataroot_gt, dataroot_lq)
        self.scenes = [(name, lq[name], gt[name]) for name in gt]
        self.gt_size = 0 if self.patch else gt_size
        self.scale = scale
        self.training = phase == "train"
        self.flips = {"hflip": use_hflip or use_flip, "rotate": use_rot, "vflip": use_vflip}
        self.exchange = flip_LR
        self.shuffle = flip_RGB
        self.negative_channels = inverse_RGB
        self.negative = naive_inverse_RGB
        self.offset = random_offset
        self.color = color
        of_one = 3 if color is None else 1
        self.mean = mean * 2 if mean is not None and len(mean) == of_one else mean
        self.std = std * 2 if std is not None and len(std) == of_one else std

    def __len__(self) -> int:
        return len(self.scenes)

    def result_path(self, index: int) -> str:
        """The scene, inside the folder of the inputs."""
        name, lq, _ = self.scenes[index]
        return join(lq.source.root, name)

    def load(self, index: int) -> Item:
        """The sample `index`.

        Raises:
            UserError: the ground truth is not `scale` times as large as the input.
        """
        name, *views = self.scenes[index]
        lq, gt = (to_float(stacked(view)) for view in views)
        paths = [join(view.source.root, name) for view in views]
        height, width = (side * self.scale for side in lq.shape[:2])
        spare = (gt.shape[0] - height, gt.shape[1] - width)
        if spare != (0, 0) and (self.training or not all(0 <= s < self.scale for s in spare)):
            raise UserError(
                f"{paths[1]}: is {gt.shape[0]}x{gt.shape[1]} (height x width); with scale {self.scale} its input "
                f"{paths[0]} needs a ground truth of {height}x{width}. Is scale {self.scale} right?"
            )
        images = [lq, gt[:height, :width]]
        if self.training:
            images = self._augment(images, paths[1])
        tensors = [normalise(to_tensor(with_channels(image, self.color)), self.mean, self.std) for image in images]
        return {"lq": tensors[0], "gt": tensors[1], "lq_path": paths[0], "gt_path": paths[1]}

    def _augment(self, images: list[Image], path: str) -> list[Image]:
        """Everything random, in NAFNet's order."""
        if self.exchange and random.random() < 0.5:  # noqa: S311
            images = [image[..., [3, 4, 5, 0, 1, 2]] for image in images]
        if self.shuffle:
            order = random.sample(range(3), 3)
            images = [image[..., [*order, *(3 + i for i in order)]] for image in images]
        if self.negative_channels:
            flipped = np.array([random.random() < 0.5 for _ in range(3)] * 2)  # noqa: S311
            images = [np.where(flipped, 1 - image, image) for image in images]
        if self.negative and random.random() < 0.5:  # noqa: S311
            images = [1 - image for image in images]
        if self.offset:
            images = self._shifted(images)
        size = self.patch or self.gt_size
        if size:
            images = random_crop(images, size, self.scale, path)
        return random_flip_rotate(images, **self.flips)

    def _shifted(self, images: list[Image]) -> list[Image]:
        """The views moved against each other along their rows, by the same distance in the scene; both lose what is over."""
        by = random.randint(0, self.offset)  # noqa: S311
        left, right = (by, 0) if random.random() < 0.5 else (0, by)  # noqa: S311
        moved = []
        for image, factor in zip(images, (1, self.scale), strict=True):
            a, b, width = left * factor, right * factor, image.shape[1]
            moved.append(np.concatenate([image[:, a : width - b, :3], image[:, b : width - a, 3:]], axis=2))
        return moved

    def require_patch(self, size: int) -> None:
        """Check, without decoding, that images are large enough for square training patches of `size`."""
        refuse_small([(gt.source, gt.left) for _, _, gt in self.scenes], size)


def find_views(root: str, kind: str, backend: IOBackend) -> dict[str, View]:
    """The scenes inside a folder that have both views, by name, sorted.

    Args:
        kind: ``gt`` or ``lq``, whose files are called otherwise.

    Raises:
        UserError: there are none, or one has one view only.
    """
    source = open_source(root, backend)
    for left, right in ENDINGS[kind]:
        names = [key.removesuffix(left) for key in source.files if key.endswith(left)]
        alone = [source.files[name + left] for name in names if name + right not in source.files]
        alone += [
            name
            for key, name in source.files.items()
            if key.endswith(right) and f"{key.removesuffix(right)}{left}" not in source.files
        ]
        if alone:
            raise UserError(f"{root}: {len(alone)} views lack the other one of their scene: {first_names(alone)}")
        if names:
            return {name: View(source, source.files[name + left], source.files[name + right]) for name in names}
    first, second = (f"<scene>{left}.png, <scene>{right}.png" for left, right in ENDINGS[kind])
    raise UserError(f"{root}: there are no pairs of views in it; it needs {first} (or {second})")


def refuse_unpaired(gt: dict[str, View], lq: dict[str, View], gt_root: str, lq_root: str) -> None:
    """Refuse scenes without a ground truth or without an input.

    Raises:
        UserError: a scene is in one of the two folders only.
    """
    for found, others, here, there in ((gt, lq, gt_root, lq_root), (lq, gt, lq_root, gt_root)):
        if alone := [name for name in found if name not in others]:
            raise UserError(f"{len(alone)} of {len(found)} scenes in {here} are not in {there}: {first_names(alone)}")


def stacked(view: View) -> Image:
    """Both views of a scene, (H, W, 6).

    Raises:
        UserError: they differ in size.
    """
    left, right = (view.source.pixels(name) for name in (view.left, view.right))
    if left.shape != right.shape or left.dtype != right.dtype:
        where = view.source.path(view.right)
        raise UserError(f"{where}: is {right.shape} {right.dtype}, but the left view {left.shape} {left.dtype}")
    return np.concatenate([left, right], axis=2)
