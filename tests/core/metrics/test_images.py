"""Whatever form an image comes in, the score is the same; what cannot be scored is one clear line."""

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.metrics import calculate_metric
from relume.core.metrics.images import LUMA, luma, prepared


@pytest.fixture
def pair():
    """Two RGB images (14, 15, 3), uint8."""
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (2, 14, 15, 3), dtype=np.uint8)


def score(img, img2, **options):
    return calculate_metric({"img": img, "img2": img2}, {"type": "calculate_psnr", **options})


def tensor(image, dtype=torch.float32):
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1).to(dtype) / 255


def test_every_form_of_an_image_gives_the_same_score(pair):
    x, y = pair
    expected = score(x, y)
    assert score(x.transpose(2, 0, 1), y.transpose(2, 0, 1), input_order="CHW") == expected
    assert score(x / 255, y / 255) == pytest.approx(expected, abs=1e-9)
    assert score(x.astype(np.float32), y.astype(np.float32)) == expected  # floats in [0, 255]
    assert score(x.astype(np.uint16) * 257, y.astype(np.uint16) * 257) == pytest.approx(expected, abs=1e-9)
    assert score(tensor(x), tensor(y)) == pytest.approx(expected, abs=1e-5)
    assert score(tensor(x)[None], tensor(y)[None]) == pytest.approx(expected, abs=1e-5)
    assert score(torch.from_numpy(x).permute(2, 0, 1), torch.from_numpy(y).permute(2, 0, 1)) == expected
    assert score(tensor(x, torch.float64), y / 255, color_order="rgb") == pytest.approx(expected, abs=1e-6)
    assert score(tensor(x, torch.bfloat16), tensor(y, torch.bfloat16)) == pytest.approx(expected, abs=0.05)


def test_gray_images_need_no_channel_axis(pair):
    x, y = pair[..., 0]
    assert score(x, y) == score(x[..., None], y[..., None])


def test_color_order_matters_to_luma_only(pair):
    x, y = pair
    assert score(x, y, color_order="rgb") == pytest.approx(score(x, y), abs=1e-12)
    on_luma = score(x, y, color_order="rgb", test_y_channel=True)
    assert on_luma == score(x[..., ::-1], y[..., ::-1], test_y_channel=True)  # arrays are BGR unless told
    assert on_luma == pytest.approx(score(tensor(x), tensor(y), test_y_channel=True), abs=1e-5)  # tensors are RGB
    assert abs(on_luma - score(x, y, test_y_channel=True)) > 1e-3


def test_luma_of_the_primaries():
    primaries = 255 * np.eye(3)[None]
    assert luma(primaries)[0, :, 0] == pytest.approx(16 + np.array(LUMA), abs=1e-5)
    assert luma(np.full((1, 1, 3), 255.0)).item() == pytest.approx(235)
    assert luma(np.zeros((1, 1, 3))).item() == pytest.approx(16)


def test_overshooting_floats_stay_in_their_range():
    reference = np.linspace(0, 1.4, 300).reshape(10, 10, 3)
    wild = reference.copy()
    wild[0, 0, 0] = 7.0  # a result's outlier must not change the range
    x, y = prepared("x", wild, reference)
    assert y.max() == pytest.approx(1.4 * 255)
    assert x.max() == pytest.approx(7 * 255)
    clipped, _ = prepared("x", wild, reference, clip=True)
    assert clipped.max() == 255


def test_data_range_overrules(pair):
    ten_bits = pair.astype(np.uint16) * 4
    assert score(*ten_bits, data_range=1020) == pytest.approx(score(*pair), abs=1e-9)
    linear = pair.astype(np.float32) * 40
    assert score(*linear, data_range=255 * 40) == pytest.approx(score(*pair), abs=1e-4)
    assert score(*pair.astype(np.int64), data_range=255) == score(*pair)


def test_crop_border_cuts_every_side(pair):
    x, y = pair
    dirty = x.copy()
    dirty[[0, 1, -2, -1]], dirty[:, [0, 1, -2, -1]] = 0, 0
    assert score(dirty, y, crop_border=2) == score(x[2:-2, 2:-2], y[2:-2, 2:-2])


def test_inputs_are_not_modified(pair):
    x, y = pair
    before = pair.copy()
    options = {"type": "calculate_ssim", "crop_border": 1, "test_y_channel": True, "better": "higher"}
    calculate_metric({"img": x, "img2": y}, options)
    assert (pair == before).all()
    assert options == {"type": "calculate_ssim", "crop_border": 1, "test_y_channel": True, "better": "higher"}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda y: y[:-1], {}, r"different sizes, \(14, 15, 3\) and \(13, 15, 3\)"),
        (lambda y: y / 255, {}, "different types, uint8 and float64"),
        (lambda y: y, {"crop_border": 7}, "crop_border 7 does not fit an image of 14x15"),
        (lambda y: y, {"crop_border": -1}, "crop_border -1 does not fit"),
        (lambda y: y[None], {}, r"2 or 3 dimensions.*\(1, 14, 15, 3\)"),
        (lambda y: y[:0], {}, "none of them empty"),
    ],
)
def test_what_cannot_be_compared(pair, change, options, message):
    x, y = pair
    with pytest.raises(UserError, match=message):
        score(x, change(y), **options)


def test_ranges_that_are_not_said(pair):
    with pytest.raises(UserError, match=r"uint8, uint16 or floats; got int64 \(or give data_range\)"):
        score(*pair.astype(np.int64))
    with pytest.raises(UserError, match=r"floats are in \[0, 1\] or \[0, 255\], and here reach 1[0-9]+"):
        score(*(pair * 4.0))


def test_batches_are_refused():
    with pytest.raises(UserError, match="one image at a time, got a batch of 2"):
        score(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8))
