"""The augmentation of triplets and their reading."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.datasets.triplets import Switches, Triplet, TripletDataset, augment, read_list

OFF = Switches(False, False, False, False)


def images(seed: int = 0, size: tuple[int, int] = (40, 56)) -> list[np.ndarray]:
    return [np.random.RandomState(seed + i).randint(0, 256, (*size, 3)).astype(np.uint8) for i in range(3)]


def seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number)


def test_the_original_draws_in_this_order(golden):
    cases = torch.load(golden("vfi/protocol.pt"), weights_only=True)["cases"]
    for case in [c for c in cases if c["name"].startswith("vimeo_aug")]:
        random.seed(case["config"]["python_random_seed"])
        np.random.seed(case["config"]["numpy_seed"])
        frames = [case["input"][key].numpy() for key in ("img0", "gt", "img1")]
        (img0, gt, img1), _ = augment(frames, 0.5, case["config"]["crop"], Switches())
        cat = np.concatenate([image.transpose(2, 0, 1) for image in (img0, img1, gt)])
        assert np.array_equal(cat, case["output"]["cat_img0_img1_gt"].numpy())


def test_augmentation_fingerprint():
    seed(5)
    changed, time = augment(images(), 0.25, 16, Switches())
    assert [int(image[3, 4, 1]) for image in changed] == [217, 42, 185] and time == 0.25


def test_each_switch_does_what_it_says_and_moves_no_other_choice():
    for number in range(12):
        outputs = []
        for switches in (OFF, Switches(True, False, False, False), Switches(False, True, False, False)):
            seed(number)
            outputs.append(augment(images(), 0.25, 24, switches))
        (plain, time), (channels, _), (swapped, other) = outputs
        assert time == 0.25 and other in (0.25, 0.75)
        assert np.array_equal(channels[0], plain[0]) or np.array_equal(channels[0], plain[0][..., ::-1])
        assert np.array_equal(swapped[0], plain[2 if other == 0.75 else 0])
        seed(number)
        turned, _ = augment(images(), 0.25, 24, Switches(False, False, True, True))
        symmetries = [np.rot90(image, k) for image in (plain[1], plain[1][::-1]) for k in range(4)]
        assert any(np.array_equal(turned[1], image) for image in symmetries)


@pytest.fixture
def root(tmp_path, write_images):
    write_images(tmp_path, {"a": (40, 48), "b": (40, 48), "c": (40, 48), "d": (40, 44)})
    return tmp_path


def test_frames_of_different_sizes(root):
    dataset = TripletDataset(root, [Triplet(("a.png", "b.png", "d.png"))], "list.txt")
    with pytest.raises(UserError, match=r"d\.png: is 40x44 \(height x width\), but .*a\.png is 40x48"):
        dataset[0]


def test_missing_frames_are_named(root):
    with pytest.raises(UserError, match=r"list\.txt: 1 of 3 frames are not in .*: x\.png"):
        TripletDataset(root, [Triplet(("a.png", "x.png", "b.png"))], "list.txt")


def test_patches_larger_than_frames(root):
    triplets = [Triplet(("a.png", "b.png", "c.png"), name="n")]
    dataset = TripletDataset(root, triplets, "list", gt_size=48)
    with pytest.raises(UserError, match=r"gt_size 48 is larger than 1 of 1"):
        dataset.require_patch(48)
    with pytest.raises(UserError, match=r"b\.png: is 40x48 .* smaller than the patch gt_size 48"):
        dataset[0]
    enlarging = TripletDataset(root, triplets, "list", gt_size=48, enlarge=True)
    enlarging.require_patch(48)
    item = enlarging[0]
    assert item["gt"].shape == (3, 48, 48) and item["name"] == "n" and 0 <= item["gt"].min() <= item["gt"].max() <= 1


def test_lists(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("00001/0001\n\n00001/0002\n\n")
    assert read_list(path, "00001/0001") == [(1, "00001/0001"), (3, "00001/0002")]
    path.write_text("\n\n")
    with pytest.raises(UserError, match=r"list\.txt: the list is empty; expected lines such as '00001/0001'"):
        read_list(path, "00001/0001")
    with pytest.raises(UserError, match=r"other\.txt: cannot be read"):
        read_list(tmp_path / "other.txt", "00001/0001")
