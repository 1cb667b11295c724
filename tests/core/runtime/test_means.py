"""core/runtime/means.py, and what one sees of a training while it runs: totals, means, pictures, first lines."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import options, records

from relume.core.imaging.image_io import imread
from relume.core.ops import dispatch
from relume.core.pipeline import train_pipeline
from relume.core.runtime import distributed
from relume.core.runtime.means import RunningMeans

CPU = torch.device("cpu")
ROOT = Path("experiments/toy")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_means_are_of_a_line_and_of_an_epoch() -> None:
    means = RunningMeans(CPU)
    found = []
    for step in range(1, 11):
        means.add({"l_a": torch.tensor(float(step)), "l_b": 2.0 * step, "grad_norm": 7.0}, epoch=(step - 1) // 4)
        if step % 3 == 0:
            assert means.steps == 3
            found.append({k: float(v) for k, v in means.take().items()})
    assert [f["mean/l_a"] for f in found] == [2, 5, 8] and [f["mean/l_b"] for f in found] == [4, 10, 16]
    assert [f["epoch/l_a"] for f in found] == [2, 5.5, 9]
    assert set(found[0]) == {"mean/l_a", "mean/l_b", "epoch/l_a", "epoch/l_b"}


def test_what_is_not_finite_is_left_out() -> None:
    means = RunningMeans(CPU)
    for value in (1.0, math.nan, 3.0, math.inf):
        means.add({"l_a": value}, 0)
    means.add({"l_never": math.nan}, 0)
    found = means.take()
    assert found["mean/l_a"] == 2.0 and found["mean/l_never"].isnan()


def test_a_checkpoint_within_an_epoch_does_not_show_in_the_means_of_three_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = torch.rand(3, 40, generator=torch.Generator().manual_seed(3))
    meeting, stacks = threading.Barrier(3), {}

    def mean(stack: torch.Tensor) -> torch.Tensor:
        stacks[threading.get_ident()] = stack
        meeting.wait(60)
        found = torch.stack([stacks[k] for k in sorted(stacks)]).mean(dim=0)
        meeting.wait(60)
        return found

    monkeypatch.setattr(distributed, "active", lambda: True)
    monkeypatch.setattr(distributed, "mean", mean)

    def rank(own: list[float], often: bool) -> torch.Tensor:
        means = RunningMeans(CPU)
        for i, value in enumerate(own):
            means.add({"l_a": value}, 0)
            if often and i % 3 == 0:
                means.align()
        return means.take()["epoch/l_a"].float()

    with ThreadPoolExecutor(3) as ranks:
        told = [list(ranks.map(partial(rank, often=often), values.tolist())) for often in (False, True)]
    assert len({float(v) for each in told for v in each}) == 1
    assert float(told[0][0]) == pytest.approx(float(values.mean()))


def test_a_state_goes_on_bit_for_bit() -> None:
    values = torch.rand(20, generator=torch.Generator().manual_seed(0)).tolist()
    whole, first, second = RunningMeans(CPU), RunningMeans(CPU), RunningMeans(CPU)
    for i, value in enumerate(values):
        whole.add({"l_a": value}, i // 7)
        (first if i < 9 else second).add({"l_a": value}, i // 7)
        if i == 8:
            second.load_state_dict(first.state_dict())
    assert whole.take() == second.take()


def test_lines_of_a_training(capsys: pytest.CaptureFixture[str]) -> None:
    """12 samples by twos are 6 iterations an epoch; every second line is written."""
    train_pipeline(options(name="each", logger__print_freq=1))
    train_pipeline(options(logger__print_freq=2))
    each = [r for r in records(Path("experiments/each")) if "metrics" not in r]
    lines = [r for r in records(ROOT) if "metrics" not in r]
    assert [r["iter"] for r in lines] == [2, 4, 6, 8, 10, 12]
    for line in lines:
        i = line["iter"]
        since = [r["l_pix"] for r in each[i - 2 : i]]
        epoch = [r["l_pix"] for r in each[(i - 1) // 6 * 6 : i]]
        assert line["l_total"] == line["l_pix"] == each[i - 1]["l_pix"]
        assert line["mean/l_pix"] == pytest.approx(np.mean(since), rel=1e-6)
        assert line["epoch/l_pix"] == pytest.approx(np.mean(epoch), rel=1e-6)
        losses = {k for k in line if k.startswith("l_")}
        assert losses == {"l_pix", "l_total"} and not any(k.startswith("out_") for k in line)
    text = capsys.readouterr().out
    assert "mean/l_pix: " in text and "epoch/" not in text
    assert all(r["mean/l_pix"] == r["l_pix"] for r in each)
    for said in (
        "12 images x 1 (dataset_enlarge_ratio), patches of 12 pixels; 2 per GPU x 1 rank(s) x 1 micro-batch(es)",
        "An epoch is 12 samples at 2 an iteration: 6 iterations; 12 iterations in all: 2.00 epochs",
        "Validation set held_out: 3 images",
    ):
        assert said in text


def test_pictures_of_training_samples() -> None:
    train_pipeline(options(logger__train_image_freq=5, datasets__train__batch_size_per_gpu=3))
    files = sorted((ROOT / "visualization" / "training").glob("*.png"))
    assert [f.name for f in files] == ["10.png", "5.png"]
    height, width = imread(files[0]).shape[:2]
    assert width > 2.5 * (height - 64)  # three panels side by side, and captions


def test_pictures_change_nothing() -> None:
    train_pipeline(options(name="without"))
    train_pipeline(options(logger__train_image_freq=1))
    found: list[list[dict[str, Any]]] = [
        [{k: v for k, v in r.items() if not k.startswith("perf/")} for r in records(Path("experiments") / name)]
        for name in ("without", "toy")
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_pictures_of_several_validation_images(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    shown: list[str] = []
    monkeypatch.setattr("relume.core.runtime.logger.RunLogger.image", lambda self, tag, picture, it: shown.append(tag))
    train_pipeline(options(val__num_pictures=count, val__val_freq=12))
    assert sorted(shown) == [f"held_out/img{i:03d}" for i in range(count)]


def test_kernels_are_spoken_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(dispatch, "DECISIONS", {"layer norm": "", "ssd": "mamba-ssm is not installed"})
    train_pipeline(options())
    said = [line for line in capsys.readouterr().out.splitlines() if "Kernels: " in line]
    assert len(said) == 1
    assert said[0].endswith("Kernels: layer norm: fused; ssd: plain PyTorch (mamba-ssm is not installed)")


def test_decisions_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "DECISIONS", {})
    monkeypatch.delenv("RELUME_KERNELS", raising=False)
    assert dispatch.decisions() == ""
    dispatch.use_kernel("a", lambda: None)
    dispatch.use_kernel("b", lambda: "there is no GPU")
    monkeypatch.setenv("RELUME_KERNELS", "off")
    dispatch.use_kernel("c", lambda: None)
    assert (
        dispatch.decisions() == "a: fused; b: plain PyTorch (there is no GPU); c: plain PyTorch (RELUME_KERNELS is off)"
    )
