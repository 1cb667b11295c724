"""The DINOv2 extractor: what it makes of images before the network, and which weights it accepts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filling import waves

from relume.archs import dinov2
from relume.core.errors import UserError
from relume.core.features import build_features
from relume.core.features.dinov2 import DINOv2Features

BLOCK = {"type": "dinov2_vits14", "weights": "random", "input_size": 28}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One block instead of twelve."""
    full = dinov2.DINOv2
    monkeypatch.setattr("relume.core.features.dinov2.DINOv2", lambda **options: full(depth=1, img_size=70, **options))


def build(**options: Any) -> DINOv2Features:
    extractor = build_features({**BLOCK, **options})
    assert isinstance(extractor, DINOv2Features)
    return extractor


def test_features_and_their_gradient() -> None:
    extractor = build()
    x = waves("x", (2, 3, 16, 16)).float().requires_grad_()
    found = extractor.train()(x)
    assert found.shape == (2, extractor.dim) == (2, 384)
    found.square().sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in extractor.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(extractor(x), found)
    grey = waves("x", (1, 1, 16, 16)).float()
    assert torch.equal(extractor(grey), extractor(grey.expand(1, 3, 16, 16)))


def test_stored_preprocessing(golden: Callable[[str], Path]) -> None:
    stored = torch.load(golden("generation/dinov2.pt"), weights_only=True)["preprocess"][0]
    prepared = build(input_size=224).prepared(stored["x"])
    assert list(prepared.shape) == stored["out_shape"]
    stride = stored["stride"]
    torch.testing.assert_close(prepared[..., ::stride, ::stride], stored["out_sub"], rtol=1e-5, atol=1e-5)


def test_small_images_are_enlarged_and_keep_their_aspect() -> None:
    assert build(input_size=224).prepared(torch.zeros(1, 3, 28, 28)).shape == (1, 3, 224, 224)
    assert build().prepared(torch.zeros(1, 3, 30, 45)).shape == (1, 3, 28, 42)


def test_weights_from_a_file(tmp_path: Path) -> None:
    extractor = build()
    state = {k: v + 0.01 for k, v in extractor.network.state_dict().items()}
    path = tmp_path / "published.pth"
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = build(weights=str(path), sha256=digest[:12])
    assert torch.equal(loaded.network.cls_token, state["cls_token"])
    assert loaded.id != extractor.id and build(weights=str(path)).id == loaded.id
    assert build(input_size=42).id != extractor.id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weights": "nowhere.pth"},
            r"there is no file nowhere.pth\. Fetch https://dl\S+vits14_pretrain.pth and put it there",
        ),
        ({"weights": "nowhere.pth", "registers": True}, "dinov2_vits14_reg4_pretrain.pth"),
        ({"input_size": 30}, "input_size must be a multiple of 14, not 30"),
    ],
)
def test_impossible_extractors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.bias": None}, r"weights: norm.bias should have shape \(384,\), there is nothing"),
        ({"norm.bias": torch.zeros(5)}, r"there is \(5,\)"),
        (
            {"register_tokens": torch.zeros(1, 4, 384)},
            "register_tokens does not belong to this network; see 'registers'",
        ),
    ],
)
def test_weights_that_do_not_fit(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    state = {**build().network.state_dict(), **change}
    torch.save({k: v for k, v in state.items() if v is not None}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=message):
        build(weights=str(tmp_path / "w.pth"))
