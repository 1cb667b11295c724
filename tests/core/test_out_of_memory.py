"""A GPU whose memory runs out, simulated: one line that says what was asked for and what takes less, and exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from runs import options

from relume.core import cli
from relume.core.models.restoration import RestorationModel
from relume.core.runtime.checkpoint import Checkpoints

FULL = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB\nmore of what torch says"
)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def full(after: int, original: Callable[..., Any]) -> Callable[..., Any]:
    """A function that finds no more memory after so many calls."""
    calls = []

    def perhaps(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > after:
            raise torch.OutOfMemoryError(FULL)
        return original(*arguments, **named)

    return perhaps


def run(command: str, opt: dict[str, Any], *arguments: str) -> int:
    Path("x.yml").write_text(yaml.safe_dump(opt))
    return cli.main([command, "-opt", "x.yml", *arguments])


def test_in_a_training(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In the first step, and in a later one, before which something was trained."""
    updates = RestorationModel.updates
    for after in (0, 7):
        monkeypatch.setattr(RestorationModel, "updates", full(after, updates))
        assert run("train", options(val__val_freq=None)) == 2
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert "Tried to allocate 2.00 GiB" in line and "more of what torch says" not in line
        for remedy in (
            "batch_size_per_gpu",
            "train.accumulate",
            "gt_size",
            "train.amp",
            "train.checkpoint_activations",
        ):
            assert remedy in line
        assert "Traceback" not in captured.out + captured.err
    assert Checkpoints(Path("experiments/toy")).interrupted() == 7


def test_in_a_validation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The images that did not fit are left out, and the training goes on."""
    monkeypatch.setattr(RestorationModel, "predict", full(2, RestorationModel.predict))
    assert run("train", options(train__total_iter=4)) == 0
    captured = capsys.readouterr()
    assert "img002 is left out: OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB" in captured.out
    assert "val.tile: 512 needs less memory" in captured.out
    assert "Traceback" not in captured.out + captured.err


@pytest.mark.parametrize(("after", "code"), [(1, 0), (0, 2)])
def test_in_a_test(after: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where one image of three fits, the table says so; where none does, there is no table."""
    opt = options()
    opt["datasets"] = {"test": {"name": "held_out", "type": "ToyDataset", "phase": "val", "length": 3}}
    del opt["train"], opt["logger"]
    monkeypatch.setattr(RestorationModel, "predict", full(after, RestorationModel.predict))
    assert run("test", opt, "--random_weights") == code
    captured = capsys.readouterr()
    assert ("held_out (1 of 3 images)" in captured.out) == (code == 0)
    assert "val.tile: 512 needs less memory" in (captured.err if code else captured.out)
    assert "Traceback" not in captured.out + captured.err and captured.err.count("\n") <= 1
