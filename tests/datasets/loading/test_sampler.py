"""The stream of samples and how iterations cut it."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from relume.core.errors import UserError
from relume.datasets.loading.sampler import Order, Plan, Stage, TrainSampler


def keys(count, *, world=1, rank=0, accumulate=1, plan=None, length=10, iteration=0, position=0, **order):
    sampler = TrainSampler(
        Order(length, 3, **order), plan or Plan(2, accumulate=accumulate), rank, world, iteration, position
    )
    return list(itertools.islice(sampler, count))


def stream(batches):
    return [(k.epoch, k.draw, k.index) for batch in batches for k in batch]


def test_every_epoch_has_every_sample_once_in_another_order():
    seen = stream(keys(15))
    epochs = [[i for e, _, i in seen if e == epoch] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] and epochs[0] != list(range(10))


def test_the_order_is_a_fixed_function_of_the_seed():
    first = [3, 8, 6, 0, 9, 4, 5, 2, 7, 1]
    assert [k.index for k in keys(1, plan=Plan(10))[0]] == first
    other = Order(10, 4)
    assert [other.at(p).index for p in range(10)] != first


def test_without_shuffling_samples_ascend():
    assert stream(keys(10, shuffle=False)) == [(e, i, i) for e in range(2) for i in range(10)]


@pytest.mark.parametrize(("world", "accumulate"), [(1, 4), (2, 2), (4, 1)])
def test_ranks_and_micro_batches_share_the_same_global_batch(world, accumulate):
    whole = keys(6, plan=Plan(8))
    for it in range(6):
        parts = []
        for micro, rank in itertools.product(range(accumulate), range(world)):
            parts.append(keys(6 * accumulate, world=world, rank=rank, accumulate=accumulate)[it * accumulate + micro])
        assert stream(parts) == stream([whole[it]])


def test_a_resumed_run_goes_on_where_the_other_stopped():
    plan = Plan(2, [3, 1], [4, 2])
    whole = keys(10, plan=plan)
    position = sum(len(batch) for batch in whole[:5])
    assert keys(5, plan=plan, iteration=5, position=position) == whole[5:]


def test_progressive_stages():
    plan = Plan(8, [8, 4, 1], [2, 3, 1], [16, 32, 64])
    assert [plan.at(i) for i in range(1, 9)] == [
        *[Stage(8, 16)] * 2,
        *[Stage(4, 32)] * 3,
        *[Stage(1, 64)] * 3,  # the last stage has no end
    ]
    assert plan.largest == Stage(8, 64)
    assert [plan.samples(i) for i in (0, 1, 2, 4, 5, 6, 9)] == [0, 8, 16, 24, 28, 29, 32]
    batches = keys(7, plan=plan)
    assert [len(b) for b in batches] == [8, 8, 4, 4, 4, 1, 1]
    assert [b[0].gt_size for b in batches] == [16, 16, 32, 32, 32, 64, 64]
    assert sorted(stream(batches)) == sorted(stream(keys(15)))  # the same 30 positions of the stream


def test_stages_may_keep_the_batch_or_the_patch():
    assert [Plan(3, None, [1, 1], [8, 9]).at(i) for i in (1, 2)] == [Stage(3, 8), Stage(3, 9)]
    assert [Plan(3, [2, 1], [1, 1]).at(i) for i in (1, 2)] == [Stage(2, None), Stage(1, None)]
    assert Plan(3).at(10**9) == Stage(3, None)
    assert [Plan(3).samples(i) for i in (0, 1, 10)] == [0, 3, 30]


def test_an_enlarged_dataset_repeats_but_every_draw_is_its_own():
    seen = stream(keys(15, enlarge=3))
    assert {e for e, _, _ in seen} == {0}
    assert sorted(d for _, d, _ in seen) == list(range(30))
    assert Counter(i for _, _, i in seen) == dict.fromkeys(range(10), 3)


def test_weights_are_shares_of_an_epoch():
    weights = np.array([0.5, 0.3, 0.2, 0.0])
    order = Order(4, 0, enlarge=5, weights=weights)
    for epoch in range(4):
        drawn = [order.at(epoch * 20 + p) for p in range(20)]
        count = Counter(k.index for k in drawn)
        assert {i: count[i] for i in range(4)} == {0: 10, 1: 6, 2: 4, 3: 0}
        assert len({k.draw for k in drawn}) == 20
    uneven = Order(3, 0, enlarge=1, weights=np.array([1.0, 1.0, 4.0]))
    counts = [Counter(uneven.at(3 * e + p).index for p in range(3)) for e in range(400)]
    assert all(c[2] == 2 for c in counts)
    assert sum(c[0] for c in counts) == pytest.approx(200, abs=30)


def test_nothing_to_sample_from():
    with pytest.raises(UserError, match="empty"):
        Order(0, 0)
    with pytest.raises(UserError, match="dataset_enlarge_ratio"):
        Order(1, 0, enlarge=0)


@pytest.mark.parametrize("world", [1, 2])
def test_micro_batches_follow_the_stages(world):
    plan = Plan(9, [4, 2, 1], [2, 3, 1], [16, 24, 32], [1, 2, 4])
    sampler = TrainSampler(Order(100, 3), plan, 0, world)
    assert [sampler.plan.micro_batches(i) for i in range(1, 8)] == [1, 1, 2, 2, 2, 4, 4]
    assert [sampler.position_after(i) for i in range(4)] == [0, 4 * world, 8 * world, 12 * world]
    batches = list(itertools.islice(sampler, 2 + 6 + 8))
    assert [len(b) for b in batches] == [4, 4] + [2] * 6 + [1] * 8
    assert [b[0].gt_size for b in batches] == [16] * 2 + [24] * 6 + [32] * 8
    if world == 1:
        draws = [key.draw for batch in batches for key in batch]
        assert draws == [Order(100, 3).at(p).draw for p in range(len(draws))]


def by_shard(buffer, shards=8, per=12, **order):
    """An order of samples that lie in archives, but not in the order of their names."""
    number = np.arange(shards * per) % shards
    place = number * per + np.arange(shards * per) // shards
    return Order(shards * per, 3, shards=(number, place), buffer=buffer, **order), number, place


def test_by_shard_and_buffer_every_sample_comes_once_and_near_its_place():
    for buffer in (1, 5, 30):
        order, number, place = by_shard(buffer, enlarge=2)
        seen = [order.at(p).index for p in range(192)]
        assert Counter(seen) == dict.fromkeys(range(96), 2)
        reading = by_shard(1, enlarge=2)[
            0
        ]  # with nothing to choose from: archive after archive, each from its beginning
        straight = [reading.at(p).index for p in range(192)]
        runs = [list(g) for _, g in itertools.groupby(straight, key=lambda i: number[i])]
        assert [len(r) for r in runs] in ([12] * 16, [*[12] * 7, 24, *[12] * 7])
        assert all(list(place[r]) == sorted(place[r]) for r in runs if len(r) == 12)
        draws = [order.at(p).draw for p in range(192)]
        at = {reading.at(p).draw: p for p in range(192)}
        moved = [abs(at[d] - p) for p, d in enumerate(draws)]
        assert max(moved) < buffer and (buffer == 1 or max(moved) > 0)
    epochs = [[order.at(p).index for p in range(e * 192, (e + 1) * 192)] for e in range(2)]
    assert epochs[0] != epochs[1]
    assert [by_shard(30, enlarge=2)[0].at(p).index for p in range(300, 310)] == [
        order.at(p).index for p in range(300, 310)
    ]
    assert [k.at(0).index for k in (by_shard(30, shuffle=False)[0],)] == [0]
