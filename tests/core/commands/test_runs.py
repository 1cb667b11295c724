"""``relume runs``: every state a run can be in, from files alone, without torch, of 200 runs in under a second."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from left_behind import experiment

from relume.core.cli import main
from relume.core.runtime.lock import owned

SECOND = 1.0
"""Of a core's time; it was 0.33 on a busy machine."""


@pytest.fixture
def month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "experiments"
    experiment(root / "done")
    experiment(root / "halted", reached=40, outcome=(75, "preempted", "preempted at iteration 40"), lr=3e-4)
    experiment(root / "killed", reached=50, outcome=None)
    experiment(root / "blown_up", reached=30, outcome=(3, "nonfinite", "10 steps in a row"), psnr=[None])
    experiment(root / "silent_nan", reached=30, outcome=None, last_loss=None)
    experiment(root / "crashed", reached=20, outcome=(1, "failed", "RuntimeError: CUDA out of memory"))
    experiment(root / "empty", reached=0, outcome=None)
    (root / "notes").mkdir()  # not a run
    return root


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict]:
    assert main(["runs", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_state(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with owned(experiment(month / "going", reached=60, outcome=None)):
        found = {s["name"]: s for s in listed(capsys)}
    states = {name: s["state"] for name, s in found.items()}
    assert states == {
        "done": "finished", "halted": "stopped", "killed": "stopped", "blown_up": "NaN", "silent_nan": "NaN",
        "crashed": "failed", "empty": "not started", "going": "running",
    }  # fmt: skip
    assert found["done"]["best"] == {
        "dataset": "val", "metric": "psnr", "value": 22.0, "iteration": 66, "better": "higher"
    }  # fmt: skip
    assert found["blown_up"]["best"] is None and found["empty"]["best"] is None
    assert (found["halted"]["iteration"], found["halted"]["total"]) == (40, 100)
    assert found["crashed"]["reason"] == "RuntimeError: CUDA out of memory"
    assert found["going"]["eta"] is not None and found["done"]["eta"] is None
    files = [p for p in (month / "done").rglob("*") if p.is_file()]
    assert found["done"]["disk"] == sum(p.stat().st_size for p in files)


def test_the_table(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--against", "done"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "stopped at 40" in lines["halted"] and "40 of 100" in lines["halted"]
    assert lines["halted"].endswith("train.optim_g.lr=0.0003") and lines["killed"].endswith("in nothing")
    assert "psnr 22.0000 @ 66" in lines["done"] and "NaN at 30" in lines["blown_up"]
    assert main(["runs", "--sort", "best"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("crashed")


def test_lower_is_better_where_the_metric_or_the_run_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opt = {"val": {"metrics": {"lpips": {"type": "calculate_lpips"}}, "best": "lpips"}}
    experiment(tmp_path / "a", options=opt, psnr=[10.0, 20.0, 12.5])
    assert listed(capsys, str(tmp_path))[0]["best"]["value"] == 0.05
    lines = (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()
    kept = [json.dumps({**json.loads(x), **({"better": {"lpips": "higher"}} if "metrics" in x else {})}) for x in lines]
    (tmp_path / "a" / "metrics.jsonl").write_text("\n".join(kept))
    assert listed(capsys, str(tmp_path))[0]["best"]["value"] == 0.1


def test_broken_lines_are_said_and_left_out(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (month / "done" / "metrics.jsonl").open("a") as file:
        file.write('{"iter": 1, "metr\n[1, 2]\n{"iter": 101, "dataset": "val", "metri')
    assert main(["runs"]) == 0
    out, err = capsys.readouterr()
    assert "psnr 22.0000 @ 66" in out
    assert "done/metrics.jsonl:14: is no JSON object; it is left out" in err
    assert "done/metrics.jsonl:16: the last line was cut short" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["experiments/notes"], "experiments/notes: there are no runs in this folder"),
        (["--against", "don"], "there is no run 'don' in experiments. Did you mean 'done'?"),
    ],
)
def test_bad_input(month: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_200_runs_without_torch_in_a_second(month: Path) -> None:
    source = (month / "done" / "metrics.jsonl").read_text()
    for i in range(193):
        experiment(month / f"run_{i:03d}", lr=i * 1e-4)
    (month / "run_000" / "metrics.jsonl").write_text(source * 2000)
    code = "import sys; from relume.core.cli import main; main(['runs', '--against', 'done']); print('torch' in sys.modules)"
    took = []
    for _ in range(2):  # the first may have to compile
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.stdout.splitlines()[-1] == "False" and "200 runs" in done.stdout
        if took[-1] < SECOND:
            break
    assert min(took) < SECOND
