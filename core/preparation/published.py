"""Published data sets, from the form in which they are downloaded to that in which the shipped option files look for them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from ...datasets.interpolation_sets import XIPH_CLIPS, SNUFILMDataset, XTestDataset
from ...datasets.origins import KNOWN, origins_table
from ...datasets.sources import first_names
from ...datasets.videos import VIDEOS, Video
from ..errors import UserError, did_you_mean, expanded
from ..imaging.image_io import imwrite
from ..imaging.storage import list_files, read_lines
from . import layouts
from .requests import Request, first_folder, partners

PATCH, STEP = 512, 256
"""Crops of GoPro's training images, as Restormer prepares them."""
FRAMES = 100
"""Frames of each of Xiph's clips."""
RADIANCE = (".hdr", ".exr", ".npy", ".pfm")


def prepare(
    name: str | None,
    folder: str | None,
    out: str | None,
    seed: int = 0,
    names: str | None = None,
    workers: int = 1,
    dry: bool = False,
) -> str:
    """Prepare the data set `name`; what was done, in words. Without a name, or a folder, where it comes from.

    Raises:
        UserError: there is no such data set, or its files are not there or do not fit together.
    """
    if name is None:
        return origins_table()
    if name not in KNOWN:
        raise UserError(f"{name}: no such data set is known.{did_you_mean(name, KNOWN)} Known: {', '.join(KNOWN)}")
    if name not in WAYS and folder is not None:
        raise UserError(f"{name}: needs no preparation: unpack it to {KNOWN[name].folder}")
    if folder is None:
        return "\n".join(f"{key}: {value}" for key, value in KNOWN[name]._asdict().items())
    if not expanded(folder).is_dir():
        raise UserError(f"{folder}: there is no such folder. It is fetched from {KNOWN[name].source}")
    request = Request(expanded(folder), None if out is None else expanded(out), seed, names, workers, dry)
    if name not in IN_PLACE:
        request.refuse_out()
    done = WAYS[name](request)
    request.finish()
    return f"{'would be written: ' if dry else ''}{done} (published: {KNOWN[name].counts})"


