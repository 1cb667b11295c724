"""core/runtime/logger.py: BasicSR's log grammar, records, trackers, tables."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from runs import options, records

from relume.core.errors import UserError
from relume.core.options import check
from relume.core.pipeline import train_pipeline
from relume.core.runtime import logger
from relume.core.runtime.logger import RunLogger, as_json, header, trackers

ROOT = Path("experiments/toy")
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
ITERATION = re.compile(
    rf"{TIME} INFO: \[(?P<name>.{{1,5}})\.\.\]\[epoch:(?P<epoch>[ \d]{{3,}}), iter:(?P<iter>[ \d,]{{8,}}), "
    r"lr:\((?P<lr>(?:\d\.\d{3}e[+-]\d\d,)+)\)\] "
    r"\[eta: (?:\d+ days?, )?\d+:\d\d:\d\d, time \(data\): \d+\.\d{3} \(\d+\.\d{3}\)\] "
    r"(?P<losses>\w+: -?\d\.\d{4}e[+-]\d\d.*)"
)
VALIDATION = re.compile(
    rf"{TIME} INFO: Validation (\S+)\n\t # (\w+): (-?\d+\.\d{{4}})\tBest: (-?\d+\.\d{{4}}) @ (\d+) iter\n"
)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def log_text() -> str:
    (file,) = ROOT.glob("train_toy_*.log")
    assert re.fullmatch(r"train_toy_\d{8}_\d{6}\.log", file.name)
    return file.read_text()


# ------------------------------------------------------------------ a run's text log
def test_the_log_is_written_in_basicsrs_grammar() -> None:
    train_pipeline(options())
    text = log_text()
    lines = [m for m in map(ITERATION.fullmatch, text.splitlines()) if m]
    assert [int(m["iter"].replace(",", "")) for m in lines] == list(range(1, 13))
    assert [int(m["epoch"]) for m in lines] == [0] * 6 + [1] * 6
    assert [float(m["lr"].rstrip(",")) for m in lines] == pytest.approx(
        [r["lr"][0] for r in records(ROOT) if "lr" in r], 1e-3
    )
    assert all(m["name"] == "toy" and m["losses"].startswith("l_pix: ") for m in lines)
    validations = VALIDATION.findall(text)
    assert [v[:2] for v in validations] == [("held_out", "score")] * 3
    scores = [float(v[2]) for v in validations]
    assert [float(v[3]) for v in validations] == list(np.maximum.accumulate(scores))
    head = text.split("Training set")[0]
    for word in (
        "Relume 0.",
        f"torch {torch.__version__}",
        "Device cpu, 1 rank(s)",
        "ToyNet, 459 parameters",
        "seed 7",
    ):
        assert word in head
    assert "Done in" in text, "the last words are in the file too"


def test_long_names_and_several_parameter_groups() -> None:
    opt = options("a_long_name", train__total_iter=1, val__val_freq=None)
    opt["train"]["optim_g"]["param_groups"] = [{"params": "bias", "lr": 0.5}]
    train_pipeline(opt)
    (file,) = Path("experiments/a_long_name").glob("*.log")
    (line,) = filter(None, map(ITERATION.fullmatch, file.read_text().splitlines()))
    assert line["name"] == "a_lon" and line["lr"] == "5.000e-01,1.000e-02,"


def test_large_numbers_keep_the_grammar(said: list[str]) -> None:
    run = RunLogger(ROOT, Path("tb"), check(options(train__total_iter=2_000_000)))
    run.iteration(1_234_567, 1234, [2e-4], {"l_pix": 1e-9, "perf/time": 0.5, "perf/data_time": 0.001})
    run.close()
    assert ITERATION.fullmatch(f"2026-11-21 07:05:11,276 INFO: {said[-1]}")
    assert "[epoch:1234, iter:1,234,567, lr:(2.000e-04,)] [eta: " in said[-1] and said[-1].endswith("l_pix: 1.0000e-09")


def test_a_crash_is_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: Any, *arguments: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("relume.core.trainer.Trainer.step", crash)
    with pytest.raises(ZeroDivisionError):
        train_pipeline(options())
    assert "ERROR: Traceback (most recent call last):" in log_text() and "ZeroDivisionError: a bug" in log_text()
    assert not [h for h in logging.getLogger("relume").handlers if isinstance(h, logging.FileHandler)], (
        "files are closed"
    )


def test_the_console_is_standard_output_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    logger.start_console()
    logger.start_console()
    for i in range(2):
        replaced = io.StringIO()
        monkeypatch.setattr(sys, "stdout", replaced)
        logger.log.info("message %d", i)
        assert re.fullmatch(rf"{TIME} INFO: message {i}\n", replaced.getvalue())


def test_git_state_and_frozen_parameters_are_in_the_header(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(10, 100), torch.nn.Linear(100, 1))
    network[0].requires_grad_(False)
    text = header({"name": "x", "model_type": "M", "manual_seed": 1}, {"g": network}, torch.device("cpu"), "1 thread")
    assert "network_g: Sequential, 1,201 parameters, 101 of them trained" in text
    assert logger._git_state(tmp_path) == ""
    commit = "git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x"
    subprocess.run(commit, shell=True, cwd=tmp_path, check=True)
    assert re.fullmatch(r", git [0-9a-f]{10}", logger._git_state(tmp_path))


# ------------------------------------------------------------------ records
def test_records_after_a_resume_have_every_iteration_once() -> None:
    opt = check(options())
    run = RunLogger(ROOT, Path("tb"), opt)
    for i in range(1, 8):
        run.record({"iter": i})
    run.record({"iter": 6, "dataset": "held_out", "metrics": {"psnr": float("inf"), "ssim": float("nan")}})
    run.close()
    run.record({"iter": 99})  # after the end: nothing happens
    with (ROOT / "metrics.jsonl").open("a") as file:
        file.write('{"iter": 8, "l_p')  # killed in the middle of a line
    run = RunLogger(ROOT, Path("tb"), opt, start=6)
    run.record({"iter": 7})
    run.close()
    lines = records(ROOT)
    assert [r["iter"] for r in lines] == [1, 2, 3, 4, 5, 6, 6, 7]
    assert lines[6]["metrics"] == {"psnr": None, "ssim": None}


def test_json_that_every_reader_takes() -> None:
    content = {"a": [1.5, float("inf"), {"b": float("nan")}], "c": (1, -float("inf")), "d": "text", "e": None}
    assert json.loads(as_json(content)) == {"a": [1.5, None, {"b": None}], "c": [1, None], "d": "text", "e": None}


# ------------------------------------------------------------------ trackers
def test_tensorboard_has_curves_and_pictures() -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = {"score": {"type": "toy_score"}}
    train_pipeline(options(logger__use_tb_logger=True, val__metrics=metrics, logger__print_freq=3))
    board = EventAccumulator("tb_logger/toy").Reload()
    tags = board.Tags()
    speed = {f"perf/{k}" for k in ("time", "data_time", "iterations_per_second", "memory_gib")}
    speed |= {"perf/wait_data", "perf/wait_device", "perf/host"}
    means = {f"{of}/{term}" for of in ("mean", "epoch") for term in ("l_pix", "l_total")}
    losses = {"losses/l_pix", "losses/l_total"}
    assert set(tags["scalars"]) == {*losses, "lr/0", "grad_norm", "metrics/held_out/score", *speed, *means}
    assert [e.step for e in board.Scalars("losses/l_pix")] == [3, 6, 9, 12]
    assert [e.value for e in board.Scalars("losses/l_pix")] == pytest.approx(
        [r["l_pix"] for r in records(ROOT) if "lr" in r]
    )
    assert [e.step for e in board.Scalars("metrics/held_out/score")] == [4, 8, 12]
    assert tags["images"] == ["held_out/img000"] and [e.step for e in board.Images("held_out/img000")] == [4, 8, 12]


def test_no_tracker_unless_asked_for() -> None:
    train_pipeline(options(train__total_iter=1))
    assert not Path("tb_logger").exists()


def test_a_tracker_that_is_missing_is_one_line_before_anything_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"^logger\.wandb needs wandb, which .*Try: pip install wandb$") as caught:
        train_pipeline(options(logger__wandb={"project": "low_light", "resume_id": None}))
    assert "\n" not in str(caught.value) and not Path("experiments").exists()
    train_pipeline(options(train__total_iter=1, logger__wandb={"project": None, "resume_id": None}))


def test_wandb_gets_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: dict[int, dict[str, float]] = {}
    settings: dict[str, Any] = {}
    finished = []

    def init(**arguments: Any) -> SimpleNamespace:
        settings.update(arguments)

        def take(values: dict[str, float], step: int) -> None:
            logged.setdefault(step, {}).update(values)

        return SimpleNamespace(log=take, finish=lambda: finished.append(True))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    train_pipeline(options(train__total_iter=4, logger__wandb={"project": "low_light", "resume_id": "abc"}))
    assert (settings["project"], settings["name"], settings["id"], settings["resume"]) == (
        "low_light",
        "toy",
        "abc",
        "allow",
    )
    assert settings["config"]["train"]["total_iter"] == 4
    lines = records(ROOT)
    assert [logged[i]["losses/l_pix"] for i in range(1, 5)] == [r["l_pix"] for r in lines[:4]]
    assert logged[4]["metrics/held_out/score"] == lines[-1]["metrics"]["score"] and finished == [True]


def test_trackers_are_imported_on_demand() -> None:
    none = check(options()).logger
    assert trackers(none) == (None, None, None)
    board, wandb, mlflow = trackers(check(options(logger__use_tb_logger=True)).logger)
    assert board.SummaryWriter and wandb is mlflow is None
