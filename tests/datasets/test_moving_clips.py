"""Moving photographs as clips: every frame is known, and held-out ones are the same for everybody."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.imaging.matlab_resize import imresize
from relume.datasets import build_dataset

pytest.importorskip("skimage")
BLOCK = {
    "type": "MovingClipsDataset",
    "source": "skimage",
    "gt_size": 32,
    "num_frame": 4,
    "shorter_side": 96,
    "renditions": 2,
}


def build(phase: str, **more: Any) -> Any:
    return build_dataset({**BLOCK, **more}, phase=phase, scale=4)


def test_items_are_clips_and_their_small_copies() -> None:
    item = build("val")[1]
    assert item["lq"].shape == (4, 3, 8, 8) and item["gt"].shape == (4, 3, 32, 32)
    for small, large in zip(item["lq"], item["gt"], strict=True):
        assert float((small - imresize(large, 0.25)).abs().max()) <= 0.5 / 255 + 1e-6
        assert torch.equal((large * 255).round() / 255, large)


def test_held_out_clips_are_fixed_and_single_frames_are_theirs() -> None:
    clips, frames = build("val"), build("val", single=True)
    assert len(frames) == 4 * len(clips)
    for index in (0, 5, 7):
        frame, clip = frames[index], clips[index // 4]
        assert torch.equal(frame["gt"], clip["gt"][index % 4]) and torch.equal(frame["lq"], clip["lq"][index % 4])
        assert frame["folder"] == clip["folder"]
    assert len({frames[i]["name"] for i in range(len(frames))}) == len(frames)


def test_motion_is_that_of_the_range() -> None:
    still = build("val", motion=[0, 0], objects=0)[0]["gt"]
    assert float((still - still[:1]).abs().max()) == 0
    fast = build("val", motion=[3, 3], rotation=0, objects=0, gt_size=64)[0]["gt"].mean(1).numpy()
    before, after = (np.fft.fft2(frame - frame.mean()) for frame in fast[:2])
    place = np.unravel_index(np.argmax(np.fft.ifft2(before.conj() * after).real), (64, 64))
    moved = [p if p < 32 else p - 64 for p in place]
    assert 2 <= np.hypot(*moved) <= 4


def test_training_draws_scenes_anew_as_the_generator_says() -> None:
    train = build("train", use_hflip=True)
    found = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        import random

        random.seed(seed)
        found.append(train[0]["gt"])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert build("train", single=True)[0]["lq"].shape == (3, 8, 8)


def test_sizes_that_do_not_go_are_one_line() -> None:
    with pytest.raises(UserError, match="gt_size: 30 must be a multiple of scale 4"):
        build("train", gt_size=30)


def test_noise_has_one_strength_in_a_clip_and_another_field_in_each_frame() -> None:
    clean, noisy = (build("val", motion=[0, 0], objects=0, gt_size=128, **more)[2] for more in ({}, {"noise": [4, 12]}))
    assert torch.equal(clean["gt"], noisy["gt"])
    fields = ((noisy["lq"] - clean["lq"]) * 255).flatten(1)
    deviations = fields.std(1)
    assert 3.5 < float(deviations.min()) <= float(deviations.max()) < 1.1 * float(deviations.min()) < 13
    assert float(torch.corrcoef(fields).fill_diagonal_(0).abs().max()) < 0.1
    single = build("val", motion=[0, 0], objects=0, gt_size=128, noise=[4, 12], single=True)[2 * 4 + 3]
    assert torch.equal(single["lq"], noisy["lq"][3])
