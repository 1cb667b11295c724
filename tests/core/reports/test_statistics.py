"""Bootstrap intervals against scipy's, and what they leave of a figure."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from relume.core.reports.statistics import bootstrap, decimals


@pytest.mark.parametrize(("n", "seed"), [(8, 0), (40, 1), (300, 2)])
def test_the_interval_is_scipys_percentile_bootstrap(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random.normal(25, 3, n), random.normal(25.2, 3, n)
    ours = bootstrap(b - a)
    theirs = scipy.stats.bootstrap((b - a,), np.mean, n_resamples=10_000, method="percentile", rng=random)
    assert ours.mean == pytest.approx((b - a).mean())
    spread = (b - a).std() / math.sqrt(n)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.06 * spread)
    assert bootstrap(b - a) == ours, "the same values have the same interval"


def test_pairing_sees_what_pictures_hide() -> None:
    random = np.random.default_rng(3)
    hard = random.normal(25, 5, 60)
    better = hard + random.normal(0.2, 0.1, 60)
    assert bootstrap(better - hard).low > 0.1 and bootstrap(better).low < bootstrap(hard).high


def test_few_values_have_no_interval() -> None:
    assert math.isnan(bootstrap(np.array([3.0])).low) and bootstrap(np.array([3.0])).mean == 3.0
    assert math.isnan(bootstrap(np.array([])).mean)
    assert decimals([math.nan, 0.0], [24.0]) == 2
