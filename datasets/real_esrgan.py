"""Good photographs, and how they get degraded: Real-ESRGAN's training data (Wang et al. 2021, arXiv:2107.10833)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from torch import Tensor

from ..core.annotations import Count, Share, given_otherwise
from ..core.degradations import DEGRADATIONS
from ..core.degradations.draws import Draws
from ..core.degradations.engines import EngineName, make_engine
from ..core.degradations.filters import usm_sharp
from ..core.degradations.limits import Factors, JpegTable, KernelType, OddSize, OddSizes, Probabilities, hold, one_each
from ..core.degradations.operations import DegradationList
from ..core.degradations.second_order import (
    KERNEL_PROB,
    KERNEL_TYPES,
    BlurOptions,
    SecondOrder,
    cut_pair,
    degrade_one,
    draw_kernels,
)
from ..core.errors import UserError
from ..core.imaging.image_io import to_float
from ..core.imaging.storage import read_lines
from . import DATASETS
from .base import ImageDataset, Item, OnError, Phase
from .paired import PairedImageDataset, shares
from .pairing import Sample, as_roots, find_samples
from .photographs import shipped_photographs, shrink
from .source import ArchivePlace
from .sources import IOBackend, Source, as_backend, open_source, pass_over_missing
from .transforms import pad_to_patch, random_crop, random_flip_rotate, to_tensor

SMALLEST_KERNEL = 7
OF_CHAIN = frozenset(
    {"kernel_range", "final_sinc_prob"}.union(
        f"{key}{stage}"
        for key in (
            "blur_kernel_size",
            "kernel_list",
            "kernel_prob",
            "sinc_prob",
            "blur_sigma",
            "betag_range",
            "betap_range",
        )
        for stage in ("", "2")
    )
)
"""Options that only the chain looks at, here or in the model."""


@DATASETS.register()
class RealESRGANDataset(ImageDataset):
    """Photographs and what degrades them, drawn for every sample from its own seed.

    An item has ``gt`` (3, H, W) float32 RGB in [0, 1], ``gt_path``, and the sample's ``seed``. Without `degradation` and
    `degradations`, the model degrades: there are ``kernel1``, ``kernel2``, ``sinc_kernel`` (k, k) besides, and ``gt`` is
    `pad_size` large. With one of these, the loading process degrades: there are ``lq`` and ``lq_path`` besides, and ``gt`` is
    `gt_size` large, or whole outside training, where draws are fixed by the index and nothing is cut.

    The chain draws the same numbers in either place. Where the original had a pool of `queue_size` samples to mix batches
    from, every sample has its own draws here, and there is no pool.

    Args:
        dataroot_gt: folder(s) of photographs, or LMDB databases.
        source: ``skimage`` for photographs that come with scikit-image instead, others in training than else.
        weights: share of each root among the samples drawn in training; by number of files when omitted.
        meta_info: list of the files to use, one name per line; one root only.
        io_backend: ``{type: disk}`` (also remote folders), ``{type: lmdb}`` or ``{type: tar}``.
        gt_size: side of the training patch that is cut after the degradation; `pad_size` when omitted.
        pad_size: side of what is degraded in training; smaller photographs are continued by reflection.
        scale: size of ``gt`` / size of ``lq``.
        phase: ``train``, or ``val`` and ``test``.
        shorter_side: photographs are first shrunk until their shorter side has so many pixels, if it is longer.
        renditions: how many times each photograph occurs, degraded in other ways.
        use_hflip: flip at random, left to right.
        use_rot: turn at random, by vertical flip and transposition.
        degradation: Real-ESRGAN's chain in the loading process; ``{}`` has its public values.
        degradations: another recipe there: a list of operations.
        engine: what degrades there: ``opencv`` with real codecs, or ``tensor``, which a model on a GPU uses.
        jpeg_table: quantisation table of the tensor engine's JPEG: ``basicsr`` as the public weights were trained with, or
            ``standard``.
        usm: sharpen what is ``degraded``, or ``both`` that and ``gt``; with the degradation in the loading process only.
        blur_kernel_size: largest side of the first blur's kernel, and of the final sinc's; odd sides from 7 on are drawn.
        kernel_range: least and largest side of all kernels instead.
        kernel_list: types of the first blur's kernel, see `core.degradations.kernels.random_mixed_kernels`.
        kernel_prob: probabilities of those types.
        sinc_prob: probability of a sinc as the first blur.
        blur_sigma: range of standard deviations of the first blur, in pixels.
        betag_range: range of generalized Gaussians' exponents.
        betap_range: range of plateaus' exponents.
        blur_kernel_size2: largest side of the second blur's kernel; odd sides from 7 on are drawn.
        kernel_list2: types of the second blur's kernel.
        kernel_prob2: probabilities of those types.
        sinc_prob2: probability of a sinc as the second blur.
        blur_sigma2: range of standard deviations of the second blur, in pixels.
        betag_range2: range of generalized Gaussians' exponents in the second blur.
        betap_range2: range of plateaus' exponents in the second blur.
        final_sinc_prob: probability of a sinc at the end.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next one.
    """

    def __init__(
        self,
        dataroot_gt: str | list[str] | None = None,
        source: Literal["skimage"] | None = None,
        weights: list[float] | None = None,
        meta_info: str | None = None,
        io_backend: IOBackend | None = None,
        gt_size: Count | None = None,
        pad_size: Count = 400,
        scale: Count = 4,
        phase: Phase = "train",
        shorter_side: Count | None = None,
        renditions: Count = 1,
        use_hflip: bool = False,
        use_rot: bool = False,
        degradation: SecondOrder | None = None,
        degradations: list[Annotated[Any, DEGRADATIONS]] | None = None,
        engine: EngineName = "opencv",
        jpeg_table: JpegTable = "basicsr",
        usm: Literal["none", "degraded", "both"] = "none",
        blur_kernel_size: OddSize = 21,
        kernel_range: OddSizes | None = None,
        kernel_list: list[KernelType] = list(KERNEL_TYPES),  # noqa: B006 - not modified
        kernel_prob: Probabilities = list(KERNEL_PROB),  # noqa: B006
        sinc_prob: Share = 0.1,
        blur_sigma: Factors = (0.2, 3.0),
        betag_range: Factors = (0.5, 4.0),
        betap_range: Factors = (1.0, 2.0),
        blur_kernel_size2: OddSize = 21,
        kernel_list2: list[KernelType] = list(KERNEL_TYPES),  # noqa: B006
        kernel_prob2: Probabilities = list(KERNEL_PROB),  # noqa: B006
        sinc_prob2: Share = 0.1,
        blur_sigma2: Factors = (0.2, 1.5),
        betag_range2: Factors = (0.5, 4.0),
        betap_range2: Factors = (1.0, 2.0),
        final_sinc_prob: Share = 0.8,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(on_error)
        values = dict(locals())
        hold(type(self), values)
        self.check_options(values)
        # The kernels of both stages.
        first = kernel_range or (min(SMALLEST_KERNEL, blur_kernel_size), blur_kernel_size)
        second = kernel_range or (min(SMALLEST_KERNEL, blur_kernel_size2), blur_kernel_size2)
        self.blurs = (
            BlurOptions(first, kernel_list, kernel_prob, sinc_prob, blur_sigma, betag_range, betap_range),
            BlurOptions(second, kernel_list2, kernel_prob2, sinc_prob2, blur_sigma2, betag_range2, betap_range2),
        )
        self.final_sinc_prob = final_sinc_prob
        # The photographs, each several times where several renditions are wanted.
        groups = find_photographs(dataroot_gt, source, phase, as_backend(io_backend), meta_info)
        self.photographs = [pair for group in groups for pair in group] * renditions
        per_root = shares([len(g) for g in groups], weights)
        self.sampling_weights = None if per_root is None else np.tile(per_root / renditions, renditions)
        self.renditions = renditions
        # How samples are cut, augmented and degraded.
        self.training = phase == "train"
        self.gt_size = gt_size
        self.pad_size = pad_size
        self.scale = scale
        self.shorter_side = shorter_side
        self.hflip, self.rotate = use_hflip, use_rot
        self.chain = None if degradation is None else SecondOrder.of(degradation)
        self.operations = None if degradations is None else DegradationList(degradations)
        self.engine = make_engine(engine, jpeg_table)
        self.usm = usm

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Refuse options that do not go together; those that are left out need not be there.

        Raises:
            UserError: the message begins with the option's name.
        """
        for n in ("", "2"):
            if f"kernel_list{n}" in options or f"kernel_prob{n}" in options:
                kinds, weights = (
                    options.get(f"kernel_list{n}", KERNEL_TYPES),
                    options.get(f"kernel_prob{n}", KERNEL_PROB),
                )
                one_each(f"kernel_prob{n}", kinds, weights, f"kernel_list{n}")
        here = [k for k in ("degradation", "degradations") if options.get(k) is not None]
        if len(here) == 2:
            raise UserError("degradations: degradation is given too; leave one of them out")
        if options.get("degradations") is not None:
            for key in sorted(OF_CHAIN):
                if given_otherwise(options, key, cls):
                    raise UserError(
                        f"{key}: has no effect with degradations, whose operations say it themselves; leave it out"
                    )
        if options.get("usm", "none") != "none" and not here:
            raise UserError("usm: the model degrades here, and sharpens as its own options say; leave usm out")
        if (options.get("dataroot_gt") is None) == (options.get("source") is None):
            raise UserError("dataroot_gt: give either folders of photographs here, or source: skimage")
        scale, size = options.get("scale") or 4, options.get("gt_size")
        if size is not None and size % scale:
            raise UserError(f"gt_size: must be a multiple of scale {scale}, got {size}")
        if size is not None and size > options.get("pad_size", 400):
            raise UserError(f"gt_size: must be at most pad_size {options.get('pad_size', 400)}, got {size}")

    def __len__(self) -> int:
        return len(self.photographs)

    def result_path(self, index: int) -> str:
        """The photograph's path, with the rendition's number where there are several."""
        source, name = self.photographs[index]
        path = source.path(name)
        if self.renditions == 1:
            return path
        stem, dot, suffix = path.rpartition(".")
        return f"{stem}_{index // (len(self) // self.renditions)}{dot}{suffix}"

    def stored_at(self, index: int) -> ArchivePlace | None:
        """The photograph's place."""
        source, name = self.photographs[index]
        return source.place(name)

    def load(self, index: int) -> Item:
        """The sample `index`.

        Raises:
            UserError: the image is smaller than `scale` pixels.
        """
        source, name = self.photographs[index]
        path = source.path(name)
        seed = int(np.random.randint(2**63 - 1, dtype=np.int64)) if self.training else index
        pixels = to_float(shrink(source.pixels(name), self.shorter_side))
        if self.training:
            pixels = random_flip_rotate([pixels], self.hflip, self.rotate)[0]
            pixels = random_crop(pad_to_patch([pixels], self.pad_size, 1, mode="reflect"), self.pad_size, 1, path)[0]
        else:
            height, width = (side - side % self.scale for side in pixels.shape[:2])
            if not height or not width:
                raise UserError(f"{path}: is smaller than scale {self.scale}")
            pixels = pixels[:height, :width]
        item: Item = {"gt_path": path, "seed": seed}
        if self.chain is None and self.operations is None:
            names = ("kernel1", "kernel2", "sinc_kernel")
            return {**item, "gt": to_tensor(pixels), **dict(zip(names, self.kernels(Draws(seed)), strict=True))}
        return {**item, "lq_path": self.result_path(index), **self.degraded(pixels, Draws(seed))}

    def kernels(self, draws: Draws) -> list[Tensor]:
        """The kernels of a sample: first blur, second, and the sinc; (k, k) float32 each."""
        return draw_kernels(draws, self.blurs, self.final_sinc_prob)

    def degraded(self, pixels: np.ndarray, draws: Draws) -> dict[str, Tensor]:
        """``lq`` and ``gt`` of a photograph (H, W, 3), cut to the training patch."""
        gt = to_tensor(pixels)
        source = gt if self.usm == "none" else to_tensor(usm_sharp(np.ascontiguousarray(pixels)))
        if self.operations is not None:
            lq = self.operations(source, draws.part("degradations"), self.engine, self.scale)
        else:
            assert self.chain is not None
            lq = degrade_one(source, self.kernels(draws), self.chain.decide(draws), self.scale, self.engine)
        target = source if self.usm == "both" else gt
        if self.training and self.gt_size is not None:
            lq, (target,) = cut_pair(lq, [target], self.gt_size, self.scale, draws.part("crop"))
        return {"lq": lq.contiguous(), "gt": target.contiguous()}

    def require_patch(self, size: int) -> None:
        """Check that patches of `size` fit into what is degraded; small photographs are continued, and so large enough.

        Raises:
            UserError: they do not.
        """
        if size > self.pad_size or size % self.scale:
            raise UserError(
                f"gt_size {size}: a multiple of scale {self.scale}, at most pad_size {self.pad_size}, is needed"
            )


