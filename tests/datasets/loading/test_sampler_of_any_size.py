"""What holds of the stream of samples, whatever its sizes: tried with made-up ones."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relume.datasets.loading.sampler import Order, Plan, TrainSampler, shared_out

ORDERS = st.builds(Order, st.integers(1, 40), st.integers(0, 2**31), st.booleans(), st.integers(1, 3))
PLANS = st.builds(
    lambda batch, stages, accumulate: Plan(
        batch,
        [b for b, _ in stages] or None,
        [n for _, n in stages] or None,
        [16 * (i + 1) for i in range(len(stages))] or None,
        accumulate=accumulate,
    ),
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), max_size=3),
    st.integers(1, 3),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ORDERS, st.integers(0, 3))
def test_an_epoch_has_every_sample_equally_often(order: Order, epoch: int) -> None:
    first = epoch * order.epoch_length
    seen = Counter(order.at(p).index for p in range(first, first + order.epoch_length))
    assert set(seen) == set(range(order.length)) and len(set(seen.values())) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ORDERS, PLANS, st.integers(1, 4), st.integers(0, 12))
def test_ranks_share_the_stream_and_a_resumed_run_goes_on_in_it(
    order: Order, plan: Plan, world: int, done: int
) -> None:
    iterations = done + 4

    def taken(iteration: int, position: int, count: int) -> list[list[object]]:
        ranks = [iter(TrainSampler(order, plan, rank, world, iteration, position)) for rank in range(world)]
        batches = []
        for i in range(iteration + 1, iteration + count + 1):
            micro = [[next(rank) for rank in ranks] for _ in range(plan.micro_batches(i))]
            batches.append([sample for parts in micro for part in parts for sample in part])
        return batches

    whole = taken(0, 0, iterations)
    sizes = [plan.samples(i) * world for i in range(iterations + 1)]
    assert [len(b) for b in whole] == [b - a for a, b in itertools.pairwise(sizes)]
    stream = [sample for batch in whole for sample in batch]
    assert [(s.epoch, s.index) for s in stream] == [
        (s.epoch, s.index) for s in (order.at(p) for p in range(len(stream)))
    ]
    position = TrainSampler(order, plan, 0, world).position_after(done)
    assert taken(done, position, iterations - done) == whole[done:]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 60), st.integers(1, 5))
def test_every_sample_has_one_rank(total: int, world: int) -> None:
    shares = shared_out(total, world, None)
    assert sorted(itertools.chain.from_iterable(shares)) == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    whole = [i // 3 for i in range(total)]
    shares = shared_out(total, world, whole)
    assert sorted(itertools.chain.from_iterable(shares)) == list(range(total))
    assert all(len({r for r, s in enumerate(shares) if i in s}) == 1 for i in range(total))
