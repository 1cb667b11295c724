"""Trackers behind one interface: what each is given, services that fail, and the packages' own offline modes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from runs import options, records

from relume.core.errors import UserError
from relume.core.pipeline import train_pipeline

ROOT = Path("experiments/toy")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Service:
    """A module of MLflow's form that remembers what it is told, and may go down."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.down_after = 10**9

    def __getattr__(self, name: str) -> Any:
        def take(*arguments: Any, **more: Any) -> None:
            if sum(n == "log_metrics" for n, _ in self.told) >= self.down_after:
                raise ConnectionError("the server has gone away")
            self.told.append((name, (*arguments, *more.values())))

        return take

    def of(self, name: str) -> list[Any]:
        return [a for n, a in self.told if n == name]


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Service:
    found = Service()
    monkeypatch.setitem(sys.modules, "mlflow", found)
    return found


def test_mlflow_gets_the_same_numbers(mlflow: Service) -> None:
    train_pipeline(options(train__total_iter=4, logger__mlflow={"experiment": "e", "tracking_uri": "file:here"}))
    assert mlflow.of("set_tracking_uri") == [("file:here",)] and mlflow.of("set_experiment") == [("e",)]
    parameters = {k: v for (chunk,) in mlflow.of("log_params") for k, v in chunk.items()}
    assert parameters["train.total_iter"] == "4" and all(len(chunk) <= 100 for (chunk,) in mlflow.of("log_params"))
    values = {step: v for v, step in mlflow.of("log_metrics") if "losses/l_pix" in v}
    lines = records(ROOT)
    assert [values[i]["losses/l_pix"] for i in range(1, 5)] == [r["l_pix"] for r in lines[:4]]
    assert mlflow.told[-1][0] == "end_run"


def test_a_service_that_goes_down_ends_nothing(mlflow: Service, said: list[str]) -> None:
    mlflow.down_after = 2
    train_pipeline(options(train__total_iter=6, logger__mlflow={"experiment": "e"}))
    assert len([s for s in said if s.startswith("MLflow fails, which ends nothing else: ConnectionError")]) == 1
    assert [r["iter"] for r in records(ROOT) if "lr" in r] == list(range(1, 7))
    assert (ROOT / "models/net_g_6.pth").is_file()


def test_a_run_that_is_continued_keeps_its_parameters(mlflow: Service) -> None:
    train_pipeline(options(train__total_iter=1, logger__mlflow={"experiment": "e", "run_id": "abc"}))
    assert mlflow.of("start_run")[0][0] == "abc" and not mlflow.of("log_params")


def test_mlflow_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match=r"^logger\.mlflow needs mlflow, which .*Try: pip install mlflow$"):
        train_pipeline(options(logger__mlflow={"experiment": "e"}))
    assert not Path("experiments").exists()


def test_offline_is_told_to_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {}

    def init(**arguments: Any) -> SimpleNamespace:
        settings.update(arguments)
        return SimpleNamespace(log=lambda *a, **k: None, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    train_pipeline(options(train__total_iter=1, logger__wandb={"project": "p", "mode": "offline"}))
    assert settings["mode"] == "offline"


def test_wandb_itself_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train_pipeline(options(train__total_iter=2, logger__wandb={"project": "p", "mode": "offline"}))
    assert list(Path("wandb").glob("offline-run-*/run-*.wandb"))


def test_mlflow_itself_in_a_folder(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    found = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    train_pipeline(options(train__total_iter=2, logger__mlflow={"experiment": "e", "tracking_uri": "file:mlruns"}))
    assert not [s for s in said if "MLflow fails" in s]
    found.set_tracking_uri("file:mlruns")
    (run,) = found.MlflowClient().search_runs([found.get_experiment_by_name("e").experiment_id])
    assert run.data.params["train.total_iter"] == "2" and run.info.run_name == "toy"
    assert run.data.metrics["losses/l_pix"] == pytest.approx(records(ROOT)[1]["l_pix"])