def find_photographs(
    roots: str | list[str] | None,
    source: Literal["skimage"] | None,
    phase: Phase,
    backend: IOBackend,
    meta: str | None,
) -> list[list[tuple[Source, str]]]:
    """Source and name of every photograph, by root.

    Raises:
        UserError: a root is missing or empty, or lacks files that `meta` lists.
    """
    if source is not None:
        if meta is not None:
            raise UserError("meta_info: lists files of dataroot_gt, and source: skimage is given instead")
        shipped = shipped_photographs("train" if phase == "train" else "val")
        return [[(shipped, name) for name in shipped.files.values()]]
    folders = as_roots(roots, "dataroot_gt")
    if meta is not None and len(folders) > 1:
        raise UserError("meta_info: lists the files of one root; there are several")
    return [
        [(s.lq, s.lq_name) for s in find_samples(root, None, backend, meta_file=meta, part="gt")] for root in folders
    ]


@DATASETS.register()
class RealESRGANPairedDataset(PairedImageDataset):
    """Pairs for fine-tuning: as `PairedImageDataset`, but its list names both files of each pair.

    Args:
        dataroot_gt: folder of the ground truths, or LMDB database.
        dataroot_lq: folder of the inputs, or LMDB database.
        meta_info: list of pairs, ``hr/0001.png, lr/0001.png`` per line, ground truth first, relative to the two folders; by
            names when omitted.
        filename_tmpl: stem of an input from that of its ground truth, where there is no list, ``{}x4``.
        io_backend: ``{type: disk}`` (also remote folders), ``{type: lmdb}`` or ``{type: tar}``.
        gt_size: side of the training patch in the ground truth; whole images when omitted.
        scale: ground truth size / input size.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        use_hflip: flip at random, left to right.
        use_rot: turn at random, by vertical flip and transposition.
        mean: value subtracted from each channel.
        std: divisor of each channel.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
    """

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str,
        meta_info: str | None = None,
        filename_tmpl: str = "{}",
        io_backend: IOBackend | None = None,
        gt_size: Count | None = None,
        scale: int = 4,
        phase: Phase = "train",
        use_hflip: bool = False,
        use_rot: bool = False,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(
            dataroot_gt=dataroot_gt,
            dataroot_lq=dataroot_lq,
            meta_info=meta_info,
            filename_tmpl=filename_tmpl,
            io_backend=io_backend,
            gt_size=gt_size,
            scale=scale,
            phase=phase,
            use_hflip=use_hflip,
            use_rot=use_rot,
            mean=mean,
            std=std,
            on_error=on_error,
        )

    def find(self, lq: str, gt: str | None, backend: IOBackend, template: str, meta: str | None) -> list[Sample]:
        if meta is None:
            return super().find(lq, gt, backend, template, meta)
        assert gt is not None
        return listed_pairs(
            open_source(lq, backend, part="lq"), open_source(gt, backend, part="gt"), meta, self.on_error
        )


