"""Dual-pixel photographs out of focus, 16 bits, and the same in focus."""

from __future__ import annotations

import torch

from ..core.annotations import Count, Positive
from ..core.errors import UserError
from ..core.imaging.normalisation import normalise
from . import DATASETS
from .base import ImageDataset, Item, OnError, Phase
from .pairing import Sample, find_samples
from .sources import IOBackend, as_backend
from .transforms import Color, pad_to_patch, random_crop, random_symmetry, to_tensor, with_channels


@DATASETS.register()
class Dataset_DefocusDeblur_DualPixel_16bit(ImageDataset):  # noqa: N801 - Restormer's name, which its option files use
    """Restormer's defocus data (Abuolaim and Brown, ECCV 2020): ``lq`` is the left half-pixels' picture and the right ones'.

    An item has ``lq``, (6, H, W), and ``gt``, (3, H, W), float32 RGB in [0, 1] at the precision of the files, and ``lq_path``
    (of the left picture), ``gt_path``. Files are paired by name.

    Args:
        dataroot_gt: folder of the pictures in focus.
        dataroot_lqL: folder of the left pictures.
        dataroot_lqR: folder of the right pictures.
        filename_tmpl: stem of an input from that of its ground truth.
        io_backend: ``{type: disk}``, ``{type: lmdb}`` or ``{type: tar}``.
        gt_size: side of the training patch; whole images when omitted. Smaller images are continued by reflection.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        geometric_augs: use the eight orientations. (Turning exchanges no views, as in the original.)
        mean: value subtracted from each channel of the ground truth; both inputs alike.
        std: divisor of each channel.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next one.
        color: ``gray`` for one channel, the gray value in [0, 1]; ``y`` for luma in [16/255, 235/255]; RGB when omitted.
    """

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lqL: str,
        dataroot_lqR: str,
        filename_tmpl: str = "{}",
        io_backend: IOBackend | None = None,
        gt_size: Count | None = None,
        phase: Phase = "train",
        geometric_augs: bool = False,
        mean: list[float] | None = None,
        std: list[Positive] | None = None,
        on_error: OnError = "raise",
        color: Color = None,
    ) -> None:
        super().__init__(on_error)
        backend = as_backend(io_backend)
        left, right = (find_samples(root, dataroot_gt, backend, filename_tmpl) for root in (dataroot_lqL, dataroot_lqR))
        self.samples: list[tuple[Sample, Sample]] = list(zip(left, right, strict=True))
        self.training = phase == "train"
        self.gt_size = gt_size
        self.geometric_augs = geometric_augs
        self.color = color
        self.mean = mean
        self.std = std

    def __len__(self) -> int:
        return len(self.samples)

    def result_path(self, index: int) -> str:
        """The left picture's file."""
        return self.samples[index][0].lq_path

    def load(self, index: int) -> Item:
        """The sample `index`.

        Raises:
            UserError: both views and the ground truth differ in size.
        """
        left, right = self.samples[index]
        assert left.gt is not None and left.gt_name is not None
        gt_path = left.gt.path(left.gt_name)
        images = [s.lq.pixels(s.lq_name) for s in (left, right)] + [left.gt.pixels(left.gt_name)]
        if len({image.shape for image in images}) > 1:
            sizes = ", ".join("x".join(map(str, image.shape[:2])) for image in images)
            raise UserError(f"{gt_path}: left, right and ground truth differ in size: {sizes} (height x width)")
        if self.training and self.gt_size is not None:
            images = random_crop(pad_to_patch(images, self.gt_size, 1), self.gt_size, 1, gt_path)
        if self.training and self.geometric_augs:
            images = random_symmetry(images)
        tensors = [normalise(to_tensor(with_channels(x, self.color)), self.mean, self.std) for x in images]
        return {"lq": torch.cat(tensors[:2]), "gt": tensors[2], "lq_path": left.lq_path, "gt_path": gt_path}
