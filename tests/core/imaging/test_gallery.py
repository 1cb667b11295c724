"""Which files the results of an image become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from relume.core.imaging.gallery import Gallery
from relume.core.imaging.image_io import imread


def test_both_views_of_a_stereo_pair_are_written(tmp_path: Path) -> None:
    gallery = Gallery(
        tmp_path, lambda dataset, name, iteration: f"{name}_x.png", save_images=True, save_comparisons=True
    )
    pair = torch.rand(1, 6, 200, 220, generator=torch.Generator().manual_seed(0))
    gallery.save("Flickr1024", "0001", 5, 0, {"input": None, "output": pair, "target": pair})
    folder = tmp_path / "Flickr1024"
    assert sorted(p.name for p in folder.iterdir()) == ["0001_x_L.png", "0001_x_R.png", "0001_x_comparison.png"]
    for name, channels in (("L", slice(0, 3)), ("R", slice(3, 6))):
        written = imread(str(folder / f"0001_x_{name}.png"))
        np.testing.assert_allclose(written, pair[0, channels].permute(1, 2, 0).numpy(), atol=0.5001 / 255)
    assert imread(str(folder / "0001_x_comparison.png")).shape[1] > 4 * 220
