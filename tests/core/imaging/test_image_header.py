"""Sizes and completeness from files' bytes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from relume.core.imaging.image_header import image_size, is_truncated

IMAGE = np.random.RandomState(0).randint(0, 255, (37, 53, 3), np.uint8)


def encode(suffix, image=IMAGE):
    return cv2.imencode(suffix, image)[1].tobytes()


def with_thumbnail(jpeg):
    """The file with a small JPEG inside its first segment, as cameras write them."""
    inner = b"Exif\0\0" + encode(".jpg", IMAGE[:16, :16])
    return jpeg[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner + jpeg[2:]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_the_size_needs_no_decoding(suffix):
    assert image_size(encode(suffix)[:2000]) == (37, 53)


def test_a_thumbnail_does_not_mislead():
    data = with_thumbnail(encode(".jpg"))
    assert image_size(data) == (37, 53)
    assert not is_truncated(data)
    assert is_truncated(data[: data.rfind(b"\xff\xda") + 40])


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", encode(".tiff"), b"\xff\xd8\xff\xe0\x00"])
def test_what_is_not_understood_has_no_size(data):
    assert image_size(data) is None


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncation_is_seen_and_trailing_data_are_not(suffix):
    data = encode(suffix)
    assert not is_truncated(data)
    assert not is_truncated(data + b"video" * 50_000)
    assert is_truncated(data[: len(data) // 2])
    assert is_truncated(data[:-3] if suffix == ".jpg" else data[:-10])
