"""DF2K, SIDD, REDS and Vimeo-90K's septuplets from small downloads to what their datasets read; dry runs, interruptions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from relume.core.cli import main
from relume.core.imaging.image_io import imwrite, read_pixels
from relume.core.preparation import crops, layouts
from relume.datasets import build_dataset


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"SIDE": 12, "STEP": 8, "PATCH": 8, "DISTANCE": 4}.items():
        monkeypatch.setattr(layouts, name, value)


def picture(path: str, size: tuple[int, int] = (16, 20), seed: int = 0) -> np.ndarray:
    image = np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)
    imwrite(path, image)
    return image


def prepare(*arguments: str) -> int:
    return main(["prepare", "data", *arguments, "--workers", "2"])


def below(folder: str) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


def test_df2k_in_sub_images_of_the_same_places(capsys: pytest.CaptureFixture[str]) -> None:
    for name, folder, seed in (("0001", "DIV2K_train", 0), ("000001", "Flickr2K/Flickr2K", 1)):
        sharp = picture(f"down/{folder}_HR/{name}.png", (24, 28), seed)
        imwrite(f"down/{folder}_LR_bicubic/X4/{name}x4.png", np.ascontiguousarray(sharp[::4, ::4]))
    assert prepare("df2k", "down", "data/DF2K", "--dry_run") == 0
    assert not Path("data").exists()
    assert "would be written: 18 sub-images of 2 images, and X4: data/DF2K" in capsys.readouterr().out
    assert prepare("df2k", "down", "data/DF2K") == 0
    hr, lr = "data/DF2K/DF2K_train_HR_sub", "data/DF2K/DF2K_train_LR_bicubic_X4_sub"
    assert below(hr) == below(lr) and len(below(hr)) == 18 and not Path("data/DF2K.unfinished").exists()
    for name in below(hr):
        assert np.array_equal(read_pixels(f"{hr}/{name}")[::4, ::4], read_pixels(f"{lr}/{name}"))
    block = {"type": "PairedImageDataset", "dataroot_gt": hr, "dataroot_lq": lr, "gt_size": 12}
    assert len(build_dataset(block, phase="train", scale=4)) == 18
    Path("down/DIV2K_train_LR_bicubic/X4/0001x4.png").rename("down/DIV2K_train_LR_bicubic/X4/0002x4.png")
    assert prepare("df2k", "down", "other") == 2
    assert "0002x4.png: is 6x7, and its sharp image is not there, for X4" in capsys.readouterr().err


def test_sidd_in_crops_and_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    from scipy.io import savemat

    for scene in ("0001_001_S6", "0002_001_S6"):
        for i, kind in enumerate(("GT", "NOISY")):
            picture(f"down/Data/{scene}/0001_{kind}_SRGB_010.PNG", (12, 16), i)
    blocks = np.random.RandomState(5).randint(0, 256, (2, 3, 8, 8, 3)).astype(np.uint8)
    savemat("down/ValidationNoisyBlocksSrgb.mat", {"ValidationNoisyBlocksSrgb": blocks})
    assert prepare("sidd", "down", "half") == 2 and "needs both" in capsys.readouterr().err
    savemat("down/ValidationGtBlocksSrgb.mat", {"ValidationGtBlocksSrgb": 255 - blocks})
    assert prepare("sidd", "down", "data/SIDD") == 0
    assert "12 crops of 2 pairs to train on and 6 to validate" in capsys.readouterr().out
    noisy = read_pixels("down/Data/0002_001_S6/0001_NOISY_SRGB_010.PNG")
    assert np.array_equal(read_pixels("data/SIDD/train/input/0002_001_S6_010_s006.png"), noisy[4:, 8:])
    assert np.array_equal(read_pixels("data/SIDD/val/target/0001_02.png"), 255 - blocks[1, 2])
    for part in ("train", "val"):
        assert below(f"data/SIDD/{part}/input") == below(f"data/SIDD/{part}/target")


def test_reds_numbers_validation_on(capsys: pytest.CaptureFixture[str]) -> None:
    for part, clips in (("train", ("000", "001")), ("val", ("000",))):
        for clip in clips:
            for i in range(4):
                picture(f"down/{part}_sharp/{part}/{part}_sharp/{clip}/{i:08d}.png", (16, 16), i)
                picture(f"down/{part}/{part}_sharp_bicubic/X4/{clip}/{i:08d}.png", (4, 4), i)
    assert prepare("reds", "down", "data/REDS") == 0
    assert Path("data/REDS/meta_info_REDS_GT.txt").read_text() == "000 4 (16,16,3)\n001 4 (16,16,3)\n240 4 (16,16,3)\n"
    block = {
        "type": "REDSDataset", "dataroot_gt": "data/REDS/train_sharp", "dataroot_lq": "data/REDS/train_sharp_bicubic/X4",
        "meta_info_file": "data/REDS/meta_info_REDS_GT.txt", "num_frame": 3, "val_partition": "official", "gt_size": 8,
    }  # fmt: skip
    assert len(build_dataset(block, phase="train", scale=4)) == 8
    assert len(build_dataset({**block, "test_mode": True}, phase="val", scale=4)) == 4
    Path("down/train/train_sharp_bicubic/X4/001/00000002.png").unlink()
    assert prepare("reds", "down", "again") == 2
    assert "001: has other frames than" in capsys.readouterr().err and not Path("again").exists()


def test_septuplets_get_their_lists(capsys: pytest.CaptureFixture[str]) -> None:
    for clip in ("00001/0001", "00001/0002"):
        for i in range(1, 8):
            picture(f"v/sequences/{clip}/im{i}.png", (8, 12), i)
    Path("v/sep_trainlist.txt").write_text("00001/0001\n")
    Path("v/sep_testlist.txt").write_text("00001/0002\n")
    assert prepare("vimeo90k-septuplet", "v") == 0 and "1 train, 1 test" in capsys.readouterr().out
    assert Path("v/meta_info_Vimeo90K_test_GT.txt").read_text() == "00001/0002 7 (8,12,3)\n"
    Path("v/sequences/00001/0002/im7.png").unlink()
    assert prepare("vimeo90k-septuplet", "v") == 2
    assert "1 of 7 frames are not in v: sequences/00001/0002/im7.png" in capsys.readouterr().err


def test_what_was_interrupted_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for scene in "AB":
        for i, kind in enumerate(("GT", "NOISY")):
            picture(f"down/{scene}/0001_{kind}_SRGB_010.PNG", (12, 16), i)
    written: list[str] = []

    def until_the_power_fails(path: Path, image: np.ndarray, depth: int) -> None:
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(str(path))
        imwrite(path, image, depth)

    monkeypatch.setattr(crops, "imwrite", until_the_power_fails)
    command = ["prepare", "data", "sidd", "down", "out", "--workers", "1"]
    assert main(command) == 130
    assert not Path("out").exists() and len(below("out.unfinished")) == 7 + 1
    assert main([*command, "--seed", "1"]) == 2
    assert "out.unfinished: was made of down with seed 0, not 1" in capsys.readouterr().err
    monkeypatch.setattr(crops, "imwrite", lambda path, *rest: (written.append(str(path)), imwrite(path, *rest)))
    assert main(command) == 0
    assert len(written) == len(set(written)) == len(below("out")) == 24, "each was written once"
    assert main(command) == 2 and "out: is not empty" in capsys.readouterr().err
    shutil.rmtree("out")
    picture("out.unfinished/mine.png")
    assert main(command) == 2 and "was not made here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("df2k", "has neither DIV2K_train_HR nor Flickr2K_HR"),
        ("sidd", "has no files ..._GT_SRGB_010.PNG"),
        ("reds", "has no train_sharp/000"),
        ("vimeo90k-septuplet", "sep_trainlist.txt: is missing"),
    ],
)
def test_bad_input(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("down").mkdir()
    assert prepare(name, "down", "o") == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not [*Path().glob("o*")]
