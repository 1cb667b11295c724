"""``val.best``: by which set weights are the best, and what is kept of them; resuming from them, and going on after the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import differences, options, records, weights

from relume.core import options as option_files
from relume.core.errors import UserError
from relume.core.pipeline import test_pipeline as evaluate
from relume.core.pipeline import train_pipeline
from relume.core.runtime import precision
from relume.core.runtime.weights import about_itself

ROOT = Path("experiments/toy")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def two_sets(**changes: Any) -> dict[str, Any]:
    other = {"name": "other", "type": "ToyDataset", "length": 2, "num_worker_per_gpu": 0}
    return options(**{"datasets__val_2": other, "val__val_freq": 2, **changes})


def best_iteration() -> int:
    return int(about_itself(torch.load(ROOT / "models" / "net_g_best.pth", weights_only=True))["iteration"])


def scores() -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for r in records(ROOT):
        if "metrics" in r:
            found.setdefault(r["dataset"], {})[r["iter"]] = r["metrics"]["score"]
    return found


@pytest.mark.parametrize("of", [None, "held_out", "other", "mean"])
def test_the_set_that_decides(of: str | None, said: list[str]) -> None:
    train_pipeline(two_sets(val__best={"metric": "score", **({"dataset": of} if of else {})}, train__optim_g__lr=0.03))
    by_set = scores()
    by_set["mean"] = {i: (v + by_set["other"][i]) / 2 for i, v in by_set["held_out"].items()}
    chosen = by_set[of or "held_out"]
    assert best_iteration() == max(chosen, key=chosen.__getitem__)
    told = {None: "held_out, the first of 2 sets that has it", "mean": "all sets, their mean"}.get(of, of)
    assert any(f"net_*_best.pth: by score of {told}" in line for line in said)
    assert not (ROOT / "training_states" / "best.state").exists()


@pytest.mark.parametrize(
    ("best", "said"),
    [
        ({"metric": "scor"}, "no metric is called 'scor'. Did you mean 'score'?"),
        ("scor", "no metric is called 'scor'. Did you mean 'score'?"),
        (
            {"dataset": "heldout"},
            "no validation set is called 'heldout'. Did you mean 'held_out'? Known: held_out, other, mean.",
        ),
        ({"keep_stat": True}, "keep_stat"),
    ],
)
def test_what_cannot_decide(best: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        option_files.check(two_sets(val__best=best))
    assert said in str(caught.value)


def test_the_state_of_the_best_weights_is_kept_and_goes_on() -> None:
    opt = two_sets(val__best={"keep_state": True}, train__optim_g__lr=0.03)
    train_pipeline(opt)
    iteration = best_iteration()
    state = torch.load(ROOT / "training_states" / "best.state", weights_only=True)
    assert state["iter"] == iteration and not state["pending_validation"]
    end = weights(ROOT, 12)
    train_pipeline({**opt, "name": "again", "path": {"resume_state": str(ROOT / "training_states" / "best.state")}})
    assert not differences(weights(Path("experiments/again"), 12), end)
    (ROOT / "models" / "net_g_best.pth").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"resume_state: .*net_g_best\.pth is damaged"):
        train_pipeline({**opt, "name": "anew", "path": {"resume_state": str(ROOT / "training_states" / "best.state")}})


def test_a_finished_run_is_extended(capsys: pytest.CaptureFixture[str]) -> None:
    train_pipeline(options(train__total_iter=8, train__scheduler=None, logger__save_checkpoint_freq=8))
    capsys.readouterr()
    train_pipeline(options(train__total_iter=12, train__scheduler=None), auto_resume=True)
    text = capsys.readouterr().out
    assert text.count("train.total_iter: was 8, is 12 (the training ends there; its schedule is the one written") == 1
    extended = weights(ROOT, 12)
    train_pipeline(options(name="whole", train__scheduler=None))
    assert not differences(extended, weights(Path("experiments/whole"), 12))


def test_the_file_may_ask_to_be_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    train_pipeline(options(train__total_iter=6))
    train_pipeline(options(auto_resume=True))
    assert "Resumed at iteration 6" in capsys.readouterr().out
    assert [p.name for p in Path("experiments").iterdir()] == ["toy"]


def test_the_line_of_an_archived_run_says_how_to_go_on_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    train_pipeline(options(train__total_iter=6))
    first = weights(ROOT, 6)
    train_pipeline(options(train__total_iter=2))
    line = next(part for part in capsys.readouterr().out.splitlines() if "was moved to" in part)
    assert "auto_resume: true in the option file" in line
    remove, _, move = line[line.index("rm -r ") : line.index(", and start")].partition(" && ")
    source, target = Path(move.split()[1]), Path(move.split()[2])
    assert Path(remove.split()[2]) == target == ROOT and source.is_dir()
    target.rename("away")
    source.rename(target)
    train_pipeline(options(), auto_resume=True)
    assert "Resumed at iteration 6" in capsys.readouterr().out and not differences(weights(ROOT, 6), first)


def test_fp16_of_a_large_network_is_bf16_on_a_cpu(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    monkeypatch.setattr(precision, "MANY", 1)
    train_pipeline(options(train__amp="fp16", val__amp="fp16", train__total_iter=2))
    assert [line for line in said if "fp16 is tens of times slower" in line] == [
        f"{section}.amp: fp16 is tens of times slower on a CPU; computing in bf16 instead (off computes in float32)"
        for section in ("train", "val")
    ]
    state = torch.load(ROOT / "training_states" / "2.state", weights_only=True)
    assert not state["scaler"]["g"], "bf16 needs no scale"


@pytest.mark.parametrize(("amp", "dtype"), [("off", torch.float32), ("bf16", torch.bfloat16)])
def test_validation_has_a_precision_of_its_own(
    amp: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    convolve = torch.nn.functional.conv2d

    def watched(*arguments: Any, **more: Any) -> torch.Tensor:
        output = convolve(*arguments, **more)
        seen[torch.is_grad_enabled()].add(output.dtype)
        return output

    monkeypatch.setattr(torch.nn.functional, "conv2d", watched)
    opt = options(train__amp="bf16", val__amp=amp, train__total_iter=2)
    train_pipeline(opt)
    assert f"3 images, in {'float32' if amp == 'off' else amp}\n" in capsys.readouterr().out
    assert seen == {True: {torch.bfloat16}, False: {dtype}}
    evaluate(opt)
    assert seen[False] == {dtype}
    assert ("cpu, float32, " if amp == "off" else f"cpu, {amp}, ") in capsys.readouterr().out