# ------------------------------------------------------------------ pairs
def held_out(names: Sequence[str], count: int, request: Request) -> set[str]:
    """Which of some files' stems are held out: those of the list, or `count` drawn by the seed, or a tenth of few.

    Raises:
        UserError: the list names what is not there.
    """
    if request.names is None:
        order = np.random.RandomState(request.seed).permutation(len(names))
        return {sorted(names)[i] for i in order[: min(count, max(len(names) // 10, 1))]}
    listed = {os.path.splitext(line.split()[0])[0] for _, line in read_lines(request.names) if line.strip()}
    if absent := sorted(listed - set(names)):
        raise UserError(f"{request.names}: names files that are not there: {first_names(absent)}")
    return listed


def lsui(request: Request) -> str:
    """LSUI: ``input`` and ``GT`` in two parts."""
    inputs, targets = first_folder(request.folder, "input", "Input"), first_folder(request.folder, "GT", "gt")
    keys, out = partners(inputs, targets), request.target
    test = held_out(keys, 400, request)
    for key in keys:
        part = "test" if key in test else "train"
        for source, kind in ((inputs, "input"), (targets, "gt")):
            request.link(source.path(source.files[key]), out / part / kind / source.files[key])
    return f"{len(keys) - len(test)} pairs to train on and {len(test)} to test: {request.out}"


def uieb(request: Request) -> str:
    """UIEB: lists of both parts."""
    inputs, targets = (first_folder(request.folder, name) for name in ("raw-890", "reference-890"))
    keys = partners(inputs, targets)
    test = held_out(keys, 90, request)
    for name, chosen in (("train.txt", [k for k in keys if k not in test]), ("test.txt", sorted(test))):
        lines = [targets.files[key] for key in chosen]
        request.write(request.folder / name, lines)
    return f"{len(keys) - len(test)} names in train.txt and {len(test)} in test.txt: {request.folder}"


def aim(request: Request) -> str:
    """AIM: pictures, radiance and prompts of one name, wherever they lie in the download.

    Raises:
        UserError: there are no pictures with radiance files of the same names.
    """
    files = [PurePosixPath(name) for name in list_files(str(request.folder))]
    kinds = {"jpg": (".jpg", ".jpeg", ".png"), "hdr": RADIANCE, "dgain_info": (".txt",)}
    found = {kind: {p.stem: p for p in files if p.suffix.lower() in ends} for kind, ends in kinds.items()}
    keys = sorted(set(found["jpg"]) & set(found["hdr"]))
    if not keys:
        raise UserError(
            f"{request.folder}: has no pictures with radiance files ({', '.join(RADIANCE)}) of the same names"
        )
    out, val = request.target, held_out(keys, 100, request)
    for key in keys:
        for kind in [k for k in kinds if key in found[k]]:
            path = found[kind][key]
            request.link(request.folder / path, out / ("val_hdr" if key in val else "train_hdr") / kind / path.name)
    prompts = sum(key in found["dgain_info"] for key in keys)
    return f"{len(keys) - len(val)} pairs to train on and {len(val)} held out, {prompts} with dgain: {request.out}"


def blurred(root: Path) -> list[tuple[str, str, str]]:
    """The facts of each blurred image in ``<scene>/blur``: its name, its partner's, and the stem that both get.

    Raises:
        UserError: a partner is missing.
    """
    found = []
    for name in list_files(str(root)) if root.is_dir() else ():
        place = PurePosixPath(name)
        if place.parent.name == "blur":
            scene = place.parent.parent
            sharp = str(scene / "sharp" / place.name)
            if not (root / sharp).is_file():
                raise UserError(f"{root / sharp}: is missing, the partner of {name}")
            found.append((name, sharp, f"{scene.name}_{place.stem}"))
    return found


def gopro(request: Request) -> str:
    """GoPro: crops of the training images, and whole test images, named after their scenes.

    Raises:
        UserError: the folder is not GoPro's.
    """
    roots = {part: request.folder / part for part in ("train", "test")}
    pairs = {part: blurred(root) for part, root in roots.items()}
    if not any(pairs.values()):
        raise UserError(f"{request.folder}: has no train/<scene>/blur and test/<scene>/blur; GOPRO_Large has")
    out = request.target
    crops = request.crop_pairs(roots["train"], out / "train", PATCH, STEP, pairs["train"])
    for blur, sharp, stem in pairs["test"]:
        for kind, name in (("input", blur), ("target", sharp)):
            request.link(roots["test"] / name, out / "test" / kind / f"{stem}{PurePosixPath(name).suffix}")
    return f"{crops} crops to train on and {len(pairs['test'])} pairs to test: {request.out}"


def hide(request: Request) -> str:
    """HIDE: the test images of both of its folders, and their sharp images.

    Raises:
        UserError: a sharp image is missing.
    """
    inputs, targets = first_folder(request.folder, "test"), first_folder(request.folder, "GT", "gt", "sharp")
    sharp = {PurePosixPath(n).name: n for n in targets.files.values()}
    names = {PurePosixPath(n).name: n for n in inputs.files.values()}
    if absent := sorted(set(names) - set(sharp)):
        raise UserError(f"{targets.root}: has no sharp image of {first_names(absent)}")
    out = request.target
    for name in names:
        request.link(inputs.path(names[name]), out / "test/input" / name)
        request.link(targets.path(sharp[name]), out / "test/target" / name)
    return f"{len(names)} pairs to test: {request.out}"


# ------------------------------------------------------------------ frames
def snu_film(request: Request) -> str:
    """SNU-FILM: whether all frames of its lists are there."""
    counts = []
    for level in ("easy", "medium", "hard", "extreme"):
        found = SNUFILMDataset(str(request.folder), level)
        counts.append(f"{len(found)} {level}")
    return f"triplets: {', '.join(counts)}"


def x_test(request: Request) -> str:
    """X-TEST: whether all frames of its clips are there."""
    found = XTestDataset(str(request.folder))
    return f"{len({t.files[0] for t in found.triplets})} clips, {len(found)} samples for x8"


def xiph(request: Request) -> str:
    """Xiph: the first hundred frames of eight clips, in 8 bits.

    Raises:
        UserError: a clip's video is missing, or there are several.
    """
    videos = [p for p in sorted(request.folder.iterdir()) if p.suffix.lower() in VIDEOS]
    files = {}
    for clip in XIPH_CLIPS:
        found = [p for p in videos if re.search(rf"(?:^|_){clip}(?:_|\.)", p.name)]
        if len(found) != 1:
            raise UserError(f"{request.folder}: has {len(found)} videos whose names hold {clip}_, and needs one")
        files[clip] = found[0]
    request.each(partial(first_frames, request.target, request.dry), list(files.items()))
    return f"{FRAMES} frames of each of {len(files)} clips: {request.out}"


def first_frames(out: Path, dry: bool, video: tuple[str, Path]) -> int:
    """The first hundred frames of one clip, but those that are there; how many.

    Raises:
        UserError: it has fewer.
    """
    clip, file = video
    frames = Video(str(file))
    if len(frames) < FRAMES:
        raise UserError(f"{file}: has {len(frames)} frames, and needs {FRAMES}")
    for number, image in () if dry else frames.frames():
        if number >= FRAMES:
            break
        path = out / f"{clip}-{number + 1:03d}.png"
        if path.is_file():
            continue
        pixels = image()
        if pixels.dtype == np.uint16:  # to 8 bits, rounded
            pixels = (pixels.astype(np.float32) / 257 + 0.5).astype(np.uint8)
        imwrite(path, pixels)
    return FRAMES


WAYS: dict[str, Callable[[Request], str]] = {
    "lsui": lsui,
    "uieb": uieb,
    "aim": aim,
    "gopro": gopro,
    "hide": hide,
    "snu-film": snu_film,
    "x-test": x_test,
    "xiph": xiph,
    "df2k": layouts.df2k,
    "sidd": layouts.sidd,
    "reds": layouts.reds,
    "vimeo90k-septuplet": layouts.vimeo_septuplet,
}
IN_PLACE = ("uieb", "snu-film", "x-test", "vimeo90k-septuplet")
"""Data that stay where they are."""
