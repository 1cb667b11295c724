"""How many images a second one loading process reads and cuts, by how they are kept."""

from __future__ import annotations

import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from relume.core.imaging.image_io import imwrite
from relume.core.imaging.opencv import cv2
from relume.datasets import build_dataset
from relume.datasets.kept import Pool, Shelf

from .common import Row, section

COUNT, SIDE, TILE, PATCH = 12, 1536, 512, 128
"""Whole pictures, about the size of DIV2K's; tiles of them; what is cut of either."""


def picture(seed: int) -> np.ndarray:
    """A picture that compresses as photographs do: clouds at several scales, and some grain. (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    total = np.zeros((SIDE, SIDE, 3), np.float32)
    for cells in (6, 48, 384):
        total += cv2.resize(rng.random((cells, cells, 3), np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) / 3
    return np.asarray((np.clip(total + rng.normal(0, 0.004, total.shape), 0, 1) * 255).astype(np.uint8))


def speed(block: dict[str, object], frames: int = 1) -> float:
    """Images per second of CPU time in this process, each having been seen once before."""
    kind = {"type": "PairedImageDataset"} if frames == 1 else {"type": "ClipsDataset", "num_frame": frames}
    dataset = build_dataset({**kind, "gt_size": PATCH, **block}, phase="train", scale=1)
    rounds = [i % len(dataset) for i in range(max(len(dataset), 2 * COUNT // frames))]
    for i in range(len(dataset)):
        dataset[i]
    began = time.process_time()
    for i in rounds:
        dataset[i]
    return 2 * frames * len(rounds) / (time.process_time() - began)


def write(root: Path) -> None:
    """The same pictures in every kind."""
    from relume.core.cli import main

    for which in ("lq", "gt"):
        (root / "jpeg" / which).mkdir(parents=True)
        (root / "video" / which).mkdir(parents=True)
        film = cv2.VideoWriter(
            str(root / "video" / which / "film.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 24, (SIDE, SIDE)
        )
        for i in range(COUNT):
            pixels = picture(i)
            imwrite(root / "png" / which / f"{i:02d}.png", pixels)
            cv2.imwrite(str(root / "jpeg" / which / f"{i}.jpg"), pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            film.write(np.roll(picture(0), 4 * i, 1)[..., ::-1])
        film.release()
        whole = str(root / "png" / which)
        main(["prepare", "crop", whole, str(root / "tiles" / which), "--size", str(TILE), "--step", str(TILE)])
        for folder in ("png", "tiles"):
            main(["prepare", "lmdb", str(root / folder / which), str(root / f"{folder}_{which}.lmdb")])
        with zipfile.ZipFile(root / f"{which}.zip", "w") as archive:
            for file in sorted((root / "png" / which).glob("*.png")):
                archive.write(file, file.name)
    main(["prepare", "tar", str(root / "png/lq"), str(root / "tar"), "--gt", str(root / "png/gt")])


@section("reading")
def reading() -> list[Row]:
    """Images of lq and gt, of which the same window is cut at random; the peer is the same with io_backend.cache."""
    kinds: dict[str, tuple[str, str, str, int]] = {
        "PNG": ("disk", "png/lq", "png/gt", 1),
        "PNG in LMDB": ("lmdb", "png_lq.lmdb", "png_gt.lmdb", 1),
        "PNG in tar files": ("tar", "tar", "tar", 1),
        "PNG in a zip file": ("zip", "lq.zip", "gt.zip", 1),
        "JPEG": ("disk", "jpeg/lq", "jpeg/gt", 1),
        f"PNG tiles of {TILE}": ("disk", "tiles/lq", "tiles/gt", 1),
        f"PNG tiles of {TILE} in LMDB": ("lmdb", "tiles_lq.lmdb", "tiles_gt.lmdb", 1),
        "video (MPEG-4), windows of 4 frames": ("disk", "video/lq", "video/gt", 4),
    }
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write(root)
        for kind, (backend, lq, gt, frames) in kinds.items():
            roots = {"dataroot_lq": str(root / lq), "dataroot_gt": str(root / gt)}
            plain: dict[str, object] = {**roots, "io_backend": {"type": backend}}
            kept: dict[str, object] = {**roots, "io_backend": {"type": backend, "cache": 1.0}}
            before, after = (max(speed(block, frames) for _ in range(2)) for block in (plain, kept))
            what = f"{PATCH}x{PATCH} of {SIDE}x{SIDE}, {kind}"
            rows.append((what, f"{before:.0f} images/s", f"{after:.0f} images/s with cache", f"{after / before:.1f} x"))
    return [*rows, *water(), *radiance()]


def per_second(dataset: Any, rounds: int = 60) -> float:
    """Samples per second of CPU time in this process, each having been seen once before."""
    for i in range(len(dataset)):
        dataset[i]
    began = time.process_time()
    for i in range(rounds):
        dataset[i % len(dataset)]
    return rounds / (time.process_time() - began)


def on_device(what: str, build: Callable[[bool], Any]) -> Row:
    """What is left to a loading process where the photometric part is done on the device; best of two."""
    here, there = (max(per_second(build(on)) for _ in range(2)) for on in (False, True))
    return what, f"{here:.0f} samples/s", f"{there:.0f} samples/s on_device", f"{there / here:.1f} x"


def water() -> list[Row]:
    """Underwater pictures, whose photographs are kept decoded."""

    def build(side: int, on: bool) -> Any:
        block = {"type": "SyntheticUnderwaterDataset", "source": "skimage", "gt_size": side, "on_device": on}
        dataset: Any = build_dataset(block, phase="train")
        source = dataset.photographs[0][0]
        source.keep(Shelf(Pool(1 << 28), len(source.files)))
        return dataset

    return [on_device(f"underwater, {side}x{side}", partial(build, side)) for side in (PATCH, 2 * PATCH)]


def radiance_files(root: str, side: int) -> None:
    """Eight pictures (``lq``, PNG) and their radiance (``gt``, Radiance files), with this side, in a folder."""
    for i in range(8):
        image = cv2.resize(picture(i)[: side // 4, : side // 4], (side, side)).astype(np.float32) / 255
        imwrite(Path(root, "lq", f"{i}.png"), image)
        imwrite(Path(root, "gt", f"{i}.hdr"), (1000**image).astype(np.float32))


def radiance() -> list[Row]:
    """Pictures and radiance of 256 x 256, as the AIM 2025 data are."""
    with tempfile.TemporaryDirectory() as root:
        radiance_files(root, 256)

        def build(transfer: str, on: bool) -> Any:
            block = {"type": "LDR_HDR_PairedDataset", "dataroot_lq": f"{root}/lq", "dataroot_gt": f"{root}/gt"}
            block |= {"dgain": 2.0, "gamma": 1.8, "gt_size": 256, "transfer": transfer, "on_device": on}
            return build_dataset(block, phase="train", scale=1)

        return [on_device(f"HDR pairs of 256x256, {t}", partial(build, t)) for t in ("log1p", "pq")]
