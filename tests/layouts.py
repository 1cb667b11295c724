"""Small data in the layouts in which the shipped option files look for them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np

from relume.core.imaging.image_io import imwrite
from relume.datasets.interpolation_sets import OTHER_SCENES, XIPH_CLIPS

COUNT = 5
"""Images in a folder."""
Size = tuple[int, int]


def picture(path: str | Path, size: Size = (200, 208), seed: int = 0) -> None:
    """Waves and noise, so that no metric divides by nothing."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = np.stack([np.sin(x / (9 + seed) + k) * np.cos(y / (7 + k)) for k in range(3)], axis=2) / 4 + 0.5
    noise = np.random.RandomState(seed).normal(0, 0.05, waves.shape)
    imwrite(path, np.clip(waves + noise, 0, 1))


def pairs(inputs: str, targets: str, size: Size = (200, 208), scale: int = 1) -> None:
    for i in range(COUNT):
        picture(f"{inputs}/{i}.png", (size[0] // scale, size[1] // scale), i)
        picture(f"{targets}/{i}.png", size, i + 10)


def frames(folder: str, names: list[str], size: Size) -> None:
    for i, name in enumerate(names):
        picture(f"{folder}/{name}.png", size, i % 7)


def underwater() -> None:
    for part in ("train", "test"):
        pairs(f"data/LSUI/{part}/input", f"data/LSUI/{part}/gt")
        pairs(f"data/mine/{part}/input", f"data/mine/{part}/gt")
    pairs("data/UIEB/raw-890", "data/UIEB/reference-890")
    Path("data/UIEB/train.txt").write_text("".join(f"{i}.png\n" for i in range(4)))
    Path("data/UIEB/test.txt").write_text("4.png\n")
    singles = ["U45", *(f"UCCS/{n}" for n in ("blue", "blue-green", "green")), "UIEB/challenging-60"]
    for folder in [*singles, *(f"SQUID/{n}" for n in ("Katzaa", "Michmoret", "Nachsholim", "Satil"))]:
        picture(f"data/{folder}/a.png")


def hdr() -> None:
    for part in ("train", "val"):
        root = f"data/AIM_ITM/{part}_hdr"
        for i in range(COUNT):
            picture(f"{root}/jpg/{i}.png", (72, 80), i)
            radiance = np.random.RandomState(i).rand(72, 80, 3).astype(np.float32) * 3
            for kind in ("hdr", "hdr_recover"):
                imwrite(f"{root}/{kind}/{i}.hdr", radiance)
            prompt = Path(f"{root}/dgain_info/{i}.txt")
            prompt.parent.mkdir(parents=True, exist_ok=True)
            prompt.write_text("dgain: 2.0\ngamma: 2.2\n")
    picture("data/pictures/a.png", (72, 80))
    for root in ("data/GoPro/train", "data/GoPro/test", "data/HIDE/test"):
        pairs(f"{root}/input", f"{root}/target", (72, 80))


def vfi() -> None:
    root = "datasets/vimeo_triplet"
    lists = {"tri_trainlist.txt": range(1, 4), "tri_testlist.txt": range(4, 5)}
    for name, numbers in lists.items():
        for n in numbers:
            frames(f"{root}/sequences/00001/{n:04d}", ["im1", "im2", "im3"], (256, 448))
        Path(root, name).write_text("".join(f"00001/{n:04d}\n" for n in numbers))
    frames("datasets/X4K1000FPS/train/s/c", [f"{i:04d}" for i in range(65)], (128, 128))
    frames("datasets/X4K1000FPS/test/Type1/TEST01", [f"{i:04d}" for i in range(33)], (32, 64))
    for level in ("easy", "medium", "hard", "extreme"):
        frames(f"datasets/SNU-FILM/test/{level}", ["0", "1", "2"], (64, 96))
        line = " ".join(f"data/SNU-FILM/test/{level}/{i}.png" for i in range(3))
        Path(f"datasets/SNU-FILM/test-{level}.txt").write_text(f"{line}\n")
    frames("datasets/ucf101_interp_ours/1", ["frame_00", "frame_01_gt", "frame_02"], (64, 64))
    for scene in OTHER_SCENES:
        frames(f"datasets/middlebury/other-data/{scene}", ["frame10", "frame11"], (64, 64))
        frames(f"datasets/middlebury/other-gt-interp/{scene}", ["frame10i11"], (64, 64))
    frames("datasets/xiph", [f"{clip}-{i:03d}" for clip in XIPH_CLIPS for i in range(1, 101)], (20, 40))


def generation() -> None:
    rng = np.random.RandomState(0)
    Path("data/cifar10").mkdir(parents=True)
    with tarfile.open("data/cifar10/cifar-10-binary.tar.gz", "w:gz") as tar:
        for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
            records = rng.randint(0, 256, (12, 1 + 3072)).astype(np.uint8)
            records[:, 0] = np.arange(12) % 10
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            entry.size = records.nbytes
            tar.addfile(entry, io.BytesIO(records.tobytes()))


def realsr() -> None:
    pairs("data/DF2K/DF2K_train_LR_bicubic_X4_sub", "data/DF2K/DF2K_train_HR_sub", (160, 160), 4)
    pairs("data/Set5/LRbicx4", "data/Set5/GTmod12", (96, 96), 4)
    pairs("data/DF2K_OST/a", "data/DF2K_OST/b", (400, 400))
    pairs("data/photographs/a", "data/photographs/b", (400, 400))


def stereo() -> None:
    for scale in (2, 4):
        for part in ("", "/val"):
            for i in range(COUNT):
                for view in (0, 1):
                    picture(f"data/stereo/x{scale}{part}/hr/{i}/hr{view}.png", (120, 360), i + view)
                    picture(f"data/stereo/x{scale}{part}/lr/{i}/lr{view}.png", (120 // scale, 360 // scale), i + view)


LAYOUTS = {f.__name__: f for f in (underwater, hdr, vfi, generation, realsr, stereo)}
"""By the first folder of an option file's name. Files of other folders need no data, or those of `underwater`."""
