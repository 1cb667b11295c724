"""core/imaging/partial.py: a patch of a JPEG file is the patch of the whole picture, to the bit."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relume.core.errors import UserError
from relume.core.imaging import partial
from relume.core.imaging.image_io import read_pixels
from relume.core.imaging.opencv import cv2
from relume.datasets import build_dataset
from relume.datasets.loading.worker import seeded


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Structure and noise."""
    rng = np.random.default_rng(height)
    smooth = cv2.resize(rng.random((5, 6, channels), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(
        (
            np.clip(smooth.reshape(height, width, channels) + rng.normal(0, 0.05, (height, width, channels)), 0, 1)
            * 255
        ).astype(np.uint8)
    )


def jpeg(image: np.ndarray, **settings: object) -> bytes:
    """A JPEG file by Pillow."""
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "JPEG", **settings)
    return file.getvalue()


WHOLE = {
    "4:2:0": {"subsampling": "4:2:0"},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:4:4": {"subsampling": "4:4:4", "quality": 98},
    "restarts": {"subsampling": "4:2:0", "restart_marker_rows": 2},
    "coarse": {"quality": 10, "optimize": True},
}


@pytest.mark.parametrize("kind", [*WHOLE, "gray", "4:4:0", "4:1:1"])
@pytest.mark.parametrize("size", [(97, 71), (64, 48), (33, 130)])
def test_windows_are_those_of_the_whole_picture(kind: str, size: tuple[int, int]) -> None:
    if kind == "gray":
        data = jpeg(picture(*size, 1))
    elif kind in WHOLE:
        data = jpeg(picture(*size), **WHOLE[kind])
    else:
        factor = {"4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440, "4:1:1": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411}[kind]
        data = cv2.imencode(".jpg", picture(*size), [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])[1].tobytes()
    whole = read_pixels(data, "x.jpg")
    found = partial.undecoded(data, "x.jpg")
    assert found is not None and found.shape == whole.shape
    rng = random.Random(1)
    for _ in range(6):
        top, left = rng.randrange(size[0] - 16), rng.randrange(size[1] - 16)
        window = found[top : top + 16, left : left + 16]
        assert np.array_equal(window, whole[top : top + 16, left : left + 16])
    assert np.array_equal(found[size[0] - 16 : size[0], 0:16], whole[-16:, :16]) and partial._as_whole == [True]
    assert np.array_equal(np.asarray(found), whole)


def test_others_are_decoded_whole() -> None:
    image = picture(40, 30)
    turned = Image.Exif()
    turned[0x0112] = 6
    upright = Image.Exif()
    upright[0x0112] = 1
    cmyk = io.BytesIO()
    Image.fromarray(image).convert("CMYK").save(cmyk, "JPEG")
    plain = jpeg(image)
    for data in (
        jpeg(image, progressive=True),
        jpeg(image, exif=turned),
        cmyk.getvalue(),
        plain[:-200],
        b"",
        plain[:20],
    ):
        assert partial.undecoded(data, "x.jpg") is None
    assert partial.undecoded(cv2.imencode(".png", image)[1].tobytes(), "x.png") is None
    assert partial.undecoded(jpeg(image, exif=upright), "x.jpg") is not None


@pytest.mark.parametrize("same", [True, False])
def test_a_data_set_gives_the_same_patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool) -> None:
    monkeypatch.setattr(partial, "_as_whole", [] if same else [False])
    for i, settings in enumerate(WHOLE.values()):
        for which, side in (("lq", 40), ("gt", 80)):
            (tmp_path / which).mkdir(exist_ok=True)
            (tmp_path / which / f"{i}.jpg").write_bytes(jpeg(picture(side, side + 2 * i * side // 40), **settings))
    block = {"type": "PairedImageDataset", "dataroot_lq": str(tmp_path / "lq"), "dataroot_gt": str(tmp_path / "gt")}
    block |= {"gt_size": 16, "use_hflip": True, "use_rot": True}
    dataset = build_dataset({**block, "io_backend": {"type": "disk", "cache": 0}}, phase="train", scale=2)
    kept = build_dataset({**block, "io_backend": {"type": "disk", "cache": 0.01}}, phase="train", scale=2)
    for i in range(len(dataset)):
        items = []
        for each in (dataset, kept):  # what is kept is decoded whole
            with seeded(3, i):
                items.append(each[i])
        assert all(torch.equal(items[0][k], items[1][k]) for k in ("lq", "gt"))
    (tmp_path / "gt" / "0.jpg").write_bytes(jpeg(picture(80, 80))[:-300])
    with pytest.raises(UserError, match=r"0\.jpg: cannot be decoded; the file is truncated"):
        dataset[0]
