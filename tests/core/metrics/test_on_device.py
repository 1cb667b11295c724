"""core/metrics/on_device.py: the scores are those of the functions on the host, and nothing but them leaves the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from waits import counted

from relume.core.metrics import on_device, scoring
from relume.core.metrics.scoring import Scorer

ON_DEVICE: dict[str, dict[str, Any]] = {
    "psnr": {"type": "calculate_psnr"},
    "psnr_y": {"type": "psnr", "crop_border": 4, "test_y_channel": True},
    "of_range": {"type": "psnr", "data_range": 2.0},
    "psnr_pt": {"type": "psnr_pt", "crop_border": 1},
    "skimage": {"type": "psnr_skimage"},
    "mae": {"type": "mae", "test_y_channel": True},
    "ssim": {"type": "ssim"},
    "ssim_y": {"type": "calculate_ssim", "crop_border": 3, "test_y_channel": True, "engine": "own"},
    "ssim_pt": {"type": "ssim_pt"},
}
LEFT_TO_THE_HOST: dict[str, dict[str, Any]] = {
    "ssim3d": {"type": "ssim", "ssim3d": True},
    "bgr": {"type": "psnr", "test_y_channel": True, "color_order": "bgr"},
    "clipped": {"type": "psnr_skimage", "data_range": 0.5},
    "too_large_a_border": {"type": "psnr", "crop_border": 100},
    "funie": {"type": "psnr_funie"},
}


def images(channels: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A smooth picture with noise that leaves [0, 1], and the picture."""
    g = torch.Generator().manual_seed(seed)
    y = torch.nn.functional.interpolate(torch.rand(1, channels, 5, 6, generator=g), size=(37, 46), mode="bicubic")
    return y + 0.05 * torch.randn(y.shape, generator=g), y.clamp(0, 1)


def scored(
    there: bool, monkeypatch: pytest.MonkeyPatch, blocks: Any, pair: tuple[Tensor, Tensor], **settings: Any
) -> Any:
    monkeypatch.setattr(on_device, "holds", lambda image: there)
    return Scorer(blocks, {}, **settings).of_image("set", pair[0], pair[1], {"input": pair[1].flip(3)})


@pytest.mark.parametrize("rounding", ["8bit", "none", "output"])
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_as_on_the_host(monkeypatch: pytest.MonkeyPatch, rounding: Any, channels: int) -> None:
    pair = images(channels)
    blocks = {k: m for k, m in ON_DEVICE.items() if k != "mae" or channels != 6}  # which have no luma together
    settings = {"rounding": {"set": rounding}, "score_input": True}
    there, failed = scored(True, monkeypatch, blocks, pair, **settings)
    here, _ = scored(False, monkeypatch, blocks, pair, **settings)
    assert not failed and list(there) == list(here) and len(there) == 2 * len(blocks)
    for name, value in here.items():
        assert there[name] == pytest.approx(value, abs=1e-8 if "ssim" in name else 1e-6), name


def test_equal_images_have_an_infinite_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    _, y = images()
    scores, _ = scored(True, monkeypatch, {k: ON_DEVICE[k] for k in ("psnr", "ssim", "psnr_pt")}, (y, y))
    assert scores == {"psnr": float("inf"), "ssim": pytest.approx(1), "psnr_pt": pytest.approx(80)}


def test_what_has_no_form_there_is_left_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = images()
    blocks = {**LEFT_TO_THE_HOST, "psnr": ON_DEVICE["psnr"]}
    there, here = (scored(place, monkeypatch, blocks, pair) for place in (True, False))
    assert there[0] == pytest.approx(here[0], abs=1e-6) and list(there[0]) == list(here[0])
    assert [str(e) for e in there[1].values()] == [str(e) for e in here[1].values()] and "too_large_a_border" in there[
        1
    ]
    monkeypatch.setattr(on_device, "holds", lambda image: True)
    assert list(on_device.scores(blocks, *pair, "8bit")) == ["psnr"]


def test_nothing_but_scores_leaves_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "holds", lambda image: True)

    def none(*_: Any, **__: Any) -> Any:
        raise AssertionError("an image was brought to the host")

    monkeypatch.setattr(scoring, "for_metrics", none)
    scorer = Scorer(ON_DEVICE, {})
    with counted() as seen:
        scores, failures = scorer.of_image("set", *images(), {})
    assert len(scores) == len(ON_DEVICE) and not failures
    assert sum(seen.values()) == 3 and sum(v for k, v in seen.items() if k.startswith("tolist")) == 1, seen


def test_too_little_memory_there_is_no_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(on_device.COMPUTED, "calculate_ssim", full)
    blocks = {"ssim": ON_DEVICE["ssim"]}
    pair = images()
    assert scored(True, monkeypatch, blocks, pair) == scored(False, monkeypatch, blocks, pair)
