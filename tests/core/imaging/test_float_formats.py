"""Files of floating-point images: what survives a round trip, layouts by hand, and damaged files."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from filling import image

from relume.core.errors import UserError
from relume.core.imaging import float_formats
from relume.core.imaging.float_formats import FLOAT_READERS, FLOAT_WRITERS
from relume.core.imaging.image_io import imread, imwrite, read_pixels
from relume.core.imaging.storage import UnreadableFile
from relume.datasets.radiance import RADIANCE_READERS

SUFFIXES = sorted(FLOAT_WRITERS)


def radiance(*size: int) -> np.ndarray:
    """(H, W, 3) float32 from 1e-3 to 1e4, all channels different."""
    return 10 ** (7 * image("radiance", 1, 3, *size)[0].permute(1, 2, 0).numpy() - 3)


@pytest.fixture(autouse=True)
def _exr(request):
    """Tests with .exr need its package."""
    if ".exr" in str(request.node.name):
        pytest.importorskip("OpenEXR")


def read(path):
    return read_pixels(path, readers=RADIANCE_READERS)


def write(path, scene):
    imwrite(path, scene, bit_depth=32)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trips(suffix, tmp_path):
    scene = radiance(9, 13)
    write(tmp_path / f"a{suffix}", scene)
    found = read(tmp_path / f"a{suffix}")
    assert found.dtype == np.float32 and found.shape == (9, 13, 3)
    if suffix == ".hdr":
        assert (np.abs(found - scene) <= scene.max(axis=2, keepdims=True) / 127).all()
    else:
        assert np.array_equal(found, scene)
    write(tmp_path / f"t{suffix}", torch.from_numpy(scene).permute(2, 0, 1))
    assert np.array_equal(read(tmp_path / f"t{suffix}"), found), "tensors are written as arrays are"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_gray_is_repeated(suffix, tmp_path):
    write(tmp_path / f"a{suffix}", radiance(4, 6)[..., :1])
    found = read(tmp_path / f"a{suffix}")
    assert found.shape == (4, 6, 3) and np.array_equal(found[..., 0], found[..., 2])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_large_images_and_what_is_far_out_of_range(suffix, tmp_path):
    scene = np.zeros((3, 5000, 3), np.float32)
    scene[1, ::7] = (1e-6, 3.0, 6e4)
    write(tmp_path / f"a{suffix}", scene)
    found = read(tmp_path / f"a{suffix}")
    assert np.abs(found - scene).max() <= 6e4 / 127 and np.array_equal(found == 0, scene == 0) | (suffix == ".hdr")


def test_pfm_by_hand():
    """Portable float map: rows from the bottom up, RGB, little-endian when the scale is negative."""
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    little = b"PF\n2 2\n-1.0\n" + values[::-1].astype("<f4").tobytes()
    big = b"PF\n2 2\n1.0\n" + values[::-1].astype(">f4").tobytes()
    for data in (little, big):
        assert np.array_equal(read_pixels(data, "x.pfm", readers=FLOAT_READERS), values)


def test_radiance_hdr_by_hand():
    """Without run-length encoding: a shared exponent of 128 + e, mantissas m: the value is m / 256 * 2^e."""
    data = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 2\n" + bytes([128, 64, 32, 130, 255, 0, 1, 128])
    found = read_pixels(data, "x.hdr", readers=FLOAT_READERS)
    expected = [[[2.0, 1.0, 0.5], [255 / 256, 0.0, 1 / 256]]]
    assert found == pytest.approx(np.array(expected), abs=2 / 256)


def npy(array: np.ndarray, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_npy_shapes_and_types():
    scene = radiance(4, 5)
    for array in (scene, scene[None], scene[None, None], scene.astype(np.float64)):
        assert np.array_equal(read_pixels(npy(array), "x.npy", readers=FLOAT_READERS), scene)
    half = read_pixels(npy(scene.astype(np.float16)), "x.npy", readers=FLOAT_READERS)
    assert half.dtype == np.float32 and np.allclose(half, scene, rtol=1e-3)
    assert read_pixels(npy(scene[..., 0]), "x.npy", readers=FLOAT_READERS).shape == (4, 5, 3)


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 8, 9)), r"has the shape \(3, 8, 9\); \(H, W, 3\) RGB or \(H, W\) are expected"),
        (np.zeros((2, 8, 9, 3)), "has the shape"),
        (np.zeros((0, 9, 3)), "has the shape"),
        (np.zeros((8, 9, 3), np.uint16), "holds uint16 samples; floats are expected"),
        (np.array([Evil()], dtype=object), r"x\.npy: not a readable \.npy array of numbers \(Object arrays cannot"),
    ],
)
def test_npy_arrays_that_are_no_images(array, message):
    with pytest.raises(UnreadableFile, match=message):
        read_pixels(npy(array, allow_pickle=array.dtype == object), "x.npy", readers=FLOAT_READERS)


def test_npz_is_refused():
    buffer = io.BytesIO()
    np.savez(buffer, np.zeros((3, 4, 3)))
    with pytest.raises(UnreadableFile, match=r"x\.npy: is an archive"):
        read_pixels(buffer.getvalue(), "x.npy", readers=FLOAT_READERS)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", ["empty", "text", "beginning"])
def test_damaged_files(suffix, damage, tmp_path, capfd):
    write(tmp_path / f"a{suffix}", radiance(40, 30))
    whole = (tmp_path / f"a{suffix}").read_bytes()
    data = {"empty": b"", "text": b"dgain: 2.0\n", "beginning": whole[: len(whole) // 2]}[damage]
    with pytest.raises(UnreadableFile, match=rf"b\{suffix}: [a-z].*") as caught:
        read_pixels(data, f"b{suffix}", readers=RADIANCE_READERS)
    assert "\n" not in str(caught.value)
    if suffix != ".exr":  # OpenEXR cannot be kept from saying more
        assert capfd.readouterr().err == ""


def test_exr_halfs_alpha_and_other_channels(tmp_path):
    exr = pytest.importorskip("OpenEXR")
    scene = radiance(5, 6)
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    planes = {c: np.ascontiguousarray(scene[..., i].astype(np.float16)) for i, c in enumerate("RGB")}
    planes["A"] = np.ones((5, 6), np.float16)
    exr.File(header, planes).write(str(tmp_path / "a.exr"))
    assert np.array_equal(read(tmp_path / "a.exr"), scene.astype(np.float16).astype(np.float32))
    exr.File(header, {"Z": scene[..., 0].copy()}).write(str(tmp_path / "z.exr"))
    with pytest.raises(UnreadableFile, match=r"z\.exr: has the channels Z; R, G, B or Y are needed"):
        read(tmp_path / "z.exr")


def test_without_the_exr_package(monkeypatch, tmp_path):
    def absent(module: str, wanted_by: str, install: str) -> None:
        raise UserError(f"{wanted_by} needs {module}. Try: {install}")

    monkeypatch.setattr(float_formats, "require", absent)
    with pytest.raises(UserError, match=r"writing \.exr needs OpenEXR.*pip install 'relume\[hdr\]'"):
        imwrite(tmp_path / "a.exr", radiance(3, 4))
    with pytest.raises(UserError, match=r"a\.exr: reading \.exr needs OpenEXR"):
        read_pixels(b"data", "a.exr", readers=FLOAT_READERS)


@pytest.mark.parametrize("suffix", [".tif", ".tiff"])
def test_tiff_holds_integers_unless_floats_are_asked_for(suffix, tmp_path):
    scene = radiance(6, 7)
    imwrite(tmp_path / f"a{suffix}", scene / scene.max(), 16)
    assert read(tmp_path / f"a{suffix}").dtype == np.uint16
    assert np.abs(imread(tmp_path / f"a{suffix}") - scene / scene.max()).max() < 1 / 65535
    double = bytes(cv2.imencode(suffix, scene.astype(np.float64)[..., ::-1])[1])
    assert np.array_equal(read_pixels(double, f"x{suffix}", readers=RADIANCE_READERS), scene)
    write(tmp_path / f"f{suffix}", scene)
    with pytest.raises(UnreadableFile, match="holds float32 samples; 8- and 16-bit integer images can be read"):
        imread(tmp_path / f"f{suffix}")
    with pytest.raises(UserError, match=r"a\.png: \.png cannot hold floats; \.hdr, .* can"):
        write(tmp_path / "a.png", scene)


@pytest.mark.parametrize(
    ("suffix", "scene", "message"),
    [
        (".hdr", np.full((2, 3, 3), -1.0), r"\.hdr holds no negative radiance \(here -1\)"),
        (".npy", np.full((2, 3, 3), np.nan), "NaN or infinite"),
        (".tif", np.full((2, 3, 3), np.nan), "NaN or infinite"),
        (".pfm", np.full((2, 3), np.inf), "NaN or infinite"),
        (".hdr", np.zeros((2, 3, 2)), r"this image \(\(2, 3, 2\)\) cannot be written as '\.hdr'"),
        (".npy", np.zeros((0, 3, 3)), "cannot be written"),
    ],
)
def test_what_cannot_be_written(suffix, scene, message, tmp_path):
    with pytest.raises(UserError, match=message):
        write(tmp_path / f"a{suffix}", scene)
    assert not list(tmp_path.iterdir())
