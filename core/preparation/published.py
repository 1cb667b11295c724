"""Published data sets, from the form in which they are downloaded to that in which the shipped option files look for them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from ...datasets.interpolation_sets import XIPH_CLIPS, SNUFILMDataset, XTestDataset
from ...datasets.origins import KNOWN, table
from ...datasets.sources import Folder, listing
from ...datasets.videos import VIDEOS, Video
from ..errors import UserError, did_you_mean, expanded
from ..imaging.image_io import imwrite, read_pixels
from ..imaging.storage import list_files, read_lines, write_bytes
from .crops import windows

PATCH, STEP = 512, 256
"""Crops of GoPro's training images, as Restormer prepares them."""
FRAMES = 100
"""Of each of Xiph's clips."""
RADIANCE = (".hdr", ".exr", ".npy", ".pfm")


class Request(NamedTuple):
    """What the command line asks for.

    Args:
        folder: the download.
        out: where the data go; None for data sets that stay where they are.
        seed: what draws those that are held out.
        names: their names instead, one a line.
    """

    folder: Path
    out: Path | None
    seed: int = 0
    names: str | None = None

    @property
    def target(self) -> Path:
        """`out`, which must be given and be empty.

        Raises:
            UserError: it is not.
        """
        if self.out is None:
            raise UserError("OUT: say where the data shall go, as `relume prepare data` shows")
        if self.out.is_dir() and any(self.out.iterdir()):
            raise UserError(f"{self.out}: is not empty; remove it first, or choose another folder")
        return self.out


def prepare(name: str | None, folder: str | None, out: str | None, seed: int, names: str | None) -> str:
    """Prepare the data set `name`; what was done, in words. Without a name, or a folder, where it comes from.

    Raises:
        UserError: there is no such data set, or its files are not there or do not fit together.
    """
    if name is None:
        return table()
    if name not in KNOWN:
        raise UserError(f"{name}: no such data set is known.{did_you_mean(name, KNOWN)} Known: {', '.join(KNOWN)}")
    if name not in WAYS and folder is not None:
        raise UserError(f"{name}: needs no preparation: unpack it to {KNOWN[name].folder}")
    if folder is None:
        return "\n".join(f"{key}: {value}" for key, value in KNOWN[name]._asdict().items())
    if not expanded(folder).is_dir():
        raise UserError(f"{folder}: there is no such folder. It is fetched from {KNOWN[name].source}")
    done = WAYS[name](Request(expanded(folder), None if out is None else expanded(out), seed, names))
    return f"{done} (published: {KNOWN[name].counts})"


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
        raise UserError(f"{request.names}: names files that are not there: {listing(absent)}")
    return listed


def partners(inputs: Folder, targets: Folder) -> list[str]:
    """The keys of two folders' files.

    Raises:
        UserError: some have no partner.
    """
    alone = sorted(set(inputs.files) ^ set(targets.files))
    if alone:
        raise UserError(f"{inputs.root}, {targets.root}: files without a partner: {listing(alone)}")
    return list(inputs.files)


def link(source: str | Path, target: Path) -> None:
    """The same file under another name, or where a file system has no such links, a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def first_folder(root: Path, *names: str) -> Folder:
    """The first of some sub-folders that is there.

    Raises:
        UserError: none is.
    """
    for name in names:
        if (root / name).is_dir():
            return Folder(str(root / name))
    there = sorted(p.name for p in root.iterdir() if p.is_dir())
    raise UserError(f"{root}: has no folder {' or '.join(names)}. There is: {listing(there) or 'nothing'}")


def lsui(request: Request) -> str:
    """LSUI: ``input`` and ``GT`` in two parts."""
    inputs, targets = first_folder(request.folder, "input", "Input"), first_folder(request.folder, "GT", "gt")
    keys, out = partners(inputs, targets), request.target
    test = held_out(keys, 400, request)
    for key in keys:
        part = "test" if key in test else "train"
        for source, kind in ((inputs, "input"), (targets, "gt")):
            link(source.path(source.files[key]), out / part / kind / source.files[key])
    return f"{len(keys) - len(test)} pairs to train on and {len(test)} to test: {out}"


def uieb(request: Request) -> str:
    """UIEB: lists of both parts."""
    inputs, targets = (first_folder(request.folder, name) for name in ("raw-890", "reference-890"))
    keys = partners(inputs, targets)
    test = held_out(keys, 90, request)
    for name, chosen in (("train.txt", [k for k in keys if k not in test]), ("test.txt", sorted(test))):
        lines = [targets.files[key] for key in chosen]
        write_bytes(request.folder / name, ("\n".join(lines) + "\n").encode())
    return f"{len(keys) - len(test)} names in train.txt and {len(test)} in test.txt: {request.folder}"


def aim(request: Request) -> str:
    """AIM: pictures, radiance and prompts of one name, wherever they lie in the download."""
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
            link(request.folder / path, out / ("val_hdr" if key in val else "train_hdr") / kind / path.name)
    prompts = sum(key in found["dgain_info"] for key in keys)
    return f"{len(keys) - len(val)} pairs to train on and {len(val)} held out, {prompts} with dgain: {out}"


def blurred(root: Path) -> list[tuple[str, str, str]]:
    """Of each blurred image in ``<scene>/blur``: its name, its partner's, and the stem that both get.

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


