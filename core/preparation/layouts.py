"""DF2K, SIDD, REDS and Vimeo-90K's septuplets, from their downloads to what the datasets read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from ...datasets.sources import Folder, first_names
from ...datasets.triplets import read_list
from ..errors import UserError
from ..imaging.image_io import imwrite
from ..imaging.storage import list_files
from . import journal
from .crops import places
from .images import crop_one, size_of
from .requests import Request, file_size

SIDE, STEP = 480, 240
"""DF2K's sub-images, as BasicSR cuts them."""
PATCH, DISTANCE = 512, 384
"""SIDD's crops, as Restormer and NAFNet cut them."""
SCALES = (2, 3, 4)
CLIPS = 240
"""Clips of REDS for training; those for validation get the numbers that follow."""


# ------------------------------------------------------------------ DF2K
def df2k(request: Request) -> str:
    """DIV2K and Flickr2K: sub-images of the sharp images and, where they are there, of Matlab's smaller ones.

    Raises:
        UserError: a folder or an image is missing, or a smaller image has another size.
    """
    # Sharp images of both data sets.
    sharp = list(_folders(request.folder, r"(DIV2K_train_HR|Flickr2K_HR)"))
    if not sharp:
        raise UserError(f"{request.folder}: has neither DIV2K_train_HR nor Flickr2K_HR, here or one folder deeper")
    jobs = [
        (source, name, "DF2K_train_HR_sub", 1, PurePosixPath(name).stem)
        for source in (Folder(str(folder)) for folder in sharp)
        for name in source.files.values()
    ]
    known = {PurePosixPath(name).stem: size_of(source, name) for source, name, *_ in jobs}
    # Smaller images, each of which must have its sharp one.
    for scale in SCALES:
        small = list(_folders(request.folder, rf"(DIV2K_train|Flickr2K)_LR_bicubic/X{scale}"))
        found = [(source, name) for source in map(Folder, map(str, small)) for name in source.files.values()]
        for source, name in found:
            stem = re.sub(rf"x{scale}$", "", PurePosixPath(name).stem)
            height, width = size_of(source, name)
            if known.get(stem) != (height * scale, width * scale):
                has = known.get(stem)
                of = f"{has[0]}x{has[1]}" if has else "not there"
                raise UserError(f"{source.path(name)}: is {height}x{width}, and its sharp image is {of}, for X{scale}")
            jobs.append((source, name, f"DF2K_train_LR_bicubic_X{scale}_sub", scale, stem))
        if found and (lost := set(known) - {job[4] for job in jobs if job[3] == scale}):
            raise UserError(f"{small[0]}: has no smaller image of {first_names(sorted(lost))}")
    # Cut them all, and say what was made.
    count = request.each(partial(_sub_images, request.target, request.dry), jobs)
    of_scale = {scale: sum(job[3] == scale for job in jobs) for scale in SCALES}
    smaller = ", ".join(f"X{scale}" for scale, n in of_scale.items() if n) or "no smaller ones"
    return f"{count} sub-images of {len(known)} images, and {smaller}: {request.out}"


def _folders(root: Path, pattern: str) -> Iterator[Path]:
    """Folders of a download that match, at the top or one folder deeper, each once."""
    depth = pattern.count("/") + 1
    for glob in ("/".join(["*"] * depth), "/".join(["*"] * (depth + 1))):
        for place in sorted(root.glob(glob)):
            if place.is_dir() and re.fullmatch(rf"(.*/)?{pattern}", place.relative_to(root).as_posix()):
                yield place


def _sub_images(out: Path, dry: bool, job: tuple[Folder, str, str, int, str]) -> int:
    """Cut one image; how many of its sub-images are sharp ones."""
    source, name, folder, scale, stem = job
    side, step = SIDE // scale, STEP // scale
    size = size_of(source, name)
    if min(size) < side:
        raise UserError(f"{source.path(name)}: is {size[0]}x{size[1]}, smaller than {side}")
    if dry:
        count = len(places(size, side, step, 0))
    else:
        count = crop_one(name, source, str(out / folder), side, step, 0, goes_on=True, stem=stem)
    return count if scale == 1 else 0