def listed_pairs(lq: Source, gt: Source, meta: str, on_error: OnError = "raise") -> list[Sample]:
    """The pairs that a list names, ground truth first.

    Raises:
        UserError: a line is no pair, or a file is not there and not to be passed over; up to ten are named.
    """
    lines = read_lines(meta)
    pairs = [[part.strip() for part in line.split(",")] for _, line in lines]
    for (number, line), pair in zip(lines, pairs, strict=True):
        if len(pair) != 2:
            raise UserError(f"{meta}:{number}: a line is 'ground truth, input'; got '{line}'")
    if not pairs:
        raise UserError(f"{meta}: is empty")
    found = [(_key(gt, g), _key(lq, q)) for g, q in pairs]
    for source, column in ((gt, 0), (lq, 1)):
        absent = [pair[column] for pair, keys in zip(pairs, found, strict=True) if keys[column] not in source.files]
        pass_over_missing(source.root, meta, [pair[column] for pair in pairs], absent, on_error)
    return [Sample(lq, lq.files[q], gt, gt.files[g]) for g, q in found if g in gt.files and q in lq.files]


def _key(source: Source, name: str) -> str:
    """The key under which a source has a file, which may have been listed with its suffix or without."""
    return name if name in source.files else name.rpartition(".")[0]
