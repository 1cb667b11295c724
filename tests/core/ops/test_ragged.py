"""Filters and JPEG of images of several sizes: batches of one size, and kernels that take all at once."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from interpreting import interpreted

from relume.core.errors import UserError
from relume.core.ops.filter_images import filtered, filtered_all
from relume.core.ops.jpeg import Coding, recompressed
from relume.core.ops.ragged import at_once, in_batches

TABLE = ((20.0,) * 8,) * 8


def test_images_of_one_size_are_computed_together_and_come_back_in_order() -> None:
    images = [torch.full((3, *size), float(i)) for i, size in enumerate([(4, 5), (2, 3), (4, 5)])]
    seen = []

    def work(x: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return x + parameter[:, None, None, None]

    found = in_batches(images, torch.tensor([10.0, 20.0, 30.0]), work)
    assert seen == [2, 1] and [float(i.mean()) for i in found] == [10, 21, 32]
    assert [i.shape for i in found] == [i.shape for i in images]


def test_all_at_once_knows_where_each_image_ends() -> None:
    images = [torch.full((3, *size), float(i)) for i, size in enumerate([(4, 5), (2, 7)])]

    def work(x: torch.Tensor, sizes: torch.Tensor | None) -> torch.Tensor:
        assert x.shape == (2, 3, 4, 7) and sizes is not None and sizes.tolist() == [[4, 5], [2, 7]]
        return x + 1

    assert [torch.equal(a, b + 1) for a, b in zip(at_once(images, work), images, strict=True)] == [True, True]
    assert torch.equal(at_once(images[:1], lambda x, sizes: x if sizes is None else -x)[0], images[0])


def test_what_goes_through_neither_is_one_line() -> None:
    with pytest.raises(UserError, match=r"filtered: x must be \(B, C, H, W\); it is \(3, 4, 4\)"):
        filtered(torch.rand(3, 4, 4), torch.rand(1, 3, 3))
    with pytest.raises(UserError, match="kernels must be"):
        filtered(torch.rand(2, 3, 4, 4), torch.rand(1, 3, 3))
    with pytest.raises(UserError, match="a kernel of 4 x 4 has no centre"):
        filtered_all([torch.rand(3, 4, 4)], [torch.rand(4, 4)])
    with pytest.raises(UserError, match=r"recompressed: x must be \(B, 3, H, W\)"):
        recompressed(torch.rand(1, 1, 4, 4), torch.ones(1), Coding(TABLE, TABLE))
    assert filtered_all([], []) == []


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs Triton")
def test_kernels_in_the_interpreter() -> None:
    result = interpreted("interpreted_ragged.py")
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["filter"] < 1e-5 and max(said[f"{table}, soft"] for table in ("basicsr", "standard")) < 1e-5
    assert said["standard, steps"] < 0.01
    assert said["filter_launches"] == said["jpeg_launches"] == 1
    assert said["filter_alone"] and said["jpeg_alone"] and said["filter_empty"] and said["jpeg_empty"]
    wrong = "it computes in float32, x is float64", "it has no gradient, which is asked for"
    ops = "image filter", "JPEG"
    assert said["refused"] == [
        f"RELUME_KERNELS=on, but the fused {op} cannot run: {what}" for op, what in zip(ops, wrong, strict=True)
    ]
