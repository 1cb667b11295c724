"""Reading and writing images."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.imaging import image_io
from relume.core.imaging.image_io import imread, imwrite, read_pixels
from relume.core.imaging.storage import UnreadableFile

RNG = np.random.RandomState(0)
EIGHT = RNG.randint(0, 256, (24, 31, 3)).astype(np.uint8)
SIXTEEN = RNG.randint(0, 65536, (24, 31, 3)).astype(np.uint16)


def save(path, bgr):
    path.write_bytes(cv2.imencode(path.suffix, bgr)[1].tobytes())
    return path


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp", ".ppm"])
def test_eight_bits_are_exact_and_in_rgb_order(suffix, tmp_path):
    path = save(tmp_path / f"x{suffix}", EIGHT[..., ::-1])
    image = imread(path)
    assert image.dtype == np.float32
    assert np.array_equal(image, EIGHT.astype(np.float32) / np.float32(255))
    assert np.array_equal(imread(path.read_bytes(), "x" + suffix), image)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_not_cut(suffix, tmp_path):
    path = save(tmp_path / f"x{suffix}", SIXTEEN[..., ::-1])
    assert np.array_equal(read_pixels(path), SIXTEEN)
    assert np.array_equal(imread(path), SIXTEEN.astype(np.float32) / np.float32(65535))


@pytest.mark.parametrize("image", [EIGHT, SIXTEEN])
def test_gray_is_repeated(image, tmp_path):
    gray = image[..., 0]
    assert np.array_equal(read_pixels(save(tmp_path / "x.png", gray)), np.repeat(gray[..., None], 3, 2))


def test_alpha_is_dropped_with_one_warning_per_owner(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(image_io, "_told_of_alpha", set())
    bgra = np.dstack([EIGHT[..., ::-1], np.full(EIGHT.shape[:2], 7, np.uint8)])
    paths = [save(tmp_path / f"{i}.png", bgra) for i in range(3)]
    with caplog.at_level(logging.WARNING, logger="relume"):
        for path in paths:
            assert np.array_equal(read_pixels(path, owner="the set"), EIGHT)
    assert [r.getMessage() for r in caplog.records] == [
        "the set: has images with an alpha channel (transparency), which is dropped"
    ]


def test_jpegs_are_turned_upright(tmp_path):
    pil = pytest.importorskip("PIL.Image")
    exif = pil.Exif()
    exif[0x112] = 6  # turned by a quarter
    pil.fromarray(EIGHT).save(tmp_path / "x.jpg", exif=exif)
    assert read_pixels(tmp_path / "x.jpg").shape == (31, 24, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("keep", [0, 30, 0.5, 0.98])
def test_a_truncated_file_is_named(suffix, keep, tmp_path):
    path = save(tmp_path / f"broken{suffix}", EIGHT)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(UnreadableFile, match=f"broken{suffix}"):
        imread(path)


def test_what_is_no_image_or_not_there_is_named(tmp_path):
    (tmp_path / "x.png").write_bytes(b"hello" * 100)
    with pytest.raises(UnreadableFile, match=r"x\.png.*not an image"):
        imread(tmp_path / "x.png")
    with pytest.raises(UnreadableFile, match=r"y\.png.*No such file"):
        imread(tmp_path / "y.png")


def test_float_samples_are_refused_rather_than_guessed_at(tmp_path):
    path = save(tmp_path / "x.tiff", EIGHT.astype(np.float32))
    with pytest.raises(UnreadableFile, match="float32 samples"):
        imread(path)


@pytest.mark.parametrize(("bits", "dtype", "most"), [(8, np.uint8, 255), (16, np.uint16, 65535)])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_a_written_image_comes_back(bits, dtype, most, suffix, tmp_path):
    image = RNG.rand(9, 11, 3).astype(np.float32)
    imwrite(tmp_path / "new" / f"a{suffix}", image, bits)
    imwrite(tmp_path / f"b{suffix}", torch.from_numpy(image).permute(2, 0, 1), bits)
    expected = (image * most).round().astype(dtype)
    assert np.array_equal(read_pixels(tmp_path / "new" / f"a{suffix}"), expected)
    assert np.array_equal(read_pixels(tmp_path / f"b{suffix}"), expected)


def test_out_of_range_values_are_clipped_and_nan_is_black(tmp_path):
    image = torch.tensor([-1.0, 0.5, 2.0, float("nan"), float("inf")]).view(1, 1, 5)
    imwrite(tmp_path / "x.png", image)
    assert cv2.imread(str(tmp_path / "x.png"), cv2.IMREAD_UNCHANGED).tolist() == [[0, 128, 255, 0, 255]]


def test_integers_are_written_as_they_are(tmp_path):
    imwrite(tmp_path / "x.png", SIXTEEN)
    assert np.array_equal(read_pixels(tmp_path / "x.png"), SIXTEEN)


def test_remote_images(tmp_path):
    url = f"memory://{tmp_path.name}/x.png"
    imwrite(url, EIGHT)
    assert np.array_equal(read_pixels(url), EIGHT)


@pytest.mark.parametrize(("name", "bits"), [("x.jpg", 16), ("x.png", 12), ("x.nonsense", 8), ("x", 8)])
def test_impossible_formats_are_user_errors(name, bits, tmp_path):
    with pytest.raises(UserError, match=r"x\.jpg|bit depth 12|'\.nonsense'|x: "):
        imwrite(tmp_path / name, EIGHT / 255.0, bits)
    assert not (tmp_path / name).exists()
