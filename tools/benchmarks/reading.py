"""How many training patches a second one loading process makes, by how the images are kept."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from relume.core.imaging.image_io import imwrite
from relume.core.imaging.opencv import cv2
from relume.datasets import build_dataset

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


def speed(block: dict[str, object]) -> float:
    """Patches per second of CPU time in this process, each image having been seen once before."""
    dataset = build_dataset({"type": "PairedImageDataset", "gt_size": PATCH, **block}, phase="train", scale=1)
    rounds = [i % len(dataset) for i in range(max(len(dataset), 2 * COUNT))]
    for i in range(len(dataset)):
        dataset[i]
    began = time.process_time()
    for i in rounds:
        dataset[i]
    return len(rounds) / (time.process_time() - began)


@section("reading")
def reading() -> list[Row]:
    """Pairs of lq and gt, of which the same window is cut at random; the peer is a folder of whole PNG files."""
    from relume.core.cli import main

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for i in range(COUNT):
            for which in ("lq", "gt"):
                pixels = picture(i)
                imwrite(root / "png" / which / f"{i}.png", pixels)
                (root / "jpeg" / which).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / "jpeg" / which / f"{i}.jpg"), pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        for which in ("lq", "gt"):
            whole = str(root / "png" / which)
            main(["prepare", "crop", whole, str(root / "tiles" / which), "--size", str(TILE), "--step", str(TILE)])
            main(["prepare", "lmdb", str(root / "tiles" / which), str(root / f"{which}.lmdb")])
        main(["prepare", "tar", str(root / "png/lq"), str(root / "tar"), "--gt", str(root / "png/gt")])

        def folders(kind: str, **more: object) -> dict[str, object]:
            return {"dataroot_lq": f"{root}/{kind}/lq", "dataroot_gt": f"{root}/{kind}/gt", **more}

        kinds: dict[str, Callable[[], float]] = {
            "PNG": lambda: speed(folders("png")),
            "JPEG": lambda: speed(folders("jpeg")),
            "PNG in tar files": lambda: speed(
                {"dataroot_lq": f"{root}/tar", "dataroot_gt": f"{root}/tar", "io_backend": {"type": "tar"}}
            ),
            f"PNG tiles of {TILE}": lambda: speed(folders("tiles")),
            f"PNG tiles of {TILE} in LMDB": lambda: speed(
                {"dataroot_lq": f"{root}/lq.lmdb", "dataroot_gt": f"{root}/gt.lmdb", "io_backend": {"type": "lmdb"}}
            ),
            "PNG, io_backend.cache": lambda: speed(folders("png", io_backend={"type": "disk", "cache": 1.0})),
        }
        found = {kind: max(measured() for _ in range(2)) for kind, measured in kinds.items()}
    peer = found["PNG"]
    return [
        (f"{PATCH}x{PATCH} patches of {SIDE}x{SIDE} pairs, {kind}", f"{value:.0f} pairs/s", f"{peer:.0f} pairs/s PNG",
         f"{value / peer:.1f} x") for kind, value in found.items()
    ]  # fmt: skip
