"""``relume plot``: files that open, axes that are right, and what is said of runs without curves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from left_behind import experiment
from skimage.io import imread

from relume.core.cli import main
from relume.core.reports.curves import curves, smoothed
from relume.core.reports.files import Run


@pytest.fixture(autouse=True)
def two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    experiment(Path("experiments/a$_1"))
    experiment(Path("experiments/b<i>"), lr=1e-4, last_loss=None)


def test_png_and_svg(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "experiments", "-o", "out/c.png"]) == 0
    assert "3 curves of 2 runs" in capsys.readouterr().out
    image = imread("out/c.png")
    assert image.shape[0] > 400 and image[..., :3].std() > 5
    assert (
        main(["plot", "a$_1", "experiments/b<i>", "-o", "c.svg", "--keys", "val/*", "--log", "--against", "hours"]) == 0
    )
    text = Path("c.svg").read_text()
    assert "b&lt;i&gt;" in text and "a$_1" in text and "val/lpips" in text and "l_pix" not in text


def test_axes_and_smoothing() -> None:
    run = Run(Path("experiments/a$_1"))
    assert curves(run).points["l_pix"][:2] == [(10.0, 0.1), (20.0, 0.05)]
    assert curves(run, "samples").points["l_pix"][-1] == (400.0, 0.1)
    hours = [x for x, _ in curves(run, "hours").points["l_pix"]]
    assert hours == pytest.approx([(10 + 30 * i) / 3600 for i in range(10)])
    raw = [(i, float(i)) for i in range(50)]
    expected = [
        sum(0.9 ** (n - k) * k for k in range(n + 1)) / sum(0.9 ** (n - k) for k in range(n + 1)) for n in range(50)
    ]
    assert [y for _, y in smoothed(raw, 0.9)] == pytest.approx(expected)
    broken = smoothed([(0, 1.0), (1, math.nan), (2, 1.0)], 0.5)
    assert math.isnan(broken[1][1]) and broken[2][1] == 1.0


def test_a_pause_takes_no_hours() -> None:
    path = Path("experiments/a$_1/metrics.jsonl")
    path.write_text(path.read_text().replace("12:04:30", "22:04:30"))
    assert curves(Run(path.parent), "hours").points["l_pix"][-1][0] == pytest.approx(280 / 3600)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody", "-o", "c.png"], "nobody: no such run"),
        (["experiments", "-o", "c.jpg"], "c.jpg: a figure's name ends in .png, .svg, .pdf"),
        (["experiments", "-o", "c.png", "--keys", "l_pixx"], "no run has a curve 'l_pixx'. Did you mean 'l_pix'?"),
        (["experiments", "-o", "c.png", "--smooth", "1"], "--smooth: at least 0 and less than 1"),
    ],
)
def test_bad_input(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_run_without_records_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    experiment(Path("experiments/c"), reached=0)
    assert main(["plot", "experiments", "-o", "c.png"]) == 0
    assert "experiments/c: has no records" in capsys.readouterr().err
    assert main(["plot", "c", "-o", "d.png"]) == 2
    assert "there are no records" in capsys.readouterr().err and not Path("d.png").exists()
