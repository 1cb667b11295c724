"""Small image folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from relume.core.imaging.image_io import imwrite


@pytest.fixture
def write_images() -> Callable[..., None]:
    """``write_images(folder, {"a": (24, 32)})``: random PNG images, at a bit depth, the same for the same arguments."""

    def write(folder: Path | str, sizes: dict[str, tuple[int, int]], bits: int = 8, suffix: str = ".png") -> None:
        rng = np.random.RandomState(len(sizes))
        for name, size in sizes.items():
            imwrite(f"{folder}/{name}{suffix}", rng.rand(*size, 3), bits)

    return write


@pytest.fixture
def paired(tmp_path: Path, write_images: Callable[..., None]) -> dict[str, str]:
    """Eight pairs of 40x48 images in the folders ``input`` and ``gt``: the options of a dataset."""
    sizes = {f"{i:02d}": (40, 48) for i in range(8)}
    write_images(tmp_path / "gt", sizes)
    write_images(tmp_path / "input", sizes)
    return {"type": "PairedImageDataset", "dataroot": str(tmp_path)}