# ------------------------------------------------------------------ SIDD
def sidd(request: Request) -> str:
    """SIDD: crops of the sRGB pairs for training, and the blocks for validation if their .mat files are there.

    Raises:
        UserError: the folder is not SIDD's, or one of two files that belong together is missing.
    """
    names = list_files(str(request.folder))
    sharp = {
        name: name.replace("GT_SRGB", "NOISY_SRGB") for name in names if re.search(r"GT_SRGB[^/]*\.png$", name, re.I)
    }
    if not sharp:
        raise UserError(f"{request.folder}: has no files ..._GT_SRGB_010.PNG; SIDD_Medium_Srgb has")
    if absent := sorted(set(sharp.values()) - set(names)):
        raise UserError(f"{request.folder}: is without {first_names(absent)}")
    pairs = [(noisy, name, _stem(name)) for name, noisy in sharp.items()]
    stems = {stem for *_, stem in pairs}
    if len(stems) < len(pairs):
        raise UserError(f"{request.folder}: has scenes of the same name in several folders; give one of them")
    blocks = {PurePosixPath(name).name: name for name in names if name.endswith(".mat")}
    kinds = {"input": "ValidationNoisyBlocksSrgb.mat", "target": "ValidationGtBlocksSrgb.mat"}
    out = request.target
    crops = request.crop_pairs(request.folder, out / "train", PATCH, DISTANCE, pairs)
    there = [kind for kind, file in kinds.items() if file in blocks]
    if len(there) == 1:
        raise UserError(f"{request.folder}: has one of {' and '.join(kinds.values())}, and needs both")
    held = [_write_blocks(request, request.folder / blocks[kinds[kind]], out / "val" / kind) for kind in there]
    if len(set(held)) > 1:
        raise UserError(f"{request.folder}: {held[0]} noisy and {held[1]} sharp blocks for validation")
    return f"{crops} crops of {len(pairs)} pairs to train on and {held[0] if held else 0} to validate: {request.out}"


def _stem(name: str) -> str:
    """``0001_001_S6_00100_00060_3200_L_010`` of ``Data/0001_001_S6_00100_00060_3200_L/0001_GT_SRGB_010.PNG``."""
    place = PurePosixPath(name)
    number = re.sub(r"^.*GT_SRGB_?", "", place.stem)
    return f"{place.parent.name}_{number}" if number else place.parent.name


def _write_blocks(request: Request, file: Path, out: Path) -> int:
    """The blocks of a .mat file, (scenes, blocks, h, w, 3) uint8, as PNG, but those that are there; how many.

    Raises:
        UserError: it has no such array.
    """
    from scipy.io import loadmat

    try:
        arrays = [v for k, v in loadmat(str(file)).items() if not k.startswith("__") and isinstance(v, np.ndarray)]
    except Exception as e:  # loadmat has no class of its own for what is no such file
        raise UserError(f"{file}: is no file of MATLAB 5 that can be read ({e})") from e
    found = [a for a in arrays if a.ndim == 5 and a.shape[-1] == 3 and a.dtype == np.uint8]
    if len(found) != 1:
        raise UserError(f"{file}: has no array (scenes, blocks, height, width, 3) of 8 bits")
    flat = found[0].reshape(-1, *found[0].shape[2:])
    targets = [out / f"{i // found[0].shape[1]:04d}_{i % found[0].shape[1]:02d}.png" for i in range(len(flat))]
    if not request.dry:
        left = set(journal.missing(targets, goes_on=True))
        for path, block in zip(targets, flat, strict=True):
            if path in left:
                imwrite(path, block)
    return len(flat)


