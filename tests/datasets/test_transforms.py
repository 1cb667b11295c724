"""Crops, flips, resizing, conversion."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.imaging.normalisation import normalise
from relume.datasets import transforms
from relume.datasets.transforms import (
    luma,
    pad_to_patch,
    random_crop,
    random_flip_rotate,
    random_symmetry,
    resize,
    to_tensor,
)


def numbered(height, width):
    """An image whose pixels say where they are."""
    return np.arange(height * width).reshape(height, width, 1).repeat(3, 2)


def enlarge(image, scale):
    return image.repeat(scale, 0).repeat(scale, 1)


def test_crops_are_aligned_and_reach_every_place():
    lq = numbered(6, 7)
    corners = set()
    for i in range(300):
        random.seed(i)
        a, b = random_crop([lq, enlarge(lq, 3)], 12, 3, "x")
        assert a.shape == (4, 4, 3)
        assert np.array_equal(b, enlarge(a, 3))
        corners.add(int(a[0, 0, 0]))
    assert corners == {y * 7 + x for y in range(3) for x in range(4)}


def test_a_patch_larger_than_the_image_names_it_and_both_sizes():
    with pytest.raises(UserError, match=r"a\.png: is 6x7 pixels .* gt_size 8"):
        random_crop([numbered(6, 7)], 8, 1, "a.png")


def test_padding_reflects_and_keeps_images_aligned():
    lq = numbered(3, 4)
    a, b = pad_to_patch([lq, enlarge(lq, 2)], 12, 2)
    assert a.shape == (6, 6, 3)
    assert np.array_equal(b[::2, ::2], a)
    assert np.array_equal(a[3:], a[:3][::-1])
    assert pad_to_patch([lq], 3, 1)[0].shape == lq.shape


def test_flips_and_rotations_are_the_same_for_both_and_only_the_allowed_ones():
    image = numbered(4, 4)
    square = {np.rot90(f, k).tobytes() for f in (image, image[:, ::-1]) for k in range(4)}
    seen = {"both": set(), "flip": set(), "symmetry": set()}
    for i in range(200):
        random.seed(i)
        a, b = random_flip_rotate([image, enlarge(image, 2)], True, True)
        assert np.array_equal(b, enlarge(a, 2))
        seen["both"].add(a.tobytes())
        seen["flip"].add(random_flip_rotate([image], True, False)[0].tobytes())
        a, b = random_symmetry([image, enlarge(image, 2)])
        assert np.array_equal(b, enlarge(a, 2))
        seen["symmetry"].add(a.tobytes())
    assert seen["both"] == seen["symmetry"] == square
    assert seen["flip"] == {image.tobytes(), image[:, ::-1].tobytes()}


def test_resize_equals_the_originals(golden):
    case = torch.load(golden("underwater/transforms.pt"), weights_only=True)
    image = case["image_u8_hwc"].numpy()
    side = case["size"]
    assert torch.equal(to_tensor(resize(image, side, side)), case["resize_totensor_01"])
    assert torch.equal(to_tensor(resize(image, 2 * side, 2 * side)) * 2 - 1, case["resize_hi_pm1"])


@pytest.mark.parametrize("size", [(5, 9), (16, 40)])
def test_resizing_deeper_images_agrees_up_to_pils_rounding_and_keeps_their_depth(size):
    image = np.random.RandomState(0).randint(0, 256, (16, 21, 3)).astype(np.uint8)
    eight = to_tensor(resize(image, *size))
    sixteen = resize(image.astype(np.uint16) * 257, *size)
    assert sixteen.dtype == np.float32
    assert (to_tensor(sixteen) - eight).abs().max() < 1.5 / 255
    assert np.abs(sixteen * 255 - (sixteen * 255).round()).max() > 0.4  # between the levels of 8 bits


def test_luma_of_known_colours():
    colours = np.array([[[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]], np.float32)
    expected = np.array([16, 235, 16 + 65.481, 16 + 128.553, 16 + 24.966]) / 255
    assert luma(colours).shape == (1, 5, 1)
    assert np.allclose(luma(colours)[0, :, 0], expected, atol=1e-6)


def test_tensors_and_normalisation():
    image = np.array([[[0, 51, 255]]], np.uint8)
    tensor = to_tensor(image)
    assert tensor.dtype == torch.float32 and tensor.shape == (3, 1, 1)
    assert torch.equal(tensor.flatten(), torch.tensor([0.0, 0.2, 1.0]))
    assert to_tensor(np.array([[[65535, 0, 13107]]], np.uint16)).flatten().tolist() == pytest.approx([1, 0, 0.2])
    done = normalise(tensor, [0.5, 0.2, 0.5], [0.5, 1.0, 0.25])
    assert done.flatten().tolist() == pytest.approx([-1.0, 0.0, 2.0])
    assert normalise(tensor, None, None) is tensor


def test_no_image_library_is_needed_where_nothing_is_resized(monkeypatch):
    monkeypatch.setattr(transforms, "require", lambda *a: pytest.fail("PIL was asked for"))
    image = numbered(4, 4).astype(np.uint8)
    assert resize(image, 4, 4) is image


# ------------------------------------------------------------------ the HDR fork of DiffIR
def test_the_original_augmentations(golden):
    data = torch.load(golden("hdr/tone_and_transforms.pt"), weights_only=True)["output"]
    image = data["aug_input"].numpy()
    turned = {mode: np.rot90(image, mode // 2)[:: -1 if mode % 2 else 1] for mode in range(8)}
    for mode, expected in enumerate(data["data_augmentation"]):
        assert np.array_equal(turned[mode], expected.numpy())
    for case in data["random_augmentation"]:
        random.seed(case["seed"])
        assert np.array_equal(random_symmetry([image])[0], case["a"].numpy())
    image = data["crop_input"].numpy()
    for case in data["paired_random_crop_6"]:
        random.seed(case["seed"])
        gt = random_crop([image], 6, 1, "x")[0]
        assert np.array_equal(gt, case["gt"].numpy())
    image = data["pad_input"].numpy()
    assert np.array_equal(pad_to_patch([image], 8, 1)[0], data["padding_8_BORDER_REFLECT"].numpy())
    assert np.array_equal(pad_to_patch([image], 8, 1, mode="reflect")[0], data["padding_triple_8_REFLECT_101"].numpy())
    for case in data["random_augmentation_triple"]:
        random.seed(case["seed"])
        assert np.array_equal(random_flip_rotate([image], True, True)[0], case["a"].numpy())
