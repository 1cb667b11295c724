"""What stands in for BasicSR, against other libraries, originals' tensors, and what must hold."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d
from skimage.color import rgb2ycbcr as by_skimage

from relume.core.compat.archs import arch_util
from relume.core.compat.data import data_util, degradations, transforms
from relume.core.compat.losses.loss_util import weight_reduce_loss, weighted_loss
from relume.core.compat.losses.losses import WeightedTVLoss
from relume.core.compat.metrics.metric_util import reorder_image, to_y_channel
from relume.core.compat.ops.fused_act import fused_leaky_relu
from relume.core.compat.ops.upfirdn2d import upfirdn2d
from relume.core.compat.utils import (
    FileClient,
    bgr2ycbcr,
    flow_util,
    imfrombytes,
    img2tensor,
    imresize,
    imwrite,
    padding_DP,
    rgb2ycbcr,
    rgb2ycbcr_pt,
    scandir,
    tensor2img,
    ycbcr2rgb,
)

RNG = np.random.default_rng(3)
PICTURE = RNG.integers(0, 256, (20, 28, 3), np.uint8)


@pytest.mark.parametrize("scale", [0.5, 0.25, 2.0, 1 / 3])
def test_imresize_is_bicubic_with_antialiasing(scale: float) -> None:
    image = torch.rand(1, 3, 48, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = F.interpolate(image, scale_factor=scale, mode="bicubic", antialias=True)[0]
    found = imresize(image[0].float().permute(1, 2, 0).numpy(), scale).transpose(2, 0, 1)
    assert found.shape == tuple(expected.shape)
    inside = np.s_[:, 3:-3, 3:-3]  # at the border Matlab mirrors, and torch leaves out
    assert np.allclose(found[inside], expected.numpy()[inside], atol=1e-5)
    flat = imresize(np.full((9, 12), 0.3, np.float32), scale)
    assert np.allclose(flat, 0.3, atol=1e-6)


def test_colours() -> None:
    expected = by_skimage(PICTURE)
    assert np.array_equal(rgb2ycbcr(PICTURE), expected.round().astype(np.uint8))
    assert np.array_equal(bgr2ycbcr(PICTURE[..., ::-1], y_only=True), expected[..., 0].round().astype(np.uint8))
    floats = (PICTURE / 255).astype(np.float32)
    assert np.allclose(ycbcr2rgb(rgb2ycbcr(floats)), floats, atol=1e-5)
    tensor = torch.from_numpy(floats).permute(2, 0, 1)[None]
    assert np.allclose(rgb2ycbcr_pt(tensor)[0].permute(1, 2, 0).numpy() * 255, expected, atol=1e-3)
    assert np.allclose(to_y_channel(PICTURE[..., ::-1])[..., 0], expected[..., 0], atol=1e-3)
    assert reorder_image(PICTURE.transpose(2, 0, 1), "CHW").shape == PICTURE.shape


def test_pictures_and_files(tmp_path: Path) -> None:
    tensor = img2tensor(PICTURE / 255.0)
    assert torch.allclose(tensor[0].double(), torch.from_numpy(PICTURE[..., 2] / 255.0), atol=1e-6)
    assert np.array_equal(tensor2img(tensor), PICTURE) and np.array_equal(tensor2img([tensor[None]]), PICTURE)
    assert np.array_equal(tensor2img(tensor * 2 - 1, min_max=(-1, 1)), PICTURE)
    path = tmp_path / "deep" / "a.png"
    imwrite(PICTURE, str(path))
    (tmp_path / "deep" / ".hidden.png").write_bytes(b"")
    assert np.array_equal(imfrombytes(FileClient("disk").get(str(path))), PICTURE)
    assert list(scandir(str(tmp_path), recursive=True)) == ["deep/a.png"] and list(scandir(str(tmp_path))) == []
    with pytest.raises(ValueError, match="no picture"):
        imfrombytes(b"nothing")


def test_paired_crops_show_the_same_place() -> None:
    gt = np.arange(40 * 56).reshape(40, 56, 1).astype(np.float32)
    for convert in (lambda x: x, lambda x: torch.from_numpy(x).permute(2, 0, 1)):
        for seed in range(5):
            random.seed(seed)
            large, small = transforms.paired_random_crop(convert(gt), convert(gt[::2, ::2]), 16, 2)
            step = np.s_[..., ::2, ::2] if isinstance(large, torch.Tensor) else np.s_[::2, ::2]
            assert small.numel() == 64 if isinstance(small, torch.Tensor) else small.size == 64
            assert (large[step] == small).all()
    with pytest.raises(ValueError, match="Scale mismatches"):
        transforms.paired_random_crop(gt, gt, 16, 2)
    assert transforms.mod_crop(gt, 16).shape == (32, 48, 1)


def test_augmentation_turns_all_alike_and_flows_with_them() -> None:
    image = RNG.random((6, 6, 3)).astype(np.float32)
    ramp = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), -1)
    seen = set()
    for seed in range(40):
        random.seed(seed)
        (one, two), status = transforms.augment([image, image[..., :1]], return_status=True)
        seen.add(status)
        assert np.array_equal(one[..., :1], two) and one.flags.c_contiguous
        random.seed(seed)
        # The difference of positions turns as a flow does.
        positions, flow = transforms.augment(ramp, flows=np.ones_like(ramp))
        along = positions[:, 1:] - positions[:, :-1]
        assert set(np.unique(np.abs(along))) <= {0.0, 1.0} and set(np.unique(np.abs(flow))) == {1.0}
    assert len(seen) == 8


def test_weighted_losses() -> None:
    pred, target = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    squares = weighted_loss(lambda a, b: (a - b) ** 2)
    weight = torch.rand(2, 1, 4, 5)
    assert torch.allclose(squares(pred, target), F.mse_loss(pred, target))
    expected = (weight * (pred - target) ** 2).sum() / (3 * weight.sum())
    assert torch.allclose(squares(pred, target, weight), expected)
    assert squares(pred, target, weight, reduction="none").shape == pred.shape
    with pytest.raises(ValueError, match="does not fit"):
        weight_reduce_loss(pred, weight[:, :, 0])


def test_flow_warp(golden: Callable[[str], Any]) -> None:
    for case in torch.load(golden("zoo/flow_warp.pt"), weights_only=True)["cases"]:
        inputs = {k: v.clone().requires_grad_() for k, v in case["inputs"].items()}
        found = arch_util.flow_warp(**inputs, **case["config"])
        (found * case["cotangent"]).sum().backward()
        pairs = [(found, case["output"], case["rtol"])]
        pairs += [(inputs[k].grad, grad, case["grad_rtol"]) for k, grad in case["grads"].items()]
        for mine, expected, rtol in pairs:
            assert mine is not None and (mine - expected).abs().max() <= rtol * expected.abs().max() + 1e-7


def test_parts_of_architectures() -> None:
    x = torch.rand(1, 8, 6, 7)
    block = arch_util.ResidualBlockNoBN(8, res_scale=0.5)
    assert torch.allclose(block(x), x + 0.5 * block.conv2(F.relu(block.conv1(x))))
    assert arch_util.Upsample(4, 8)(x).shape == (1, 8, 24, 28) and arch_util.Upsample(3, 8)(x).shape[-1] == 21
    with pytest.raises(ValueError, match="scale 5 is not supported"):
        arch_util.Upsample(5, 8)
    assert arch_util.to_2tuple(3) == (3, 3) and arch_util.to_2tuple((1, 2)) == (1, 2)
    pack = arch_util.DCNv2Pack(8, 4, 3, padding=1, deformable_groups=2)
    plain = F.conv2d(x, pack.weight, None, padding=1)
    assert torch.allclose(pack(x, x), 0.5 * plain, atol=1e-5)  # no offsets at first, and masks of a half
    norm = arch_util.LayerNorm2d(8)
    assert torch.allclose(norm(x), F.layer_norm(x.permute(0, 2, 3, 1), (8,), eps=1e-6).permute(0, 3, 1, 2), atol=1e-5)


def test_frame_indices() -> None:
    expected = {
        "replicate": [0, 0, 0, 1, 2],
        "reflection": [2, 1, 0, 1, 2],
        "reflection_circle": [4, 3, 0, 1, 2],
        "circle": [3, 4, 0, 1, 2],
    }
    for padding, indices in expected.items():
        assert data_util.generate_frame_indices(0, 100, 5, padding) == indices
    ends = {"replicate": [97, 98, 99, 99, 99], "reflection": [97, 98, 99, 98, 97]}
    for padding, indices in ends.items():
        assert data_util.generate_frame_indices(99, 100, 5, padding) == indices


def test_noise_has_the_strength_that_is_asked_for() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    flat = np.full((64, 64, 3), 0.5, np.float32)
    noisy = degradations.random_add_gaussian_noise(flat, (25, 25))
    assert noisy.std() * 255 == pytest.approx(25, rel=0.05) and noisy.dtype == np.float32
    gray = degradations.random_add_gaussian_noise(flat, (25, 25), gray_prob=1)
    assert np.allclose(gray[..., 0], gray[..., 2])
    tensor = degradations.random_add_gaussian_noise_pt(torch.full((2, 3, 64, 64), 0.5), (25, 25))
    assert float(tensor.std()) * 255 == pytest.approx(25, rel=0.05)
    assert degradations.random_add_poisson_noise(PICTURE / np.float32(255), (1, 1)).shape == PICTURE.shape
    shot = degradations.random_add_poisson_noise_pt(torch.rand(2, 3, 16, 16), (0, 0))
    assert 0 <= float(shot.min()) <= float(shot.max()) <= 1
    assert degradations.random_add_jpg_compression(flat, (90, 95)) == pytest.approx(0.5, abs=0.02)


def test_flow_files(tmp_path: Path) -> None:
    flow = RNG.normal(0, 0.1, (6, 9, 2)).astype(np.float32)
    flow_util.flowwrite(flow, str(tmp_path / "deep" / "a.flo"))
    assert np.array_equal(flow_util.flowread(str(tmp_path / "deep" / "a.flo")), flow)
    dx, dy = flow_util.quantize_flow(flow)
    cv2.imwrite(str(tmp_path / "a.png"), np.concatenate([dx, dy]))
    found = flow_util.flowread(str(tmp_path / "a.png"), quantize=True)
    step = 0.04 / 255 * np.array([9, 6])
    assert found.dtype == np.float32 and (np.abs(found - np.clip(flow, -step * 127, step * 127)) <= step).all()
    (tmp_path / "b.flo").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="PIEH"):
        flow_util.flowread(str(tmp_path / "b.flo"))


def test_upfirdn2d_is_its_formula() -> None:
    x, kernel = torch.rand(2, 3, 4, 5, dtype=torch.float64), torch.rand(3, 4, dtype=torch.float64)
    for up, down, pad in ((1, 1, (0, 0)), (2, 1, (2, 1)), (1, 2, (1, 2)), (2, 3, (3, -1))):
        spread = np.zeros((2, 3, 4 * up, 5 * up))
        spread[:, :, ::up, ::up] = x
        whole = np.stack([[convolve2d(plane, kernel) for plane in image] for image in spread])  # all that overlaps
        top, left = kernel.shape[0] - 1 - pad[0], kernel.shape[1] - 1 - pad[0]
        height = spread.shape[2] + sum(pad) - kernel.shape[0] + 1
        width = spread.shape[3] + sum(pad) - kernel.shape[1] + 1
        expected = np.pad(whole, [(0, 0), (0, 0), (8, 8), (8, 8)])[:, :, top + 8 :, left + 8 :][..., :height, :width]
        assert np.allclose(upfirdn2d(x, kernel, up, down, pad), expected[..., ::down, ::down])
    bias = torch.tensor([1.0, -2.0, 0.0])
    y = fused_leaky_relu(x.float(), bias)
    assert torch.allclose(y, F.leaky_relu(x.float() + bias[:, None, None], 0.2) * 2**0.5)


def test_two_views_are_cropped_and_padded_alike() -> None:
    gt = RNG.random((20, 30, 3), np.float32)
    left, right, truth = transforms.paired_random_crop_DP(gt + 1, gt + 2, gt, 8, 1)
    assert np.allclose(left - 1, truth, atol=1e-6) and np.allclose(right - 2, truth, atol=1e-6)
    assert [x.shape for x in padding_DP(gt, gt, gt, 32)] == [(32, 32, 3)] * 3
    truth, lq = transforms.paired_random_crop_hw(np.repeat(np.repeat(gt, 2, 0), 2, 1), gt, 8, 12, 2)
    assert truth.shape[:2] == (8, 12) and np.array_equal(truth[::2, ::2], lq)


def test_weighted_total_variation() -> None:
    x = torch.rand(1, 2, 5, 6)
    down, right = (x[:, :, 1:] - x[:, :, :-1]).abs(), (x[..., 1:] - x[..., :-1]).abs()
    assert torch.isclose(WeightedTVLoss(2.0)(x), 2 * (down.mean() + right.mean()))
