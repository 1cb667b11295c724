"""Folders of images: cut into sub-images, listed, and made into HDR scenes."""

from __future__ import annotations

import os
from functools import partial
from pathlib import PurePath
from typing import Any

from ...datasets.camera import PROMPTS, decode_prompt, format_prompt
from ...datasets.hdr_scenes import SyntheticHDRDataset
from ...datasets.radiance import RADIANCE_READERS, read_floats
from ...datasets.sources import Folder, Source
from ..errors import UserError
from ..imaging.image_io import READERS, Readers, imwrite
from ..imaging.storage import join, write_bytes
from . import crops, journal
from .crops import places

KINDS: dict[str, Readers] = {"images": READERS, "radiance": RADIANCE_READERS, "prompts": PROMPTS}
"""What folders hold, and how it is read."""


def size_of(source: Source, name: str) -> tuple[int, int]:
    """Height and width, by the file's header where that says it; a turned JPEG's may be swapped."""
    shape = source.size(name) or source.pixels(name).shape
    return shape[0], shape[1]


def crop_one(
    name: str, source: Folder, out: str, size: int, step: int, least: int, goes_on: bool = False, stem: str = ""
) -> int:
    """Write the sub-images ``<stem>_s001.png``, ... of one image, but those that are there; how many it has."""
    stem = stem or os.path.splitext(name)[0]
    count = len(places(size_of(source, name), size, step, least))
    targets = [join(out, f"{stem}_s{i:03d}.png") for i in range(1, count + 1)]
    if left := journal.missing(targets, goes_on):
        image = source.pixels(name)
        begins = dict(zip(targets, places(image.shape[:2], size, step, least), strict=True))
        crops.write(image, {target: begins[target] for target in left}, size)
    return count


def crop(
    folder: str, out: str, size: int = 480, step: int = 240, least: int = 0, workers: int = 1, dry: bool = False
) -> int:
    """Cut every image into sub-images of `size` x `size` pixels; how many there are. Those that are there are left.

    Raises:
        UserError: an image is smaller, or unreadable; or there are sub-images that were cut otherwise.
    """
    if min(size, step) < 1 or least < 0:
        raise UserError("--size and --step: at least 1; --least: at least 0")
    source = Folder(folder)
    names = list(source.files.values())
    count = 0
    for name in names:
        height, width = size_of(source, name)
        if min(height, width) < size:
            raise UserError(f"{source.path(name)}: is {height}x{width}, smaller than --size {size}")
        count += len(places((height, width), size, step, least))
    goes_on = journal.begin(out, "crop", folder, {"size": size, "step": step, "least": least}, dry)
    if dry:
        return count
    work = partial(crop_one, source=source, out=out, size=size, step=step, least=least, goes_on=goes_on)
    return sum(journal.each(work, names, workers, "Cropping", processes=True))


def meta_line(source: Source, name: str) -> str:
    """``name.png (h,w,3)`` of an image, or a prompt file's name. The file is decoded, so that damage is found now."""
    if source.readers is PROMPTS:
        decode_prompt(source.read(name), source.path(name))
        return name
    pixels = read_floats(source, name, 1.0) if source.readers is RADIANCE_READERS else source.pixels(name)
    return f"{name} ({pixels.shape[0]},{pixels.shape[1]},{pixels.shape[2]})"


def meta(folder: str, out: str, kind: str = "images", workers: int = 1, dry: bool = False) -> int:
    """List a folder's images with their sizes; how many. The list appears when it is complete."""
    source = Folder(folder, KINDS[kind])
    names = list(source.files.values())
    if not dry:
        lines = journal.each(partial(meta_line, source), names, workers, "Reading")
        write_bytes(out, ("\n".join(lines) + "\n").encode())
    return len(names)


def hdr(
    folder: str, out: str, renditions: int = 1, side: int | None = None, workers: int = 1, dry: bool = False
) -> int:
    """Write HDR scenes made of photographs, pictures of them, and the cameras' curves; how many there are.

    The three have the same names, in the folders ``gt`` (Radiance .hdr), ``lq`` (8-bit .png) and ``dgain`` (.txt) of `out`.

    Args:
        folder: photographs, or ``skimage:train``, ``skimage:val``.
        renditions: pictures of each scene, by different cameras.
        side: photographs are first shrunk until their shorter side has so many pixels.

    Raises:
        UserError: no such folder or split, or an unreadable photograph.
    """
    options: dict[str, Any] = {"phase": "val", "shorter_side": side, "renditions": renditions}
    if folder.partition(":")[0] == "skimage":
        split = folder.partition(":")[2] or "train"
        if split not in ("train", "val"):
            raise UserError(f"{folder}: scikit-image's photographs are skimage:train and skimage:val")
        dataset = SyntheticHDRDataset(source="skimage", **{**options, "split": split})
    else:
        dataset = SyntheticHDRDataset(dataroot_gt=folder, **options)
    goes_on = journal.begin(out, "hdr", folder, {"renditions": renditions, "side": side}, dry)
    if not dry:
        work = partial(scene, dataset, out, goes_on)
        list(journal.each(work, list(range(len(dataset))), workers, "Writing", ahead=16))
    return len(dataset)


def scene(dataset: SyntheticHDRDataset, out: str, goes_on: bool, i: int) -> None:
    """Write one scene, its picture and its curve, unless all are there."""
    stem = PurePath(dataset.result_path(i)).relative_to(dataset.photographs[i][0].root).with_suffix("")
    kinds = (("gt", "hdr"), ("lq", "png"), ("dgain", "txt"))
    targets = [join(out, f"{kind}/{stem}.{suffix}") for kind, suffix in kinds]
    if not journal.missing(targets, goes_on):
        return
    shot, _ = dataset.shot(i)
    imwrite(targets[0], shot.radiance)
    imwrite(targets[1], shot.picture)
    write_bytes(targets[2], format_prompt(shot.curve).encode())
