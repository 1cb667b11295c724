"""Feature extractors: what all of them promise, and what each of them computes."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torch.nn.functional as F
from filling import waves

from relume.core.errors import UserError
from relume.core.features import FEATURES, build_features

BLOCKS = [
    {"type": "pixel_avgpool"},
    {"type": "pixel_avgpool", "size": 4, "projection": 7},
    {"type": "random_conv"},
    {"type": "random_conv", "width": 4, "levels": 2, "grid": 1, "spread": True},
    {"type": "torchvision:squeezenet1_1", "weights": "random", "input_size": 32},
    {"type": "timm:test_resnet", "weights": "random", "input_size": 32},
]
IDS = ["pixel", "projected", "random", "spread", "torchvision", "timm"]


def images(*shape):
    return waves("images", shape).float()


@pytest.fixture(scope="module")
def build():
    def make(block):
        if block["type"].startswith("timm"):
            pytest.importorskip("timm")
        return build_features(block)

    return make


@pytest.mark.parametrize("block", BLOCKS, ids=IDS)
def test_promises(build, block):
    extractor = build(block)
    x = images(3, 3, 16, 16).requires_grad_()
    found = extractor.train()(x)
    assert found.shape == (3, extractor.dim) and found.dtype == torch.float32
    found.square().sum().backward()
    assert x.grad.abs().sum() > 0 and not any(p.requires_grad for p in extractor.parameters())
    assert not any(m.training for m in extractor.modules())
    torch.testing.assert_close(extractor(x[1:2]), found[1:2], rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(extractor(x), found)


@pytest.mark.parametrize("block", BLOCKS[:4], ids=IDS[:4])
def test_same_block_same_id_and_features(build, block):
    a, b = build(block), build(block)
    assert a.id == b.id and torch.equal(a(images(2, 3, 16, 16)), b(images(2, 3, 16, 16)))


def test_ids_tell_weights_and_settings_apart():
    blocks = [*BLOCKS[:4], {"type": "random_conv", "seed": 1}, {"type": "random_conv", "grid": 1}]
    assert len({build_features(b).id for b in blocks}) == len(blocks)


def test_pixels_are_averages():
    x = images(2, 3, 16, 16)
    expected = torch.stack([x[:, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2))
                            for c in range(3) for i in range(8) for j in range(8)], 1)  # fmt: skip
    torch.testing.assert_close(build_features({"type": "pixel_avgpool"})(x), expected)


def test_random_network_is_pinned_and_linear_in_levels():
    found = build_features({"type": "random_conv", "width": 4, "levels": 2, "grid": 1})(images(1, 3, 8, 8))
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(4, 3, 3, 3, generator=generator) * (2 / 27) ** 0.5
    level = F.leaky_relu(F.conv2d(images(1, 3, 8, 8), first, padding=1), 0.2)
    torch.testing.assert_close(found[:, :4], level.mean((2, 3)))
    assert found.sum().item() == pytest.approx(PINNED, rel=1e-4)


PINNED = 3.781010


def test_library_weights_by_path_and_checksum(tmp_path):
    import torchvision

    network = torchvision.models.squeezenet1_1(weights=None)
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    block = {"type": "torchvision:squeezenet1_1", "weights": str(path), "input_size": 32}
    extractor = build_features({**block, "sha256": digest[:12]})
    x = images(2, 3, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = network.eval().features(((x + 1) / 2 - mean) / std).flatten(1)
    torch.testing.assert_close(extractor(x), expected)
    with pytest.raises(UserError, match=f"not the file asked for: its SHA-256 is {digest}, not abc"):
        build_features({**block, "sha256": "abc"})
    torch.save({"features.0.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"features.0.weight should have shape \(64, 3, 3, 3\), there is \(2,\)"):
        build_features(block)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"type": "pixel_avgpol"}, "Did you mean 'pixel_avgpool'"),
        ({"type": "torchvision:resnet18"}, "lacks 'weights'"),
        ({"type": "torchvision:resnet18", "weights": "/nowhere.pth"}, "there is no file /nowhere.pth"),
        ({"type": "torchvision:resnet19", "weights": "random"}, "torchvision has no image model 'resnet19'"),
    ],
)
def test_mistakes_are_one_line(block, message):
    with pytest.raises(UserError, match=message) as caught:
        build_features(block)
    assert "\n" not in str(caught.value)


def test_a_missing_library_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="timm:resnet18 needs timm"):
        build_features({"type": "timm:resnet18", "weights": "random"})


def test_names_of_libraries_are_options():
    assert "timm:resnet18" in FEATURES and "timm:" not in FEATURES and "other:resnet18" not in FEATURES
    assert set(FEATURES.parameters("torchvision:resnet18")) == {"weights", "sha256", "input_size"}