# ------------------------------------------------------------------ clips
def reds(request: Request) -> str:
    """REDS: clips for training and validation under one folder, the latter numbered on from 240, and their list.

    Raises:
        UserError: the folder is not REDS's, or clips lack frames.
    """
    # Clips by kind; those of the validation part get numbers after the others.
    kinds = ("sharp", "sharp_bicubic/X4", "blur", "blur_bicubic/X4")
    clips: dict[str, dict[str, Path]] = {}
    for kind in kinds:
        for part, offset in (("train", 0), ("val", CLIPS)):
            there = map(_numbered, _places(request.folder, part, kind))
            for place in next(filter(None, there), []):
                clips.setdefault(kind, {})[f"{int(place.name) + offset:03d}"] = place
    if not clips.get("sharp"):
        raise UserError(f"{request.folder}: has no train_sharp/000, train_sharp/001, ... or val_sharp/000, ...")
    # All kinds must have the same clips and frames.
    frames = {clip: sorted(p.name for p in folder.glob("*.png")) for clip, folder in clips["sharp"].items()}
    for kind, found in clips.items():
        if differing := sorted(set(found) ^ set(frames)):
            raise UserError(f"{request.folder}: clips that either sharp or {kind} lacks: {first_names(differing)}")
        for clip, folder in found.items():
            if sorted(p.name for p in folder.glob("*.png")) != frames[clip] or not frames[clip]:
                raise UserError(f"{folder}: has other frames than {clips['sharp'][clip]}, or none")
    # Links, and the list of clips.
    out = request.target
    for kind, found in clips.items():
        for clip, folder in found.items():
            for name in frames[clip]:
                request.link(folder / name, out / f"train_{kind}" / clip / name)
    sizes = {clip: file_size(folder / frames[clip][0]) for clip, folder in clips["sharp"].items()}
    lines = [f"{clip} {len(names)} ({sizes[clip][0]},{sizes[clip][1]},3)" for clip, names in sorted(frames.items())]
    request.write(out / "meta_info_REDS_GT.txt", lines)
    total = sum(map(len, frames.values()))
    return f"{len(frames)} clips, {total} frames of each of {', '.join(clips)}: {request.out}"


def _numbered(root: Path) -> list[Path]:
    """The folders ``000``, ``001``, ... of a folder, if it is there."""
    found = sorted(root.iterdir()) if root.is_dir() else ()
    return [p for p in found if p.is_dir() and re.fullmatch("[0-9]{3}", p.name)]


def _places(root: Path, part: str, kind: str) -> Iterator[Path]:
    """Where a kind of clips may lie in the download, whose archives hold ``train/train_sharp/000``."""
    for above in ("", part, f"{part}_{kind.partition('/')[0]}", f"{part}_{kind.partition('/')[0]}/{part}"):
        yield root / above / f"{part}_{kind}"


def vimeo_septuplet(request: Request) -> str:
    """Vimeo-90K's septuplets: whether all frames are there, and lists as `Vimeo90KDataset` reads them.

    Raises:
        UserError: the list or a frame is missing.
    """
    counts = []
    for part, name in (("train", "sep_trainlist.txt"), ("test", "sep_testlist.txt")):
        path = request.folder / name
        if not path.is_file():
            raise UserError(f"{path}: is missing; vimeo_septuplet.zip has it")
        clips = [line.split()[0] for _, line in read_list(str(path), "00001/0001")]
        frames = [f"sequences/{clip}/im{i}.png" for clip in clips for i in range(1, 8)]
        lost = [frame for frame in frames if not (request.folder / frame).is_file()]
        if lost:
            raise UserError(f"{path}: {len(lost)} of {len(frames)} frames are not in {request.folder}: {lost[0]}, ...")
        sizes = [file_size(request.folder / f"sequences/{clip}/im1.png") for clip in clips]
        lines = [f"{clip} 7 ({h},{w},3)" for clip, (h, w) in zip(clips, sizes, strict=True)]
        request.write(request.folder / f"meta_info_Vimeo90K_{part}_GT.txt", lines)
        counts.append(f"{len(clips)} {part}")
    return f"septuplets: {', '.join(counts)}: {request.folder}"
