"""Scene cuts and repeated frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from relume.core.inference.scenes import Scenes, repeats


def picture(seed: int, height: int = 48, width: int = 64) -> Tensor:
    """A smooth picture with edges, (3, H, W)."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, 4, 5), np.float32))
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)[0]
    top, left = rng.integers(0, 24, 2)
    image[:, top : top + 20, left : left + 24] = torch.from_numpy(rng.random((3, 1, 1), np.float32))
    return image


def moving(seed: int, count: int, step: int) -> list[Tensor]:
    return [picture(seed, 64, 160)[..., step * i : step * i + 64] for i in range(count)]


def cuts(frames: list[Tensor]) -> list[int]:
    scenes = Scenes(frames, lambda frame: frame)
    return [i for i, _ in enumerate(scenes) if scenes.begins]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("step", [0, 1, 6])
def test_cuts_are_found_and_motion_is_none(seed: int, step: int) -> None:
    clip = [f for i in range(3) for f in moving(10 * seed + i, 7, step)]
    assert cuts(clip) == [7, 14]
    assert cuts(clip[6:]) == [1, 8]
    assert cuts([f + 0.03 * torch.randn_like(f) for f in clip]) == [7, 14]


def test_what_goes_on_is_no_cut() -> None:
    torch.manual_seed(0)
    noise = [torch.rand(3, 24, 24) for _ in range(9)]
    assert cuts(noise) == []
    assert cuts([torch.full((3, 24, 24), i / 10) for i in range(9)]) == []  # a fade
    assert cuts([picture(i) for i in range(5)]) == []  # nothing but cuts, or no clip
    assert cuts([picture(0), picture(1)]) == []
    assert cuts([picture(0)]) == [] and cuts([]) == []


def test_solid_colours_and_scenes_of_a_few_frames() -> None:
    red, blue = torch.zeros(2, 3, 16, 16)
    red[0], blue[2] = 1, 1
    assert cuts([red] * 3 + [blue] * 3 + [red]) == [3, 6]
    still = [picture(1)] * 4 + [picture(2)] + [picture(3)] * 4
    assert cuts(still) == [4, 5]


def test_repeats_are_those_that_compression_alone_changes() -> None:
    torch.manual_seed(0)
    image = picture(0)
    assert repeats(image, image.clone())
    assert repeats(image, image + torch.randn_like(image) / 255)
    moved = image.clone()
    moved[:, 8:12, 8:12] += 0.2  # something small
    assert not repeats(image, moved)
    assert not repeats(image, image.roll(1, -1))
    assert not repeats(image, picture(0, 40, 64))
