"""Which files the results of an image become."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from relume.core.imaging.gallery import MOST_WAITING, Gallery
from relume.core.imaging.image_io import imread


def test_both_views_of_a_stereo_pair_are_written(tmp_path: Path) -> None:
    gallery = Gallery(
        tmp_path, lambda dataset, name, iteration: f"{name}_x.png", save_images=True, save_comparisons=True
    )
    pair = torch.rand(1, 6, 200, 220, generator=torch.Generator().manual_seed(0))
    gallery.save("Flickr1024", "0001", 5, 0, {"input": None, "output": pair, "target": pair})
    assert {name for name, wait in gallery.written(all_of_them=True) if wait() is None} == {"0001"}
    folder = tmp_path / "Flickr1024"
    assert sorted(p.name for p in folder.iterdir()) == ["0001_x_L.png", "0001_x_R.png", "0001_x_comparison.png"]
    for name, channels in (("L", slice(0, 3)), ("R", slice(3, 6))):
        written = imread(str(folder / f"0001_x_{name}.png"))
        np.testing.assert_allclose(written, pair[0, channels].permute(1, 2, 0).numpy(), atol=0.5001 / 255)
    assert imread(str(folder / "0001_x_comparison.png")).shape[1] > 4 * 220


def test_files_are_written_by_a_thread_that_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(path: Path, *_: object) -> None:
        begun.set()
        go_on.wait(60)
        if path.stem == "3":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("relume.core.imaging.gallery.imwrite", slow)
    gallery = Gallery(tmp_path, lambda dataset, name, iteration: f"{name}.png", save_images=True)
    for i in range(MOST_WAITING + 2):
        image = torch.rand(1, 3, 8, 8)
        gallery.save("set", f"{i}", 5, i, {"output": image})
        if i < MOST_WAITING:
            assert not list(gallery.written())  # the first one is at work, and those after it are waiting
    assert begun.wait(60) and len(gallery.waiting) == MOST_WAITING + 2
    go_on.set()
    told = dict(gallery.written(all_of_them=True))
    assert list(told) == [f"{i}" for i in range(MOST_WAITING + 2)]
    with pytest.raises(OSError, match="No space left"):
        told["3"]()
    told["4"]()
    assert not any(thread.name.startswith("pictures") for thread in threading.enumerate())
