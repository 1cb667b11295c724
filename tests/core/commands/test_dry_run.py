"""``train --dry_run``: two steps with everything real, a table, and nothing left behind."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from runs import options, records

from relume.core.cli import main
from relume.core.imaging.opencv import cv2
from relume.core.options import shipped

LAPTOP = [
    n
    for n in shipped.names()
    if re.search(r"laptop/|quickstart|small/s\d|generation/(faces|ablation)", n)
    and "test/" not in n
    and "_base_" not in n
]
"""What trains on a laptop without downloading anything, and own_pairs.yml, which needs the user's pictures."""


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def rehearse(*arguments: str, **changes: object) -> int:
    Path("x.yml").write_text(yaml.safe_dump(options(**changes), sort_keys=False))
    return main(["train", "-opt", "x.yml", "--dry_run", *arguments])


def rows(text: str) -> dict[str, str]:
    """The table, the last lines."""
    lines = text.splitlines()
    start = max(i for i, line in enumerate(lines) if line.startswith("packages "))
    return {line.split("  ")[0]: re.split(r"\s{2,}", line, maxsplit=1)[1] for line in lines[start:]}


def test_the_table_says_what_the_whole_training_takes(capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"train__total_iter": 1200, "train__scheduler": None, "logger__keep_checkpoints": 3}
    assert rehearse(**changes, val__val_freq="100 epochs") == 0
    table = rows(capsys.readouterr().out)
    assert "torch " in table["packages"] and table["device"].startswith("cpu")
    assert table["training images"] == "12 found, all tried: 0 skipped"
    assert table["images of held_out"] == "3 found, all tried: 0 skipped"
    assert re.match(r"about \d+\.\d h: 1,200 iterations \(2,400 samples\), 2 validation\(s\)", table["whole run"])
    assert re.match(r"\d\.\d{3} s a step", table["time"]) and "3 checkpoint(s)" in table["disk"]
    assert "GiB" in table["memory"]
    assert not list(Path("temporary").glob("relume*")) and sorted(p.name for p in Path().iterdir()) == [
        "temporary",
        "x.yml",
    ]


def test_one_picture_is_validated_and_two_steps_are_taken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from relume.core.trainer import Trainer

    taken, scored = [], []
    step, validate = Trainer.step, Trainer.validate
    monkeypatch.setattr(Trainer, "step", lambda self: taken.append(self.iteration) or step(self))

    def validating(self: Trainer) -> None:
        validate(self)
        scored.append(dict(self.parts.evaluator.counts))

    monkeypatch.setattr(Trainer, "validate", validating)
    assert rehearse() == 0
    assert taken == [1, 2] and scored == [{"held_out": (1, 1)}]
    assert "rates are those of a training of another length" not in capsys.readouterr().out


def test_weights_that_are_not_here_yet_are_no_obstacle(capsys: pytest.CaptureFixture[str]) -> None:
    assert rehearse("--force_yml", "path:pretrain_network_g=elsewhere/net_g_best.pth") == 0
    assert "elsewhere/net_g_best.pth: no such file" in rows(capsys.readouterr().out)["note"]


def test_what_would_end_the_training_ends_the_rehearsal(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"type": "PairedImageDataset", "dataroot_lq": "a", "dataroot_gt": "b"}
    assert rehearse(datasets__train=data) == 2
    assert "a: no such file or folder" in capsys.readouterr().err
    assert not list(Path("temporary").glob("relume*"))


def test_check_stays_free_of_data(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"type": "PairedImageDataset", "dataroot_lq": "a", "dataroot_gt": "b"}
    Path("x.yml").write_text(yaml.safe_dump(options(datasets__train=data, val__val_freq="2 epochs")))
    assert main(["train", "-opt", "x.yml", "--check"]) == 0
    assert "valid" in capsys.readouterr().out


def test_a_debugging_run_ends_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.yml").write_text(yaml.safe_dump(options(train__total_iter="500 epochs")))
    assert main(["train", "-opt", "x.yml", "--debug"]) == 0
    assert [r["iter"] for r in records(Path("experiments/debug_toy")) if "metrics" not in r] == list(range(1, 17))
    assert "another length" not in capsys.readouterr().out


@pytest.mark.parametrize("skip", [True, False])
def test_what_cannot_be_read_is_told_with_its_reason(skip: bool, capsys: pytest.CaptureFixture[str]) -> None:
    for side in ("lq", "gt"):
        Path(side).mkdir()
        for i in range(6):
            cv2.imwrite(f"{side}/{i}.png", np.full((16, 16, 3), 40 * i, np.uint8))
    Path("gt/4.png").write_bytes(b"no picture")
    pairs = {"type": "PairedImageDataset", "dataroot_lq": "lq", "dataroot_gt": "gt", "num_worker_per_gpu": 0}
    train = {**pairs, "gt_size": 16, "use_shuffle": False, "on_error": "skip" if skip else "raise"}
    assert rehearse(datasets={"train": train, "val": {"name": "held_out", **pairs}}) == 0
    table = rows(capsys.readouterr().out)
    found = table["training images"]
    assert found.startswith("6 found, all tried: 1 " + ("skipped" if skip else "would end the training")), found
    assert "gt/4.png: " in found and "gt/4.png: " in table["images of held_out"]


@pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="minutes; set RELUME_SLOW_TESTS to run it")
@pytest.mark.parametrize("name", [n for n in LAPTOP if "own_pairs" not in n and n != "relume:spectroformer/laptop.yml"])
def test_every_laptop_file_can_be_rehearsed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-opt", name, "--dry_run"]) == 0
    table = rows(capsys.readouterr().out)
    assert {
        "packages",
        "device",
        "kernels",
        "training images",
        "memory",
        "largest batch",
        "time",
        "whole run",
        "disk",
    } <= {*table}
