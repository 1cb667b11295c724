"""Seeding, collating, failing."""

from __future__ import annotations

import pickle
import random
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.datasets.loading.sampler import SampleKey
from relume.datasets.loading.worker import Failed, Packet, SeededDataset, collate, sample_seed, seeded


class Dice(torch.utils.data.Dataset):
    """What a dataset written for BasicSR would draw from."""

    gt_size = 5

    def __getitem__(self, index):
        if index == 13:
            raise UserError("unlucky")
        return {"x": torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()]), "gt_size": self.gt_size}


def test_a_sample_depends_on_seed_epoch_and_draw_alone():
    def draw(seed, epoch, draw):
        return tuple(SeededDataset(Dice(), seed)[SampleKey(epoch, draw, 0)]["x"].tolist())

    reference = draw(1, 2, 3)
    random.seed(5)
    torch.manual_seed(5)
    assert draw(1, 2, 3) == reference
    others = {draw(1, 2, 4), draw(1, 3, 3), draw(2, 2, 3), draw(3, 2, 1)}
    assert len({reference, *others}) == 5
    assert reference == pytest.approx((0.1775443107, 0.9633871913, 0.2642570734), abs=1e-6)


def test_a_samples_seed_is_its_own_and_no_accident():
    keys = [SampleKey(e, d, i) for e, d, i in ((0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 0, 5))]
    seeds = [SeededDataset(Dice(), 7)[key]["seed"] for key in keys]
    assert len(set(seeds)) == 3 and seeds[2] == seeds[3], "the dataset's index does not matter"
    assert SeededDataset(Dice(), 8)[keys[0]]["seed"] not in seeds
    assert all(0 <= s < 2**63 for s in seeds) and seeds[0] == sample_seed(7, 0, 0) == 2021251017632032385
    assert collate([{"seed": s} for s in seeds]).batch["seed"].tolist() == seeds


def test_the_callers_generators_are_untouched_even_by_failures():
    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    expected = [draw() for _ in range(2)]
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    dataset = SeededDataset(Dice(), 0)
    dataset[SampleKey(0, 0, 0)]
    first = draw()
    assert dataset[SampleKey(0, 0, 13)] == Failed("unlucky")
    with pytest.raises(ZeroDivisionError), seeded(1):
        random.random()
        raise ZeroDivisionError
    assert [first, draw()] == expected


def test_the_patch_size_of_the_stage_reaches_the_dataset():
    dataset = SeededDataset(Dice(), 0)
    sizes = [dataset[SampleKey(0, 0, 0, size)]["gt_size"] for size in (None, 7, 9)]
    assert sizes == [5, 7, 9]


def test_collating():
    a, b = ({"x": torch.full((2, 3), float(i)), "path": f"{i}.png", "index": i} for i in range(2))
    batch = collate([a, b]).batch
    assert batch["x"].shape == (2, 2, 3) and batch["path"] == ["0.png", "1.png"] and batch["index"].tolist() == [0, 1]
    assert collate([a, Failed("why")]).error == "why"
    different = collate([a, {**b, "x": torch.zeros(2, 4)}])
    assert different.batch is None and "set gt_size" in different.error and "(2, 3), (2, 4)" in different.error


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)), "Own: sample 2 is a tuple; samples are dicts"),
        (
            {"lq": np.zeros((5, 6, 3), np.float32)},
            "'lq' of sample 2 is 5 x 6 x 3 of float32; images are tensors",
        ),
        (
            {"lq": torch.zeros(3, 4, 4), "gt": torch.zeros(3, 4, 4, dtype=torch.uint8)},
            "'gt' of sample 2 is 3 x 4 x 4 of uint8",
        ),
    ],
)
def test_samples_of_another_form_are_one_line(item, message):
    class Own(torch.utils.data.Dataset):
        def __getitem__(self, index):
            return item

    failed = SeededDataset(Own(), 0)[SampleKey(0, 0, 2)]
    assert isinstance(failed, Failed) and message in failed.message


@pytest.mark.parametrize("pickled", [pickle.dumps, ForkingPickler.dumps])
def test_small_tensors_travel_inside_a_packet(pickled):
    batch = {
        "index": torch.arange(3),
        "path": ["a", "b", "c"],
        "lq": torch.rand(3, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "half": torch.rand(2).bfloat16(),
        "seeds": torch.zeros(0, dtype=torch.int64),
    }
    sent = Packet(batch, ((20, "a note"),), failed=((1, "bad"),), in_bytes=("lq",))
    found = pickle.loads(pickled(sent))
    assert type(found) is Packet and found[1:] == sent[1:] and list(found.batch) == list(batch)
    for name, value in batch.items():
        mine = found.batch[name]
        assert (
            mine.dtype == value.dtype and torch.equal(mine, value) if isinstance(value, torch.Tensor) else mine == value
        )
    found.batch["lq"].add_(1)  # it may be written to
    assert pickle.loads(pickled(Packet(None, (), "a mistake"))) == Packet(None, (), "a mistake")
