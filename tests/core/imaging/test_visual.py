"""Pictures: right colours in the right places, whatever the sizes."""

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.imaging.visual import BACKGROUND, SEPARATOR, SMALLEST, comparison, grid, to_uint8


def plain(red, green, blue, height=200, width=200):
    return torch.tensor([red, green, blue]).view(3, 1, 1).expand(3, height, width)


def colours(picture):
    """The distinct colours of a picture that cover more than one pixel in a hundred, captions' ink aside."""
    values, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(map(int, v)) for v, n in zip(values, counts, strict=True) if n > picture.size / 300}


def test_to_uint8_clips_rounds_and_moves_channels():
    x = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.7, float("nan"), 127.4 / 255, 127.6 / 255]).view(1, 2, 4)
    assert to_uint8(x)[..., 0].tolist() == [[0, 0, 128, 255], [255, 0, 127, 128]]
    rgb = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    assert to_uint8(rgb).shape == (5, 7, 3)
    assert to_uint8(rgb)[2, 3].tolist() == (rgb[:, 2, 3] * 255).round().tolist()
    assert to_uint8(rgb[None].bfloat16()).shape == (1, 5, 7, 3)


def test_to_uint8_of_arrays():
    x = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert to_uint8(x) is x
    assert (to_uint8(x / 255) == x).all()
    assert (to_uint8(x.astype(np.uint16) * 257) == x).all()


def test_comparison_shows_each_image_at_the_largest_size():
    picture = comparison({"input": plain(1.0, 0, 0, 100, 100), "output": plain(0, 1.0, 0), "target": plain(0, 0, 1.0)})
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 3 * 200 + 4 * SEPARATOR
    assert picture.shape[0] > 200 + 2 * SEPARATOR  # room for captions
    body = picture[-SEPARATOR - 200 : -SEPARATOR]
    centres = [SEPARATOR + 100 + i * (200 + SEPARATOR) for i in range(3)]
    assert body[100, centres].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert (body[:, SEPARATOR + 200 : 2 * SEPARATOR + 200] == BACKGROUND).all()
    assert (body[:, SEPARATOR : SEPARATOR + 200] == [255, 0, 0]).all()


def test_captions_are_written_above_their_image():
    picture = comparison({"input": plain(1.0, 0, 0), "": plain(0, 1.0, 0)})
    caption = picture[SEPARATOR : -SEPARATOR - 200]
    first, second = caption[:, :204], caption[:, 204 + SEPARATOR :]
    assert first.min() < 100
    assert (second == BACKGROUND).all()
    ink = np.flatnonzero((first < 128).any(axis=(0, 2)))
    assert abs((ink[0] + ink[-1]) / 2 - 102) < 6  # centred


def test_long_captions_fit():
    caption = comparison({"x" * 200: plain(1.0, 0, 0)})[SEPARATOR : -SEPARATOR - 200]
    assert (caption[:, : SEPARATOR + 2] == BACKGROUND).all()
    assert (caption[:, -SEPARATOR - 2 :] == BACKGROUND).all()
    assert caption.min() < BACKGROUND


@pytest.mark.parametrize(("size", "height"), [((1, 1), SMALLEST), ((32, 48), SMALLEST), ((2000, 30), 1024)])
def test_comparison_keeps_panels_in_a_useful_size(size, height):
    picture = comparison({"a": plain(0.0, 0.5, 1.0, *size), "b": plain(0.0, 0.5, 1.0, *size)})
    red = (picture == [0, 128, 255]).all(axis=2)
    assert red.any(axis=1).sum() == height


def test_gray_and_batched_images():
    picture = comparison({"a": torch.full((1, 1, 200, 200), 0.2), "b": np.full((200, 200), 51, np.uint8)})
    assert colours(picture) == {(51, 51, 51), (255, 255, 255)}


def test_grid_wraps_rows_and_leaves_the_rest_blank():
    images = [plain(c / 10, 0, 0, 10, 20) for c in range(5)]
    picture = grid(images, columns=3)
    assert picture.shape == (2 * 10 + 3 * SEPARATOR, 3 * 20 + 4 * SEPARATOR, 3)
    rows = [SEPARATOR + 5, 2 * SEPARATOR + 15]
    columns = [SEPARATOR + 10 + i * (20 + SEPARATOR) for i in range(3)]
    assert picture[rows[0], columns, 0].tolist() == [0, 26, 51]
    assert picture[rows[1], columns, 0].tolist() == [76, 102, 255]
    assert grid(images[:2], columns=8).shape[1] == 2 * 20 + 3 * SEPARATOR


def test_grid_centres_narrow_images():
    picture = grid([plain(1.0, 0, 0, 10, 30), plain(0, 0, 1.0, 10, 10)], columns=1)
    row = picture[2 * SEPARATOR + 15]
    assert (row[SEPARATOR : SEPARATOR + 10] == BACKGROUND).all()
    assert (row[SEPARATOR + 10 : SEPARATOR + 20] == [0, 0, 255]).all()


def test_mistakes():
    for images, columns, labels in (([], 2, []), ([plain(0, 0, 0)], 0, []), ([plain(0, 0, 0)], 1, ["a", "b"])):
        with pytest.raises(UserError, match="a grid needs images"):
            grid(images, columns, labels)
    with pytest.raises(UserError, match="a grid needs images"):
        comparison({})