def crop_pair(root: Path, pair: tuple[str, str, str], out: Path) -> int:
    """Write the crops of one pair; how many.

    Raises:
        UserError: the images differ in size, or are smaller than a crop.
    """
    blur, sharp, stem = pair
    images = {k: read_pixels(root / name) for k, name in (("input", blur), ("target", sharp))}
    height, width = images["input"].shape[:2]
    if images["target"].shape != images["input"].shape or min(height, width) < PATCH:
        raise UserError(
            f"{root / blur}: is {height}x{width}; both images of a pair are equally large, and at least {PATCH}"
        )
    places = [(y, x) for y in windows(height, PATCH, STEP, 0) for x in windows(width, PATCH, STEP, 0)]
    for i, (y, x) in enumerate(places, 1):
        for kind, image in images.items():
            imwrite(out / kind / f"{stem}_s{i:03d}.png", image[y : y + PATCH, x : x + PATCH])
    return len(places)


def gopro(request: Request) -> str:
    """GoPro: crops of the training images, and whole test images, named after their scenes."""
    out, roots = request.target, {part: request.folder / part for part in ("train", "test")}
    pairs = {part: blurred(root) for part, root in roots.items()}
    if not any(pairs.values()):
        raise UserError(f"{request.folder}: has no train/<scene>/blur and test/<scene>/blur; GOPRO_Large has")
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # reading and writing images holds no lock
        crops = sum(pool.map(lambda pair: crop_pair(roots["train"], pair, out / "train"), pairs["train"]))
    for blur, sharp, stem in pairs["test"]:
        for kind, name in (("input", blur), ("target", sharp)):
            link(roots["test"] / name, out / "test" / kind / f"{stem}{PurePosixPath(name).suffix}")
    return f"{crops} crops to train on and {len(pairs['test'])} pairs to test: {out}"


def hide(request: Request) -> str:
    """HIDE: the test images of both of its folders, and their sharp images."""
    inputs, targets = first_folder(request.folder, "test"), first_folder(request.folder, "GT", "gt", "sharp")
    sharp = {PurePosixPath(n).name: n for n in targets.files.values()}
    names = {PurePosixPath(n).name: n for n in inputs.files.values()}
    if absent := sorted(set(names) - set(sharp)):
        raise UserError(f"{targets.root}: has no sharp image of {listing(absent)}")
    out = request.target
    for name in names:
        link(inputs.path(names[name]), out / "test/input" / name)
        link(targets.path(sharp[name]), out / "test/target" / name)
    return f"{len(names)} pairs to test: {out}"


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
    """Xiph: the first hundred frames of eight clips, in 8 bits."""
    videos = [p for p in sorted(request.folder.iterdir()) if p.suffix.lower() in VIDEOS]
    files = {}
    for clip in XIPH_CLIPS:
        found = [p for p in videos if re.search(rf"(?:^|_){clip}(?:_|\.)", p.name)]
        if len(found) != 1:
            raise UserError(f"{request.folder}: has {len(found)} videos whose names hold {clip}_, and needs one")
        files[clip] = found[0]
    out = request.target
    for clip, file in files.items():
        video = Video(str(file))
        if len(video) < FRAMES:
            raise UserError(f"{file}: has {len(video)} frames, and needs {FRAMES}")
        for number, image in video.frames():
            if number >= FRAMES:
                break
            pixels = image()
            if pixels.dtype == np.uint16:  # to 8 bits, rounded
                pixels = (pixels.astype(np.float32) / 257 + 0.5).astype(np.uint8)
            imwrite(out / f"{clip}-{number + 1:03d}.png", pixels)
    return f"{FRAMES} frames of each of {len(files)} clips: {out}"


WAYS: dict[str, Callable[[Request], str]] = {
    "lsui": lsui,
    "uieb": uieb,
    "aim": aim,
    "gopro": gopro,
    "hide": hide,
    "snu-film": snu_film,
    "x-test": x_test,
    "xiph": xiph,
}
