"""Images in pairs (degraded input, ground truth), and inputs alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from torch import Tensor

from ..core.annotations import Count, Positive, Range
from ..core.errors import UserError
from ..core.imaging.image_io import to_float
from ..core.imaging.normalisation import normalise
from . import DATASETS
from .base import ImageDataset, Item, OnError, Phase
from .denoising import white_noise
from .kept import little
from .pairing import Sample, as_roots, find_roots, find_samples, refuse_template
from .source import ArchivePlace
from .sources import IOBackend, Source, as_backend, refuse_small
from .transforms import (
    Color,
    Image,
    gray,
    pad_to_patch,
    random_crop,
    random_flip_rotate,
    random_symmetry,
    resize,
    to_tensor,
    with_channels,
)
from .underwater_sets import PairedLayout, SingleLayout, paired_folders, single_folders

DENOISING = ("denoising_gray", "denoising_color")
NonNegativeNumber = Annotated[float, Range(least=0)]
Task = Literal["SR", "CAR", "denoising_gray", "denoising_color"]
"""Tasks of forks' copies of `PairedImageDataset`: pairs; pairs in gray; one clean image and noise, in gray or in colour."""


@DATASETS.register(aliases=("Dataset_PairedImage", "DeblurPairedDataset"))
class PairedImageDataset(ImageDataset):
    """Pairs of images with the same name in two folders (or LMDB databases, or remote folders).

    An item has ``lq`` and ``gt``, (3, H, W) float32 RGB in [0, 1], at the precision of the files (8 or 16 bits), and
    ``lq_path``, ``gt_path``. In training, a random patch, flipped and turned as the options say; else whole images.

    Args:
        dataroot_gt: folder(s) of the ground truths; without it items have no ``gt``.
        dataroot_lq: folder(s) of the inputs, as many.
        dataroot: folder(s) with the sub-folders ``input`` and ``gt`` instead, or those of `layout`.
        layout: which published dataset lies in `dataroot`, as it was downloaded: see `datasets.underwater_sets`.
        dataroot_gt_2: folder(s) of second ground truths with the names of the first, for a network's second output; items
            then have ``gt_2``. With `resize`, this may be `dataroot_gt` itself.
        scale_gt_2: size of a second ground truth / size of the first.
        weights: share of each root among the samples drawn in training; by number of files when omitted.
        meta_info_file: list of the files to use (``name.png (h,w,c)`` per line); one root only.
        meta_info: another name of it.
        filename_tmpl: stem of the input from that of the ground truth, ``{}x4``.
        io_backend: ``{type: disk}`` (also remote folders, as ``s3://bucket/folder``), ``{type: lmdb}`` or ``{type: tar}``;
            ``cache`` in it is the GiB of decoded images to keep in memory: in training up to 0.25 when omitted, 0 for none.
        gt_size: side of the training patch in the ground truth; whole images when omitted.
        scale: ground truth size / input size.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        use_hflip: flip at random, left to right.
        use_flip: NAFNet's name of it.
        use_rot: turn at random, by vertical flip and transposition.
        geometric_augs: Restormer's augmentation instead: one of the eight symmetries of the square. As there, images
            smaller than the patch are then continued by reflection instead of refused.
        resize: [height, width] to which ground truths are resized first, and inputs to it divided by scale.
        color: ``gray`` for one channel, the gray value in [0, 1]; ``y`` for luma in [16/255, 235/255]; RGB when omitted.
        mean: value subtracted from each channel.
        std: divisor of each channel.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
        task: name that forks give the kind of pairs: ``CAR`` for pairs in gray of the files' bits; ``denoising_color``
            and ``denoising_gray`` for ``lq`` that is ``gt`` plus white Gaussian noise (not clipped; outside training always
            the same), whatever lies in `dataroot_lq`.
        noise: standard deviation of that noise, in 1/255.
        recursive: search the sub-folders of folders that have images themselves; in test sets not, when omitted.
    """

    def __init__(
        self,
        dataroot_gt: str | list[str] | None = None,
        dataroot_lq: str | list[str] | None = None,
        dataroot: str | list[str] | None = None,
        layout: PairedLayout | None = None,
        dataroot_gt_2: str | list[str] | None = None,
        scale_gt_2: int = 2,
        weights: list[float] | None = None,
        meta_info_file: str | None = None,
        meta_info: str | None = None,
        filename_tmpl: str = "{}",
        io_backend: IOBackend | None = None,
        gt_size: Count | None = None,
        scale: int = 1,
        phase: Phase = "train",
        use_hflip: bool = False,
        use_flip: bool = False,
        use_rot: bool = False,
        geometric_augs: bool = False,
        resize: list[int] | None = None,
        color: Color = None,
        mean: list[float] | None = None,
        std: list[Positive] | None = None,
        on_error: OnError = "raise",
        task: Task | None = None,
        noise: NonNegativeNumber | None = None,
        recursive: bool | None = None,
    ) -> None:
        super().__init__(on_error)
        self.recursive = (phase != "test" or layout is not None) if recursive is None else recursive
        self.check_options({"task": task, "noise": noise, "dataroot_gt": dataroot_gt, "scale": scale, "color": color})
        self.noise = noise if task in DENOISING else None
        if task in DENOISING:
            dataroot_lq, filename_tmpl = dataroot_gt, "{}"
        self.quantised = task in ("CAR", "denoising_gray")
        # The folders of the pairs.
        if layout is None:
            roots = find_roots(dataroot, dataroot_gt, dataroot_lq)
        elif dataroot_gt is not None or dataroot_lq is not None:
            raise UserError(f"layout {layout} describes what is in dataroot; leave out dataroot_gt and dataroot_lq")
        else:
            roots = paired_folders(layout, as_roots(dataroot, "dataroot"), training=phase == "train")
        meta = meta_info_file or meta_info
        if meta and len(roots) > 1:
            raise UserError("meta_info_file lists the files of one root; there are several")
        # The files in them.
        refuse_template(filename_tmpl)
        backend = as_backend(io_backend, little() if phase == "train" else None)
        groups = [self.find(lq, gt, backend, filename_tmpl, meta) for lq, gt in roots]
        self.samples: list[Sample] = [sample for group in groups for sample in group]
        self.second: list[tuple[Source, str]] = []
        if dataroot_gt_2 is not None:
            self.second = find_second(roots, as_roots(dataroot_gt_2, "dataroot_gt_2"), backend, meta)
        self.scale_gt_2 = scale_gt_2
        self.sampling_weights = shares([len(g) for g in groups], weights)
        for size in (gt_size, *(resize or ())):
            if size is not None and (size <= 0 or size % scale):
                raise UserError(f"gt_size and resize must be positive multiples of scale {scale}; got {size}")
        # What is done to them.
        self.gt_size = gt_size
        self.scale = scale
        self.training = phase == "train"
        self.hflip = use_hflip or use_flip
        self.rotate = use_rot
        self.geometric_augs = geometric_augs
        self.resize = resize
        self.color = color
        self.mean = mean
        self.std = std

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        """Refuse a `task` whose other options do not go with it.

        Raises:
            UserError: an option is missing that `task` needs, or one is given that it does not use.
        """
        task, noise = options.get("task"), options.get("noise")
        if task in DENOISING and (noise is None or options.get("dataroot_gt") is None or options.get("scale", 1) != 1):
            raise UserError(f"task: {task} needs dataroot_gt, clean images, the noise to add (in 1/255), and scale 1")
        if task not in DENOISING and noise is not None:
            raise UserError(f"noise: is added where task is {' or '.join(DENOISING)}; it is {task}")
        if task in ("CAR", "denoising_gray") and options.get("color") is not None:
            raise UserError(f"task: images of {task} are gray already; leave out color")

    @property
    def reference(self) -> GroundTruths | None:
        """The ground truths, as what metrics of whole sets compare outputs with; None without."""
        return GroundTruths(self.samples) if self.samples and self.samples[0].gt is not None else None

    def find(self, lq: str, gt: str | None, backend: IOBackend, template: str, meta: str | None) -> list[Sample]:
        """The samples of one root."""
        return find_samples(lq, gt, backend, template, meta, recursive=self.recursive, on_error=self.on_error)

    def __len__(self) -> int:
        return len(self.samples)

    def result_path(self, index: int) -> str:
        """The input's file."""
        return self.samples[index].lq_path

    def stored_at(self, index: int) -> ArchivePlace | None:
        """The input's place; the ground truth lies beside it, or at the same place of archives of its own."""
        sample = self.samples[index]
        return sample.lq.place(sample.lq_name)

    def load(self, index: int) -> Item:
        sample = self.samples[index]
        item: Item = {"lq_path": self.result_path(index)}
        cut = self.training and self.gt_size is not None and not self.resize and not self.geometric_augs
        images: list[Any] = [(sample.lq.to_cut if cut else sample.lq.pixels)(sample.lq_name)]
        if sample.gt is not None and sample.gt_name is not None:
            item["gt_path"] = sample.gt.path(sample.gt_name)
            images.append((sample.gt.to_cut if cut else sample.gt.pixels)(sample.gt_name))
        if self.second:
            source, name = self.second[index]
            item["gt_2_path"] = source.path(name)
            images.append((source.to_cut if cut else source.pixels)(name))
        images = self._fit(images, item)
        if self.training:
            images = self._augment(images, item)
        for key, image in zip(("lq", "gt", "gt_2"), images, strict=False):
            pixels = quantised_gray(image) if self.quantised else with_channels(image, self.color)
            tensor = to_tensor(pixels)
            if key == "lq" and self.noise is not None:
                drawn = white_noise(tensor.shape, self.noise, fixed=not self.training)
                tensor = tensor + drawn.flip(0)  # OpenCV's order of colours, in which the original adds it
            item[key] = normalise(tensor, self.mean, self.std)
        return item

    def _fit(self, images: list[Image], item: Item) -> list[Image]:
        """Resized as the options say, and checked for sizes that belong together."""
        if self.resize:
            height, width = self.resize
            factor = self.scale_gt_2
            sizes = [(height // self.scale, width // self.scale), (height, width), (height * factor, width * factor)]
            images = [resize(image, *size) for image, size in zip(images, sizes, strict=False)]
        if len(images) == 1:
            return images
        lq, gt, *second = images
        height, width = (side * self.scale for side in lq.shape[:2])
        spare = (gt.shape[0] - height, gt.shape[1] - width)
        # Benchmark inputs were made from ground truths cut to a multiple of the scale; the files were often left uncut.
        if spare != (0, 0) and (self.training or not all(0 <= s < self.scale for s in spare)):
            raise UserError(
                f"{item['gt_path']}: is {gt.shape[0]}x{gt.shape[1]} (height x width); with scale {self.scale} its input "
                f"{item['lq_path']} needs a ground truth of {height}x{width}. Is scale {self.scale} right?"
            )
        k = self.scale_gt_2
        for image in second:
            if image.shape[:2] != (k * gt.shape[0], k * gt.shape[1]):
                raise UserError(
                    f"{item['gt_2_path']}: is {image.shape[0]}x{image.shape[1]} (height x width); with scale_gt_2 {k} "
                    f"{item['gt_path']} needs one of {k * gt.shape[0]}x{k * gt.shape[1]}; correct scale_gt_2, or give resize"
                )
        return [lq, within(gt, height, width), *(within(image, k * height, k * width) for image in second)]

    def _augment(self, images: list[Image], item: Item) -> list[Image]:
        """A random patch under a random symmetry."""
        scale = self.scale if len(images) > 1 else 1
        gt = min(1, len(images) - 1)
        if self.gt_size is not None:
            size = self.gt_size * scale // self.scale
            if self.geometric_augs:
                images = pad_to_patch(images, size, scale, gt)
            images = random_crop(images, size, scale, item.get("gt_path") or item["lq_path"], gt)
        if self.geometric_augs:
            return random_symmetry(images)
        return random_flip_rotate(images, self.hflip, self.rotate)

    def require_patch(self, size: int) -> None:
        """Check, without decoding, that images are large enough for training patches of `size`, in ground-truth pixels.

        Raises:
            UserError: some are smaller; up to ten are named.
        """
        self._require_scale()
        if size % self.scale:
            raise UserError(f"the patch size {size} must be a multiple of scale {self.scale}")
        if self.geometric_augs:
            return
        if self.resize:
            if size > min(self.resize):
                raise UserError(f"gt_size {size} is larger than the size {self.resize} that images are resized to")
            return
        refuse_small([(s.lq, s.lq_name) for s in self.samples], size // self.scale)

    def _require_scale(self) -> None:
        """Look, in the headers of the first pair, whether the scale is the files' own: else patches will not fit either."""
        sample = self.samples[0]
        if self.resize or sample.gt is None or sample.gt_name is None:
            return
        lq, gt = sample.lq.size(sample.lq_name), sample.gt.size(sample.gt_name)
        if lq is None or gt is None:
            return
        actual = [round(g / q) for g, q in zip(gt, lq, strict=True)]
        k = actual[0]
        if k == actual[1] != self.scale and all(0 <= g - k * q < k for g, q in zip(gt, lq, strict=True)):
            raise UserError(
                f"scale is {self.scale}, but {sample.gt.path(sample.gt_name)} is {gt[0]}x{gt[1]} (height x width), "
                f"{actual[0]} times as large as its input, which is {lq[0]}x{lq[1]}: set scale: {actual[0]}"
            )


@DATASETS.register()
class SingleImageDataset(PairedImageDataset):
    """Images without ground truth: ``lq`` (3, H, W) float32 RGB in [0, 1], and ``lq_path``.

    Args:
        dataroot_lq: folder(s) of images.
        layout: which published test set lies in `dataroot_lq`, as it was downloaded: see `datasets.underwater_sets`.
        meta_info_file: list of the files to use, one name per line.
        io_backend: ``{type: disk}``, ``{type: lmdb}`` or ``{type: tar}``.
        scale: accepted for BasicSR's files; without ground truth it changes nothing.
        color: ``gray`` for one channel, the gray value in [0, 1]; ``y`` for luma in [16/255, 235/255]; RGB when omitted.
        mean: value subtracted from each channel.
        std: divisor of each channel.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next one.
        recursive: search the sub-folders of folders that have images themselves; only those of a `layout` when omitted.
    """

    def __init__(
        self,
        dataroot_lq: str | list[str],
        layout: SingleLayout | None = None,
        meta_info_file: str | None = None,
        io_backend: IOBackend | None = None,
        scale: int = 1,
        color: Color = None,
        mean: list[float] | None = None,
        std: list[Positive] | None = None,
        on_error: OnError = "raise",
        recursive: bool | None = None,
    ) -> None:
        if layout is not None:
            dataroot_lq = single_folders(layout, as_roots(dataroot_lq, "dataroot_lq"))
        super().__init__(
            dataroot_lq=dataroot_lq,
            meta_info_file=meta_info_file,
            io_backend=io_backend,
            scale=scale,
            phase="test",
            color=color,
            mean=mean,
            std=std,
            on_error=on_error,
            recursive=layout is not None if recursive is None else recursive,
        )


class GroundTruths:
    """The ground truths of pairs as images for metrics of whole sets, see `datasets.base.Pictures`."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.files = [(s.gt, s.gt_name) for s in samples if s.gt is not None and s.gt_name is not None]
        named = "\n".join(source.path(name) for source, name in self.files)
        self.id = f"ground-truths-{hashlib.sha256(named.encode()).hexdigest()[:16]}"

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int, flip: bool = False) -> Tensor:
        """Ground truth `index`, (3, H, W) in [-1, 1], as it is or mirrored."""
        source, name = self.files[index]
        image = to_tensor(source.pixels(name)) * 2 - 1
        return image.flip(2) if flip else image


def within(image: Image, height: int, width: int) -> Image:
    """The upper left part of an image; the image itself, which may not be decoded yet, where that is all of it."""
    return image if image.shape[:2] == (height, width) else image[:height, :width]


def quantised_gray(image: Image) -> Image:
    """(H, W, 3) integers or floats to gray, (H, W, 1) float32 in [0, 1], on the levels that files of their bits have."""
    value = gray(to_float(image))
    if image.dtype.kind != "u":
        return value
    most = np.float32(np.iinfo(image.dtype).max)
    return np.rint(value * most) / most


def find_second(
    roots: list[tuple[str, str | None]], second: list[str], backend: IOBackend, meta: str | None
) -> list[tuple[Source, str]]:
    """Source and name of the second ground truths, in the order of the first.

    Raises:
        UserError: there are no first ones, or the two do not go together.
    """
    if len(second) != len(roots) or any(gt is None for _, gt in roots):
        raise UserError("dataroot_gt_2: needs as many folders as there are of first ground truths")
    found = []
    for (_, gt), root in zip(roots, second, strict=True):
        assert gt is not None
        # Names correspond as those of inputs and ground truths do, so both lists have the same order.
        found += [(s.gt, s.gt_name) for s in find_samples(gt, root, backend, meta_file=meta, part="gt")]
    return [(source, name) for source, name in found if source is not None and name is not None]


def shares(counts: list[int], weights: list[float] | None) -> np.ndarray | None:
    """Each sample's share of the draws, where roots with `counts` samples get shares in proportion to `weights`.

    Raises:
        UserError: `weights` are not as many as the folders, or are negative, or all 0.
    """
    if weights is None:
        return None
    if len(weights) != len(counts) or min(weights) < 0 or sum(weights) <= 0:
        raise UserError(f"weights: {len(counts)} folders need as many non-negative numbers, not all 0; got {weights}")
    per_sample = [np.full(n, w / n) for n, w in zip(counts, weights, strict=True)]
    return np.concatenate(per_sample) / sum(weights)
