"""Mixtures by ratio."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from relume.core.errors import UserError
from relume.datasets import build_dataset
from relume.datasets.loading.loader import build_train_loader
from relume.datasets.mixture import parse_ratio


@pytest.fixture
def blocks(tmp_path, write_images):
    for clip in range(4):
        write_images(tmp_path / f"vimeo/sequences/00001/{clip:04d}", {f"im{k}": (64, 96) for k in (1, 2, 3)})
    (tmp_path / "vimeo/tri_trainlist.txt").write_text("\n".join(f"00001/{c:04d}" for c in range(4)))
    for clip in range(2):
        write_images(tmp_path / f"x4k/s/{clip}", {f"{i:04d}": (128, 128) for i in range(5)})
    return [
        {"type": "Vimeo90KDataset", "dataroot": str(tmp_path / "vimeo"), "gt_size": 64},
        {"type": "X4K1000FPSDataset", "dataroot": str(tmp_path / "x4k"), "stride": [2, 4]},
    ]


def mixed(blocks, **options):
    return build_dataset({"type": "MixedDataset", "datasets": blocks, "gt_size": 64, **options}, phase="train")


def take(dataset, count: int, rank: int = 0, world: int = 1, **options):
    block = {"batch_size_per_gpu": 2, "num_worker_per_gpu": 0, "dataset_enlarge_ratio": 3, **options}
    loader = build_train_loader(dataset, block, seed=3, rank=rank, world=world)
    batches = [next(loader) for _ in range(count)]
    loader.close()
    return batches


def test_shares_are_those_asked_for(blocks):
    dataset = mixed(blocks, mixed_ratio="2:1")
    assert len(dataset) == 6
    indices = [int(i) for batch in take(dataset, 9) for i in batch["index"]]  # an epoch of 18
    assert Counter(dataset.locate(i)[0] for i in indices) == {0: 12, 1: 6}
    assert dataset.locate(3) == (0, 3) and dataset.locate(4) == (1, 0)


def test_ranks_see_other_samples_and_together_what_one_sees(blocks):
    dataset = mixed(blocks, mixed_ratio="2:1")
    alone = take(dataset, 2, batch_size_per_gpu=4)
    ranks = [take(dataset, 2, rank, 2) for rank in (0, 1)]
    for step in (0, 1):
        together = torch.cat([ranks[0][step]["gt"], ranks[1][step]["gt"]])
        assert torch.equal(together, alone[step]["gt"])
        assert not torch.equal(ranks[0][step]["gt"], ranks[1][step]["gt"])


def test_a_sample_depends_on_its_place_alone(blocks):
    first, again = (take(mixed(blocks, mixed_ratio="1:2"), 4) for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for a, b in zip(first, again, strict=True) for k in ("img0", "gt", "timestep"))


def test_the_curriculum_goes_beyond_the_smallest_source(blocks):
    """64 rows give 96 x 96 patches: enlarged, not refused."""
    stages = {"iters": [2, 2, 9], "gt_sizes": [64, 96, 128]}
    batches = take(mixed(blocks, mixed_ratio="2:1"), 6, **stages)
    assert [b["gt"].shape[-1] for b in batches] == [64, 64, 96, 96, 128, 128]
    with pytest.raises(UserError, match="gt_size 96 is larger than"):
        take(build_dataset({**blocks[0], "gt_size": 64}, phase="train"), 1, iters=[1], gt_sizes=[96])


def test_ratios():
    assert parse_ratio("2:1", 2) == [2, 1] and parse_ratio("0.5 : 1:0", 3) == [0.5, 1, 0]


@pytest.mark.parametrize("ratio", ["2", "2:x", "2:1:1", ":", "0:0", "-1:2", "2:", "nan:1"])
def test_garbled_ratios(blocks, ratio):
    with pytest.raises(
        UserError, match=f"mixed_ratio: '{ratio}' should be one number for each of 2 datasets, such as '2:1'"
    ):
        mixed(blocks, mixed_ratio=ratio)


def test_sizes_must_agree(blocks):
    with pytest.raises(UserError, match="gt_size: the datasets' own ones differ"):
        mixed(blocks, gt_size=None)
    with pytest.raises(UserError, match="a mixture needs at least one dataset"):
        mixed([])
