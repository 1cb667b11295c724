"""Pictures and the radiance they were taken of: single-image inverse tone mapping."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..core.annotations import Count, Positive
from ..core.errors import UserError
from ..core.imaging.image_io import to_float
from ..core.imaging.normalisation import normalise
from ..core.imaging.transfer import Log1p, TransferBlock, as_transfer
from . import DATASETS
from .base import ImageDataset, Item, OnError
from .camera import PROMPTS, SCENE_KEY, Curve, CurveChoice, decode_prompt
from .pairing import Sample, find_samples, refuse_template
from .photometric import linearised
from .radiance import RADIANCE_READERS, AlignedRadiance, read_floats, read_radiance
from .source import ArchivePlace
from .sources import IOBackend, Source, as_backend, first_names, open_source
from .transforms import Image, pad_to_patch, random_crop, random_flip_rotate, random_symmetry, to_tensor

RECOVERED = 1000.0
"""Factor in the files of `dataroot_gt_recover`, on log1p-encoded values."""


@DATASETS.register(name="LDR_HDR_PairedDataset", aliases=("LDR_HDR_HDR_RECOVER_PairedDataset",))
class LdrHdrDataset(ImageDataset):
    """Pictures (LDR) and linear radiance (HDR) with the same names in two folders or LMDB databases.

    An item has ``lq``, the picture with its camera's curve undone (see `datasets.camera`), and ``gt``, the radiance, both in
    the network's space (see `core.imaging.transfer`): (3, H, W) float32 RGB, 1 at the peak radiance; ``lq`` is in [0, 1].
    Besides, ``lq_path`` and ``gt_path``; ``gt_recover``, another network's estimate of ``gt``, with `dataroot_gt_recover`.

    Pictures keep the precision of their files, 8 or 16 bits. Radiance comes from .hdr, .exr, .pfm, .npy (RGB), float TIFF, or
    16-bit PNG and TIFF. In training, a random patch, turned as the options say; else whole images.

    Args:
        dataroot_lq: folder of the pictures.
        dataroot_gt: folder of the radiance; without it items have no ``gt``, and pictures can be tested only.
        dataroot_dgain: folder of a text file for each picture, with the lines ``dgain: 2.0`` and ``gamma: 1.8``.
        dataroot_alignratio: folder of the numbers that 16-bit ground truths are divided by, in the layout of the NTIRE HDR
            challenges: ``0000_alignratio.npy`` of ``0000_gt.png``. It may be `dataroot_gt`, and that may be `dataroot_lq` with
            ``filename_tmpl: "{}_medium"``: what belongs together has the same id, and other images are left out.
        dataroot_gt_recover: folder of estimates: .npy of the log1p encoding times 1000 (``name.npy`` or ``name_log_hdr.npy``,
            RGB), or radiance in the other formats. As in the original, padding then does not repeat the last line, and
            `geometric_augs` are a horizontal flip, a vertical flip and a transposition, each at 1/2.
        dgain: gain of every picture, instead of `dataroot_dgain`.
        gamma: exponent of every picture, instead of `dataroot_dgain`.
        estimate_dgain: guess the gain of each picture from the picture alone, with `gamma` or 2.2 for the exponent. (The
            prompt files of the AIM data were fitted to the ground truth, which nobody has when it matters.)
        scene_key: log-average radiance relative to the peak that the guess takes every scene to have.
        transfer: how radiance is encoded: ``log1p``, ``mu_law``, ``pq``, ``pu21``, or a block with their options.
        gt_scale: factor of the values in the files of `dataroot_gt`, so that they are in the units of the transfer's peak
            (1000, unless it says otherwise); needed for 16-bit integers without ratios, which span [0, 1] before.
        above_peak: radiance beyond the peak: ``keep`` it, encoded above 1, or ``clip`` it.
        meta_info_file: list of the radiance files to use (``name.hdr (h,w,c)`` per line).
        filename_tmpl: stem of the picture from that of the radiance file, ``{}_ldr``.
        io_backend: ``{type: disk}`` (also remote folders, as ``s3://bucket/folder``), ``{type: lmdb}`` or
            ``{type: tar}`` for all folders.
        gt_size: side of the training patch; smaller images are continued by reflection. Whole images when omitted.
        geometric_augs: turn training patches at random, by one of the eight symmetries of the square.
        scale: accepted; must be 1.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        mean: value subtracted from each channel of ``lq`` and ``gt``.
        std: divisor of each channel of them.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
        with_dgain: give each sample's ``dgain`` and ``gamma`` as well, on which a network may be conditioned
            (``train.inputs: [lq, dgain]`` of RestorationModel).
        recursive: search the sub-folders of folders that have pictures themselves; in test sets not, when omitted.
        on_device: undo, in training, the curve and encode whole batches where they are trained with: a GPU takes a load off
            the loading processes. The numbers are the same up to rounding.
    """

    def __init__(
        self,
        dataroot_lq: str,
        dataroot_gt: str | None = None,
        dataroot_dgain: str | None = None,
        dataroot_gt_recover: str | None = None,
        dataroot_alignratio: str | None = None,
        dgain: float | None = None,
        gamma: float | None = None,
        estimate_dgain: bool = False,
        scene_key: float = SCENE_KEY,
        transfer: TransferBlock = "log1p",
        gt_scale: float | None = None,
        above_peak: Literal["keep", "clip"] = "keep",
        meta_info_file: str | None = None,
        filename_tmpl: str = "{}",
        io_backend: IOBackend | None = None,
        gt_size: Count | None = None,
        geometric_augs: bool = False,
        scale: int = 1,
        phase: Literal["train", "val", "test"] = "train",
        mean: list[float] | None = None,
        std: list[Positive] | None = None,
        on_error: OnError = "raise",
        with_dgain: bool = False,
        recursive: bool | None = None,
        on_device: bool = False,
    ) -> None:
        super().__init__(on_error)
        self.with_dgain = with_dgain
        self.training = phase == "train"
        self.on_device = on_device and self.training
        # Refuse options that do not go together.
        if scale != 1:
            raise UserError(f"scale {scale}: pictures and radiance have the same size here; scale is 1")
        if self.training and dataroot_gt is None:
            raise UserError("dataroot_gt is missing: the folder of HDR ground truths, without which nothing is trained")
        if gt_size is not None and gt_size <= 0:
            raise UserError(f"gt_size: a positive number of pixels is expected, not {gt_size}")
        if gt_scale is not None and not 0 < gt_scale < float("inf"):
            raise UserError(f"gt_scale: a positive number is expected, not {gt_scale}")
        self.curves = CurveChoice(dgain, gamma, estimate_dgain, scene_key)
        if self.curves.needs_own and dataroot_dgain is None:
            raise UserError(
                "dataroot_dgain is missing: the folder of prompt files with dgain and gamma of each picture. Or give dgain and "
                "gamma for all of them, or estimate_dgain: true"
            )
        refuse_template(filename_tmpl, "radiance file")
        # The files: pictures, radiance, and what else belongs to each picture.
        backend = as_backend(io_backend)
        truth: str | AlignedRadiance | None = dataroot_gt
        if dataroot_alignratio is not None:
            if dataroot_gt is None or backend.type != "disk":
                raise UserError("dataroot_alignratio goes with dataroot_gt, in folders")
            truth = AlignedRadiance(dataroot_gt, dataroot_alignratio)
        self.samples: list[Sample] = find_samples(
            *(dataroot_lq, truth, backend, filename_tmpl, meta_info_file),
            gt_readers=RADIANCE_READERS,
            surplus=dataroot_alignratio is not None,
            recursive=phase != "test" if recursive is None else recursive,
            on_error=on_error,
        )
        self.prompts: list[str] = []
        if self.curves.needs_own and dataroot_dgain is not None:
            self.prompt_source = open_source(dataroot_dgain, backend, PROMPTS, part="dgain")
            self.prompts = partners(self.prompt_source, self.samples, "dataroot_dgain", "prompt file")
        self.recovered: list[str] = []
        if dataroot_gt_recover is not None:
            self.recovered_source = open_source(dataroot_gt_recover, backend, RADIANCE_READERS, part="gt_recover")
            self.recovered = partners(
                self.recovered_source, self.samples, "dataroot_gt_recover", "estimate", ending="_log_hdr"
            )
        # What is done to them.
        self.encoder = as_transfer(transfer)
        self.transfer = self.encoder
        self.gt_scale = gt_scale
        self.above_peak = above_peak
        self.gt_size = gt_size
        self.geometric_augs = geometric_augs
        self.mean = mean
        self.std = std

    def __len__(self) -> int:
        return len(self.samples)

    def result_path(self, index: int) -> str:
        """The input's file."""
        return self.samples[index].lq_path

    def stored_at(self, index: int) -> ArchivePlace | None:
        """The picture's place."""
        sample = self.samples[index]
        return sample.lq.place(sample.lq_name)

    def load(self, index: int) -> Item:
        # The input and the curve that makes it linear.
        sample = self.samples[index]
        item: Item = {"lq_path": self.result_path(index)}
        images = [sample.lq.pixels(sample.lq_name)]
        curve = self.curves.of(images[0], self._prompt(index))
        # The target, if there is one.
        if sample.gt is not None and sample.gt_name is not None:
            item["gt_path"] = sample.gt.path(sample.gt_name)
            images.append(read_radiance(sample.gt, sample.gt_name, self.gt_scale))
            refuse_mismatch(images, [item["lq_path"], item["gt_path"]])
        if self.with_dgain:
            item["dgain"], item["gamma"] = np.float32(curve.dgain), np.float32(curve.gamma)
        # The recovered image, encoded already where a network has written it.
        encoded = False
        if self.recovered:
            name = self.recovered[index]
            encoded = name.lower().endswith(".npy")
            images.append((read_floats if encoded else read_radiance)(self.recovered_source, name))
            item["gt_recover_path"] = self.recovered_source.path(name)
            refuse_mismatch([images[0], images[-1]], [item["lq_path"], item["gt_recover_path"]])
        if self.training:  # before encoding, which is pointwise and much slower
            images = self._augment(images, item["lq_path"])
        # Encoding: on the GPU for whole batches, or here.
        if self.on_device:
            item |= {"lq": to_tensor(images[0]), "gt": to_tensor(images[1])}
            item["curve"] = torch.tensor([curve.dgain, curve.gamma])
        else:
            item["lq"] = self._encoded(curve.linearise(to_float(images[0]), self.encoder.peak))
            if "gt_path" in item:
                gt = images[1]
                item["gt"] = self._encoded(np.minimum(gt, self.encoder.peak) if self.above_peak == "clip" else gt)
        if self.recovered:
            item["gt_recover"] = self._recovered(images[-1]) if encoded else self._encoded(images[-1])
        return item

    def finish(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with ``lq`` and ``gt`` in the network's space, where that is left to its device."""
        if not self.on_device:
            return dict(batch)
        gt = batch["gt"].clamp(max=self.encoder.peak) if self.above_peak == "clip" else batch["gt"]
        both = {"lq": linearised(batch["lq"], batch["curve"], self.encoder.peak), "gt": gt}
        encoded = {k: normalise(self.encoder.encode(v), self.mean, self.std) for k, v in both.items()}
        return {**{k: v for k, v in batch.items() if k != "curve"}, **encoded}

    def _prompt(self, index: int) -> Curve | None:
        if not self.prompts:
            return None
        name = self.prompts[index]
        return decode_prompt(self.prompt_source.read(name), self.prompt_source.path(name))

    def _augment(self, images: Sequence[Image], path: str) -> list[Image]:
        """A random patch, turned at random; the same of all images."""
        changed = list(images)
        if self.gt_size is not None:
            changed = pad_to_patch(changed, self.gt_size, 1, mode="reflect" if self.recovered else "symmetric")
            changed = random_crop(changed, self.gt_size, 1, path)
        if not self.geometric_augs:
            return changed
        return random_flip_rotate(changed, True, True) if self.recovered else random_symmetry(changed)

    def _encoded(self, radiance: Image) -> Tensor:
        return normalise(to_tensor(self.encoder.encode(radiance)), self.mean, self.std)

    def _recovered(self, stored: Image) -> Tensor:
        """``gt_recover`` from the original's files."""
        encoded = stored / np.float32(RECOVERED)
        if isinstance(self.encoder, Log1p) and self.encoder.peak == Log1p().peak:
            return normalise(to_tensor(encoded), self.mean, self.std)
        return self._encoded(Log1p().decode(encoded))


def partners(source: Source, samples: Sequence[Sample], option: str, what: str, ending: str = "") -> list[str]:
    """The name in `source` of what belongs to each picture: its key, or its key and `ending`.

    Raises:
        UserError: some have none; up to ten are named.
    """
    keys = [os.path.splitext(s.lq_name)[0] for s in samples]
    found = [source.files.get(k) or source.files.get(k + ending) for k in keys]
    missing = [s.lq_name for s, name in zip(samples, found, strict=True) if name is None]
    if missing:
        raise UserError(
            f"{option}: {len(missing)} of {len(samples)} pictures have no {what} in {source.root}: {first_names(missing)}"
        )
    return [name for name in found if name is not None]


def refuse_mismatch(images: Sequence[Image], paths: Sequence[str]) -> None:
    """Refuse two images of different sizes.

    Raises:
        UserError: the images differ in size.
    """
    (a, b), (first, second) = ([f"{i.shape[0]}x{i.shape[1]}" for i in images], paths)
    if a != b:
        raise UserError(f"{second}: is {b} (height x width), but {first} is {a}; they must have the same size")
