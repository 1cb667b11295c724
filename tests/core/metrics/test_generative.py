"""Distances between sets of features, against published implementations' values and direct formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from filling import waves

from relume.core.metrics import generative
from relume.core.metrics.generative import (
    Moments,
    frechet_distance,
    inception_score,
    kernel_distance,
    matrix_root,
    precision_recall,
    unbiased_mmd,
)
from relume.core.metrics.reference import quantised


@pytest.fixture(scope="module")
def cases(golden):
    return torch.load(golden("generation/metrics.pt"), weights_only=True)


def distance(x, y):
    a, b = Moments.of(x), Moments.of(y)
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def through_the_data(x, y):
    """The Frechet distance without roots of covariances: their singular values are those of centred x times centred y^T."""
    x, y = x.double(), y.double()
    cx, cy = ((s - s.mean(0)) / (len(s) - 1) ** 0.5 for s in (x, y))
    root = torch.linalg.svdvals(cx @ cy.t()).sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + cx.square().sum() + cy.square().sum() - 2 * root)


def test_frechet_distances_equal_three_published_implementations(cases):
    for case in cases["frechet"]:
        found = distance(case["X"], case["Y"])
        loose = 1e-7 if "rank" in case["name"] else 1e-11  # theirs lose digits where covariances are singular
        for theirs in ("clean_fid", "edm", "torch_fidelity"):
            assert found == pytest.approx(case[theirs], rel=loose)
        moments = Moments.of(case["X"])
        torch.testing.assert_close(moments.mean, case["mu_x"], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(moments.covariance, case["sigma_x"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n, m, d", [(40, 30, 6), (8, 9, 20), (2, 3, 5)])
def test_frechet_distance_is_exact_even_where_covariances_are_singular(n, m, d):
    x, y = waves("x", (n, d)) * 2 + 3, waves("y", (m, d)) ** 3
    assert distance(x, y) == pytest.approx(through_the_data(x, y), rel=1e-13)
    assert distance(x, x) == pytest.approx(0, abs=1e-12)


def test_moments_add_up_whatever_the_batches():
    x = waves("moments", (50, 7)) + 1e4  # a mean that would swallow the variance in a sum of squares
    whole = Moments.of(x)
    for parts in ([50], [1] * 50, [0, 13, 0, 37], [20, 29, 1]):
        total = Moments.of(x[:0])
        for part in x.split(parts):
            total = total + Moments.of(part)
        assert total.n == 50
        torch.testing.assert_close(total.mean, x.mean(0), rtol=1e-14, atol=0)
        torch.testing.assert_close(total.covariance, torch.cov(x.t()), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(total.scatter, whole.scatter, rtol=1e-10, atol=1e-12)
    assert Moments.of(x[:1]).covariance.isnan().all()


def test_what_is_not_finite_is_nan_and_not_an_exception():
    good = Moments.of(waves("a", (9, 3)))
    assert np.isnan(frechet_distance(good.mean * torch.nan, good.covariance, good.mean, good.covariance))
    assert np.isnan(distance(waves("a", (9, 3)), waves("b", (1, 3))))


def test_root_squared_is_the_matrix():
    x = waves("root", (5, 8))
    torch.testing.assert_close(matrix_root(x.t() @ x) @ matrix_root(x.t() @ x), x.t() @ x, rtol=1e-12, atol=1e-12)
    assert not matrix_root(torch.zeros(3, 3, dtype=torch.float64)).any()


def test_kernel_distance(cases):
    for case in cases["kid"]:
        values = kernel_distance(case["x"], case["y"], size=len(case["x"]))
        assert len(values) == 1 and float(values) == pytest.approx(case["kid_full_set"], rel=1e-11)


def test_kernel_distance_term_by_term():
    x, y = waves("x", (5, 4)), waves("y", (6, 4)) * 2

    def k(a, b):
        return float((a @ b / 4 + 1) ** 3)

    within = [
        sum(k(s[i], s[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1)) for s, n in ((x, 5), (y, 6))
    ]
    across = sum(k(a, b) for a in x for b in y) / 30
    assert float(unbiased_mmd(x, y)) == pytest.approx(sum(within) - 2 * across, rel=1e-12)


def test_subsets_are_drawn_anew_and_the_same_every_time():
    x, y = waves("x", (30, 4)).float(), waves("y", (40, 4)).float() * 2
    values = kernel_distance(x, y, subsets=20, size=10)
    assert len(values) == 20 and len(values.unique()) == 20
    assert torch.equal(values, kernel_distance(x, y, subsets=20, size=10))
    assert len(kernel_distance(x, y, subsets=20, size=1000)) == 20, "the larger set is sampled"
    full = float(unbiased_mmd(x.double(), y.double()))
    many = kernel_distance(x, y, subsets=2000, size=10)
    assert float(many.mean()) == pytest.approx(full, abs=4 * float(many.std()) / 2000**0.5), "unbiased"


def test_inception_score(cases):
    for case in cases["isc"]:
        for seed, name in ((None, ""), (2020, "_shuffled_2020")):
            values = inception_score(case["logits"], case["splits"], seed)
            assert float(values.mean()) == pytest.approx(case[f"mean{name}"], rel=1e-12)
            assert float(values.std(correction=0)) == pytest.approx(case[f"std{name}"], rel=1e-9)


def test_inception_score_knows_its_bounds():
    sure = torch.eye(4).repeat(5, 1) * 1e4
    assert float(inception_score(sure, 1)) == pytest.approx(4)
    assert float(inception_score(sure[::4], 1)) == pytest.approx(1), "sure of always the same class"
    assert float(inception_score(torch.zeros(20, 4), 1)) == pytest.approx(1)


def brute_force(generated, real, k):
    def share(points, centres):
        inside = 0
        for p in points:
            for i, c in enumerate(centres):
                others = sorted(float((c - centres[j]).norm()) for j in range(len(centres)) if j != i)
                if float((p - c).norm()) <= others[k - 1]:
                    inside += 1
                    break
        return inside / len(points)

    return share(generated, real), share(real, generated)


def test_precision_and_recall(cases, monkeypatch):
    for chunk in (generative.CHUNK, 64):
        monkeypatch.setattr(generative, "CHUNK", chunk)
        for case in cases["prc"]:
            found = precision_recall(case["generated"], case["real"], case["k"])
            assert found == pytest.approx((case["precision"], case["recall"]), abs=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_by_brute_force(k, monkeypatch):
    monkeypatch.setattr(generative, "CHUNK", 5)
    generated, real = waves("g", (17, 2)), waves("r", (12, 2)) * 1.3 + 0.2
    assert precision_recall(generated, real, k) == brute_force(generated, real, k)


def test_images_are_rounded_as_files_are(cases):
    case = cases["quantise"]
    levels = ((quantised(case["x"]) + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(levels, case["edm"])
    stored = torch.arange(256) / 127.5 - 1
    assert torch.equal(quantised(stored), stored.float()), "what is in a file stays as it is"


FINGERPRINT = [1.0982990629856637, 0.5783067886286113, 2.058379164618955, 1.0, 0.0]


def test_fingerprint():
    x, y = waves("x", (30, 5)), waves("y", (20, 5)) * 1.5 + 0.3
    assert distance(x, y) == pytest.approx(through_the_data(x, y), rel=1e-12)
    found = [
        distance(x, y),
        float(unbiased_mmd(x, y)),
        float(inception_score(3 * x, 2).mean()),
        *precision_recall(x, y),
    ]
    assert found == pytest.approx(FINGERPRINT, rel=1e-9)
