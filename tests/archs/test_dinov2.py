"""DINOv2 against stored features of the original, a plain transcription, and timm's register model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from filling import fill, waves
from torch import Tensor

from relume.archs.dinov2 import DINOv2, whole_patches
from relume.core.errors import UserError

TINY = {"img_size": 42, "embed_dim": 24, "depth": 2, "num_heads": 3}


def tiny(**options: int) -> DINOv2:
    network = DINOv2(**{**TINY, **options}).double()
    fill(network)
    return network.eval()


def images(height: int, width: int) -> Tensor:
    return waves("x", (2, 3, height, width))


def test_stored_features(golden: Callable[[str], Path]) -> None:
    stored = torch.load(golden("generation/dinov2.pt"), weights_only=True)
    config = stored["config"]
    network = DINOv2(
        img_size=config["img_size"], embed_dim=config["embed_dim"], depth=config["depth"], num_heads=config["num_heads"]
    )
    network.load_state_dict(stored["state_dict"])
    assert sum(p.numel() for p in network.parameters()) == stored["num_params"]
    for case in stored["cases"]:
        with torch.no_grad():
            tokens = network.eval().tokens(case["x"])
            torch.testing.assert_close(network(case["x"]), case["forward"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(tokens[:, 0], case["cls"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(tokens[:, 1:], case["patch"], rtol=1e-4, atol=1e-5)


def test_published_size() -> None:
    with torch.device("meta"):
        network = DINOv2()
    assert sum(p.numel() for p in network.parameters()) == 22_056_576
    assert len(network.state_dict()) == 175
    assert network.pos_embed.shape == (1, 1370, 384)


def transcribed(network: DINOv2, x: Tensor) -> Tensor:
    """The same with attention and positions written out, for one size: the grid of the position embedding."""
    p = dict(network.named_parameters())
    patches = x.unfold(2, 14, 14).unfold(3, 14, 14).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    y = patches @ p["patch_embed.proj.weight"].flatten(1).t() + p["patch_embed.proj.bias"]
    y = torch.cat([p["cls_token"].expand(len(x), -1, -1), y], 1) + p["pos_embed"]

    def norm(t: Tensor, name: str) -> Tensor:
        spread = (t - t.mean(-1, keepdim=True)).square().mean(-1, keepdim=True)
        return (t - t.mean(-1, keepdim=True)) / (spread + 1e-6).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(t: Tensor, name: str) -> Tensor:
        return t @ p[f"{name}.weight"].t() + p[f"{name}.bias"]

    for i in range(2):
        b = f"blocks.{i}"
        heads = []
        qkv = linear(norm(y, f"{b}.norm1"), f"{b}.attn.qkv")
        for h in range(3):
            q, k, v = (qkv[..., 24 * part + 8 * h : 24 * part + 8 * h + 8] for part in range(3))
            heads.append(torch.softmax(q @ k.transpose(1, 2) / 8**0.5, -1) @ v)
        y = y + linear(torch.cat(heads, 2), f"{b}.attn.proj") * p[f"{b}.ls1.gamma"]
        hidden = linear(norm(y, f"{b}.norm2"), f"{b}.mlp.fc1")
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        y = y + linear(hidden, f"{b}.mlp.fc2") * p[f"{b}.ls2.gamma"]
    return norm(y, "norm")


def test_equals_a_transcription_in_value_and_gradient() -> None:
    network, x = tiny(), images(42, 42).requires_grad_()
    found, expected = network.tokens(x), transcribed(network, x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    inputs = [x, *(q for n, q in network.named_parameters() if n != "mask_token")]
    pairs = zip(*(torch.autograd.grad(t.square().sum(), inputs) for t in (found, expected)), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("size", [(28, 56), (84, 42), (14, 14)])
def test_positions_follow_the_image(size: tuple[int, int]) -> None:
    network = tiny()
    rows, columns = size[0] // 14, size[1] // 14
    grid = network.pos_embed[:, 1:].float().reshape(1, 3, 3, 24).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / 3, (columns + 0.1) / 3)
    expected = F.interpolate(grid, scale_factor=scale, mode="bicubic").permute(0, 2, 3, 1).reshape(1, -1, 24)
    torch.testing.assert_close(network.positions(rows, columns)[:, 1:], expected)
    assert network.tokens(images(*size)).shape == (2, 1 + rows * columns, 24)


def test_registers_as_in_timm() -> None:
    timm = pytest.importorskip("timm")
    network = tiny(num_register_tokens=4)
    peer = timm.models.VisionTransformer(
        img_size=42, patch_size=14, embed_dim=24, depth=2, num_heads=3, init_values=1.0, reg_tokens=4, no_embed_class=True,
        num_classes=0, global_pool="token",
    ).double().eval()  # fmt: skip
    state = network.state_dict()
    state.pop("mask_token")
    positions, state["reg_token"] = state.pop("pos_embed"), state.pop("register_tokens")
    state["cls_token"] = state["cls_token"] + positions[:, :1]
    peer.load_state_dict({**state, "pos_embed": positions[:, 1:]})
    torch.testing.assert_close(network(images(42, 42)), peer(images(42, 42)))
    assert network.tokens(images(28, 56)).shape == (2, 1 + 4 + 8, 24)


def test_fingerprint() -> None:
    found = tiny()(images(28, 56))[0, :4]
    expected = torch.tensor([-0.34541761, -0.04295926, 0.89563482, -1.10996799], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_whole_patches_keep_the_aspect() -> None:
    assert whole_patches(32, 32, 224, 14) == (224, 224)
    assert whole_patches(28, 28, 224, 14) == (224, 224)
    assert whole_patches(480, 640, 224, 14) == (224, 294)
    assert whole_patches(1000, 10, 28, 14) == (2800, 28)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 5}, "embed_dim 24 is no multiple of num_heads 5"),
        ({"img_size": 40}, "img_size 40 is no multiple of patch_size 14"),
    ],
)
def test_impossible_networks(change: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(**change)


def test_images_that_are_not_whole_patches() -> None:
    with pytest.raises(UserError, match="an image of 42x40 pixels is not made of patches of 14"):
        tiny()(images(42, 40))
