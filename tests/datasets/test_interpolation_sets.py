"""The published sets on small copies of their layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.imaging.image_io import imwrite
from relume.datasets import build_dataset
from relume.datasets.interpolation_sets import OTHER_SCENES, XTestDataset
from relume.datasets.loading.worker import seeded


def build(name: str, root: Path, phase: str = "test", **options):
    return build_dataset({"type": name, "dataroot": str(root), **options}, phase=phase)


@pytest.fixture
def vimeo(tmp_path, write_images):
    for clip in ("00001/0001", "00001/0002", "00002/0001"):
        write_images(tmp_path / "sequences" / clip, {f"im{k}": (32, 48) for k in range(1, 8)})
    (tmp_path / "tri_trainlist.txt").write_text("00001/0001\n00001/0002\n\n")
    (tmp_path / "tri_testlist.txt").write_text("00002/0001\n")
    (tmp_path / "sep_trainlist.txt").write_text("00001/0001\n00001/0002\n")
    return tmp_path


def test_vimeo_triplets(vimeo):
    test = build("Vimeo90KDataset", vimeo)
    item = test[0]
    assert len(test) == 1 and item["name"] == "00002_0001_im2" and item["timestep"] == 0.5
    assert item["gt_path"].endswith("sequences/00002/0001/im2.png") and item["img0_path"].endswith("im1.png")
    assert item["gt"].shape == (3, 32, 48)
    train = build("Vimeo90KDataset", vimeo, "train", gt_size=16)
    assert len(train) == 2 and train[1]["img1"].shape == (3, 16, 16)
    assert test.score_rounding == "none" and test.published_as == "Vimeo90K" and test.partial == "1 of 3782 samples"


def test_vimeo_septuplets(vimeo):
    block = {"layout": "septuplet", "gt_size": 16}
    fixed = build("Vimeo90KDataset", vimeo, "train", **block)
    assert [name.split("/")[-1] for name in fixed.triplets[0].files] == ["im1.png", "im4.png", "im7.png"]
    assert fixed.published_as is None
    loose = build("Vimeo90KDataset", vimeo, "train", random_frames=True, use_reverse_time=False, **block)
    times = set()
    for seed in range(20):
        with seeded(seed):
            _, triplet = loose.triplet(0)
        a, b, c = (int(name[-5]) for name in triplet.files)
        assert 1 <= a < b < c <= 7 and triplet.timestep == (b - a) / (c - a)
        times.add(triplet.timestep)
    assert len(times) > 4
    with pytest.raises(UserError, match="random_frames: triplets have only one"):
        build("Vimeo90KDataset", vimeo, "train", random_frames=True, gt_size=16)


def test_vimeo_that_is_incomplete(vimeo):
    (vimeo / "tri_testlist.txt").write_text("00002/0001\n00003/0007\n")
    with pytest.raises(UserError, match=r"tri_testlist\.txt: 3 of 6 frames are not in .*00003/0007/im1\.png"):
        build("Vimeo90KDataset", vimeo)
    with pytest.raises(UserError, match=r"sep_testlist\.txt: cannot be read"):
        build("Vimeo90KDataset", vimeo, layout="septuplet")
    with pytest.raises(UserError, match=r"nowhere.sequences: there is no such folder. Vimeo90K has"):
        build("Vimeo90KDataset", vimeo / "nowhere")
    with pytest.raises(UserError, match="use_rot turns"):
        build("Vimeo90KDataset", vimeo, "train")


def test_ucf101(tmp_path, write_images):
    for folder in ("1", "11", "2"):
        write_images(tmp_path / folder, dict.fromkeys(("frame_00", "frame_01_gt", "frame_02"), (24, 24)))
    dataset = build("UCF101InterpolationDataset", tmp_path)
    assert [dataset[i]["name"] for i in range(3)] == ["1", "2", "11"] and dataset.partial == "3 of 379 samples"
    assert dataset[1]["gt_path"].endswith("2/frame_01_gt.png") and dataset[1]["img0_path"].endswith("frame_00.png")
    (tmp_path / "2" / "frame_01_gt.png").unlink()
    with pytest.raises(UserError, match=r"1 of 9 frames are not in .*: 2/frame_01_gt\.png"):
        build("UCF101InterpolationDataset", tmp_path)


def test_middlebury(tmp_path, write_images):
    for scene in OTHER_SCENES:
        write_images(tmp_path / "other-data" / scene, {"frame10": (20, 24), "frame11": (20, 24)})
        write_images(tmp_path / "other-gt-interp" / scene, {"frame10i11": (20, 24)})
    dataset = build("MiddleburyDataset", tmp_path)
    assert len(dataset) == 12 and not dataset.partial
    assert dataset[2]["name"] == "DogDance" and dataset[2]["gt_path"].endswith("DogDance/frame10i11.png")
    assert len(build("MiddleburyDataset", tmp_path, scenes=["Venus"])) == 1
    with pytest.raises(UserError, match=r"scenes: there is no Venuss\. Did you mean 'Venus'\? There are Beanbags"):
        build("MiddleburyDataset", tmp_path, scenes=["Venuss"])
    (tmp_path / "other-gt-interp/Urban2/frame10i11.png").unlink()
    with pytest.raises(UserError, match=r"1 of 36 frames are not in .*other-gt-interp/Urban2/frame10i11\.png"):
        build("MiddleburyDataset", tmp_path)
    with pytest.raises(UserError, match=r"other-data: there is no such folder"):
        build("MiddleburyDataset", tmp_path / "other-data")


@pytest.mark.parametrize("prefix", ["data/SNU-FILM/test/", "test/", "/somewhere/else/test/"])
def test_snu_film_lists_begin_anywhere(tmp_path, write_images, prefix):
    write_images(tmp_path / "test/GOPRO_test/G1", {f"{i:06d}": (24, 32) for i in range(1, 6)})
    lines = [" ".join(f"{prefix}GOPRO_test/G1/{i + d:06d}.png" for d in (0, 1, 2)) for i in (1, 3)]
    (tmp_path / "test-hard.txt").write_text("\n".join(lines) + "\n\n")
    dataset = build("SNUFILMDataset", tmp_path, level="hard")
    item = dataset[1]
    assert len(dataset) == 2 and item["name"] == "001_test_GOPRO_test_G1_000004"
    assert [p[-10:] for p in (item["img0_path"], item["gt_path"])] == ["000003.png", "000004.png"]
    assert dataset.published_as == "SNU-FILM hard"


def test_snu_film_with_broken_lists(tmp_path, write_images):
    write_images(tmp_path / "test/G", {"1": (8, 8)})
    (tmp_path / "test-easy.txt").write_text("test/G/1.png test/G/1.png\n")
    with pytest.raises(UserError, match=r"test-easy\.txt:1: has 2 paths, not 3"):
        build("SNUFILMDataset", tmp_path, level="easy")
    (tmp_path / "test-easy.txt").write_text("test/G/1.png test/G/2.png test/G/3.png\n")
    with pytest.raises(UserError, match=r"2 of 3 frames are not in .*: test/G/2\.png, test/G/3\.png"):
        build("SNUFILMDataset", tmp_path, level="easy")
    (tmp_path / "test-easy.txt").write_text("\n")
    with pytest.raises(UserError, match="the list is empty"):
        build("SNUFILMDataset", tmp_path, level="easy")
    with pytest.raises(UserError, match=r"test-hard\.txt: cannot be read"):
        build("SNUFILMDataset", tmp_path, level="hard")
    with pytest.raises(UserError, match="level: there is no 'soft'"):
        build("SNUFILMDataset", tmp_path, level="soft")


def touch_xtest(root: Path, frames: int = 33) -> None:
    for clip in ("Type1/TEST01", "Type1/TEST02", "Type2/TEST01", "Type2/TEST02"):
        (root / clip).mkdir(parents=True)
        for i in range(frames):
            (root / clip / f"{i:04d}.png").touch()


def test_the_original_index_of_x_test(tmp_path, golden):
    touch_xtest(tmp_path / "test")
    cases = torch.load(golden("vfi/protocol.pt"), weights_only=True)["cases"]
    for case in [c for c in cases if c["name"].startswith("xtest_index")]:
        multiple, expected = case["config"]["multiple"], case["output"]["triples"]
        dataset = build("XTestDataset", tmp_path, multiple=multiple)
        rows = [[t.files[0], t.files[2], t.files[1], t.timestep] for t in dataset.triplets]
        assert rows == expected


def test_x_test_index_fingerprint(tmp_path):
    touch_xtest(tmp_path)
    dataset = build("XTestDataset", tmp_path)
    assert len(dataset) == 4 * 7 and dataset.partial == "28 of 105 samples"
    _, triplet = dataset.triplet(8)
    assert triplet.files == tuple(f"Type1/TEST02/{i:04d}.png" for i in (0, 8, 32)) and triplet.timestep == 0.25


def test_x_test_2k_is_an_average_that_is_not_rounded(tmp_path, write_images, monkeypatch):
    write_images(tmp_path / "Type1/TEST01", {f"{i:04d}": (24, 40) for i in range(33)})
    whole, half = (build("XTestDataset", tmp_path, resolution=r, multiple=2) for r in ("4k", "2k"))
    assert whole[0]["gt"].shape == (3, 24, 40)
    monkeypatch.setattr(
        "relume.datasets.interpolation_sets.shrink_by_area",
        lambda image, height, width: image.reshape(12, 2, 20, 2, 3).mean((1, 3)),
    )
    item = half[0]
    direct = whole[0]["gt"].reshape(3, 12, 2, 20, 2).mean((2, 4))
    assert torch.allclose(item["gt"], direct, atol=1e-6)
    assert not torch.allclose(item["gt"] * 255, (item["gt"] * 255).round(), atol=1e-3)
    assert half.score_rounding == "output"


def test_x_test_that_is_incomplete(tmp_path):
    touch_xtest(tmp_path, 20)
    with pytest.raises(UserError, match=r"Type1.TEST01: has 20 frames, and needs 33"):
        build("XTestDataset", tmp_path)
    with pytest.raises(UserError, match="multiple: must be"):
        build("XTestDataset", tmp_path, multiple=5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no clips"):
        build("XTestDataset", tmp_path / "empty")
    assert XTestDataset.LAST == 32


def test_xiph(tmp_path, write_images, monkeypatch):
    write_images(tmp_path / "netflix", {f"Tango-{n:03d}": (20, 28) for n in range(1, 101)})
    monkeypatch.setattr("relume.datasets.interpolation_sets.XiphDataset.BORDER", (5, 6))
    dataset = build("XiphDataset", tmp_path, resolution="4k", clips=["Tango"])
    item = dataset[48]
    assert len(dataset) == 49 and item["gt"].shape == (3, 10, 16)
    assert item["gt_path"].endswith("Tango-098.png") and item["img0_path"].endswith("Tango-097.png")
    assert build("XiphDataset", tmp_path, clips=["Tango"])[0]["gt"].shape == (3, 1080, 2048)
    with pytest.raises(UserError, match=r"693 of 792 frames are not in .*BoxingPractice-001\.png"):
        build("XiphDataset", tmp_path)
    with pytest.raises(UserError, match=r"there is no Foxtrot\. There are BoxingPractice"):
        build("XiphDataset", tmp_path, clips=["Foxtrot"])
    monkeypatch.setattr("relume.datasets.interpolation_sets.XiphDataset.BORDER", (10, 6))
    with pytest.raises(UserError, match=r"Tango-001\.png: is 20x28; expected 2160x4096"):
        dataset[0]


def test_shrinking_by_area_keeps_8_bits(tmp_path):
    from relume.datasets.triplets import shrink_by_area

    image = np.random.RandomState(0).randint(0, 256, (8, 12, 3)).astype(np.uint8)
    smaller = shrink_by_area(image, 4, 6)
    direct = image.reshape(4, 2, 6, 2, 3).mean((1, 3))
    assert smaller.dtype == np.uint8 and np.abs(smaller - direct).max() <= 0.5
    imwrite(tmp_path / "x.png", image)
