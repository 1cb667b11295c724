"""The table of test.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from relume.core.metrics.published import METHODS, SOURCES, published_scores
from relume.core.metrics.report import TestSet, about, report


def test_sizes_and_times_stand_beside_scores() -> None:
    sets = {"Set5": TestSet(seconds=0.0125)}
    text = report({"Set5": {"psnr": 32.05, "ssim": 0.9}, "no_truth": {"uiqm": 3.0}}, sets, 1_256_064, "cpu")
    assert text.splitlines() == [
        "Results",
        "dataset      psnr    ssim    uiqm  params M  ms/image",
        "Set5      32.0500  0.9000       -      1.26      12.5",
        "no_truth        -       -  3.0000      1.26         -",
        "ms/image: mean of this run, its first batch left out; cpu",
    ]


def test_published_figures_stand_under_ones_own() -> None:
    dataset = SimpleNamespace(published_as="Middlebury", convention="mean absolute error", partial="2 of 12 samples")
    sets = about({"mb": SimpleNamespace(dataset=dataset), "own": []}, {"mb": 0.1})
    lines = report({"mb": {"ie": 2.5}, "own": {"ie": 3.0}}, sets, 1, "cpu").splitlines()
    assert lines[2].split() == ["mb", "2.5000", "0.00", "100.0"]
    assert [line.split() for line in lines if line.startswith("  EMA-VFI [")] == [["EMA-VFI", "[a]", "1.81", "65.66"]]
    assert "mb: published figures: mean absolute error" in lines
    assert "mb: only 2 of 12 samples are here, so that scores compare with nothing published" in lines
    assert f"[c] {SOURCES['c']}" in lines and not any(line.startswith(f"[d] {SOURCES['d']}") for line in lines)
    assert any(line.startswith("own ") for line in lines)


def test_figures_of_other_metrics_are_left_out() -> None:
    text = report({"mb": {"psnr": 30.0}}, {"mb": TestSet("Middlebury")}, 1, "cpu")
    assert "RIFE" not in text


@pytest.mark.parametrize(
    ("test_set", "method", "scores"),
    [
        ("Vimeo90K", "EMA-VFI [a]", {"psnr": 36.64, "ssim": 0.9819}),
        ("SNU-FILM hard", "VFIMamba [b]", {"psnr": 30.99, "ssim": 0.9401}),
        ("SNU-FILM extreme", "IFRNet [a]", {"psnr": 25.05}),
        ("X-TEST 2K", "RIFEm [a]", {"psnr": 31.43}),
        ("X-TEST 4K", "XVFI [b, d]", {"psnr": 30.12}),
        ("Xiph 4K", "SGM-VFI [b]", {"psnr": 34.23}),
    ],
)
def test_figures_are_where_they_belong(test_set, method, scores) -> None:
    assert {m.method: m.scores[test_set] for m in published_scores(test_set)}[method] == scores


def test_figures_are_plausible_and_have_sources() -> None:
    for method in METHODS:
        letters = method.method.partition("[")[2].rstrip("]").split(", ")
        assert set(letters) <= set(SOURCES)
        for name, scores in method.scores.items():
            low, high = {"X-": (30, 34), "Xi": (33, 38), "SN": (24, 41), "Vi": (35, 37), "UC": (35, 36), "Mi": (1, 3)}[
                name[:2]
            ]
            assert all(low <= v <= high for k, v in scores.items() if k != "ssim")
            assert 0.85 < scores.get("ssim", 0.9) < 1
    assert not published_scores("no such set")
    assert [len(published_scores(f"SNU-FILM {level}")) for level in ("easy", "medium", "hard", "extreme")] == [17] * 4
