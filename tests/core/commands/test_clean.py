"""``relume clean``: lists first, keeps what is needed to go on, to test, and what others point at."""

from __future__ import annotations

from pathlib import Path

import pytest
from left_behind import experiment, picture

from relume.core.cli import main
from relume.core.runtime.checkpoint import Checkpoints
from relume.core.runtime.lock import owned


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = experiment(tmp_path / "experiments" / "a", psnr=[20.0, 25.0, 21.0, 22.0])
    checkpoints = Checkpoints(folder)
    for folder_ in (checkpoints.models, checkpoints.states):
        folder_.mkdir()
    for iteration in (25, 50, 75, 100):
        checkpoints.save(iteration, {"g": {"params": {}}}, {"iter": iteration})
    return folder


def files(root: Path) -> set[str]:
    return {p.name for p in root.rglob("*") if p.suffix in (".pth", ".state", ".sha256")}


def test_nothing_is_deleted_before_it_was_asked_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "models" / "net_g_best.pth").write_bytes(b"best")
    before = files(root)
    assert main(["clean"]) == 0
    out = capsys.readouterr().out
    assert files(root) == before and "9 files and folders" in out and "nothing was deleted" in out
    assert "net_g_50.pth" in out and "net_g_100" not in out
    assert main(["clean", "a", "--yes"]) == 0
    assert files(root) == {"net_g_100.pth", "net_g_latest.pth", "net_g_best.pth", "100.state", "100.sha256"}
    assert Checkpoints(root).newest_good() == (100, [])
    assert main(["clean"]) == 0 and "nothing to delete" in capsys.readouterr().out


def test_the_best_validation_stays_where_no_weights_are_called_best(root: Path) -> None:
    assert main(["clean", "--yes"]) == 0
    assert Checkpoints(root).iterations() == [50, 100]


def test_a_damaged_newest_checkpoint_keeps_everything(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "models" / "net_g_100.pth").write_bytes(b"torn")
    before = files(root)
    assert main(["clean", "--yes"]) == 0
    assert files(root) == before and "is damaged" in capsys.readouterr().err


def test_what_another_run_begins_with_stays(root: Path) -> None:
    there = {"path": {"pretrain_network_g": "experiments/a/models/net_g_25.pth"}}
    experiment(root.parent / "b", options=there)
    assert main(["clean", "--yes"]) == 0
    assert 25 in Checkpoints(root).iterations() and 75 not in Checkpoints(root).iterations()


def test_a_run_that_is_going_on_is_left_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(root)
    with owned(root):
        assert main(["clean", "--yes"]) == 0
    assert files(root) == before and "is running" in capsys.readouterr().err


def test_pictures_and_archives_when_asked_for(root: Path) -> None:
    for name in ("x_50.png", "x_100.png", "x_50_comparison.png", "x_100_comparison.png", "mine_3.png"):
        picture(root / "visualization" / "val" / "x" / name, 0)
    aside = experiment(root.parent / "a_archived_20261101_120000")
    assert main(["clean", "--yes"]) == 0
    assert len(list(root.rglob("*.png"))) == 5 and aside.exists()
    assert main(["clean", "--yes", "--pictures", "--archived"]) == 0
    assert {p.name for p in root.rglob("*.png")} == {"x_100.png", "x_100_comparison.png", "mine_3.png"}
    assert not aside.exists()


def test_no_runs_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", str(tmp_path)]) == 2
    assert "there are no runs here" in capsys.readouterr().err
