"""core/options/counts.py: epochs as a unit of every number of iterations."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import options, records

import relume
from relume.core import options as option_files
from relume.core.annotations import Epochs
from relume.core.building.schedules import build_schedules
from relume.core.cli import main
from relume.core.options import OptionError, counts
from relume.core.options.counts import Epoch
from relume.core.pipeline import train_pipeline
from relume.datasets.loading.sampler import Plan

FOLDER = Path(relume.__file__).parent / "options"
IN_EPOCHS: dict[str, Any] = {
    "train__total_iter": None,
    "train__total_epoch": 6,
    "train__warmup_iter": "0.5 epochs",
    "train__scheduler": {"type": "MultiStepLR", "milestones": ["2 epochs", 5], "gamma": 0.5},
    "val__val_freq": "2 epochs",
    "logger__save_checkpoint_freq": "1 epoch",
}


MULTI_STEP = {"type": "MultiStepLR", "milestones": [4, 5], "gamma": 0.5}


def in_epochs(**changes: Any) -> dict[str, Any]:
    """A run of 12 samples, six epochs."""
    opt = options(**{**IN_EPOCHS, **changes})
    return {**opt, "train": {k: v for k, v in opt["train"].items() if v is not None}}


def resolved(length: int = 12, ranks: int = 1, **changes: Any) -> Any:
    return counts.resolved(option_files.check(in_epochs(**changes)), length, ranks)


@pytest.mark.parametrize(
    ("batch", "ranks", "accumulate"), [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 3), (2, 3, 1), (3, 2, 2)]
)
def test_batches_and_ranks_change_iterations_and_no_epochs(batch: int, ranks: int, accumulate: int) -> None:
    opt = resolved(36, ranks, datasets__train__batch_size_per_gpu=batch, train__accumulate=accumulate)
    epoch = 36 // (batch * ranks * accumulate)
    assert opt.train.total_iter == 6 * epoch and opt.train.total_epoch is None
    assert opt.train.scheduler.milestones == [2 * epoch, 5]
    assert opt.val.val_freq == 2 * epoch and opt.logger.save_checkpoint_freq == epoch
    assert opt.train.warmup_iter == math.floor(epoch / 2 + 0.5)
    assert not counts.given(opt)


@pytest.mark.parametrize("length", [1, 2, 5, 7, 11, 640, 3879, 51313])
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 6, 8])
def test_an_epoch_is_the_nearest_whole_number_and_divides_any_number_of_them(length: int, batch: int) -> None:
    epoch = Epoch(length, Plan(batch))
    assert abs(epoch.iterations - length / batch) <= 0.5 or (epoch.iterations == 1 and length < batch)
    assert epoch.iterations_of(551) == 551 * epoch.iterations
    assert ("does not divide" in epoch.sentence) == (length % batch != 0)


def test_the_originals_epochs() -> None:
    assert Epoch(3879, Plan(6)).iterations == 647 and Epoch(3879, Plan(4)).iterations == 970  # the last batch is short
    assert Epoch(51313, Plan(4)).iterations == 12828  # the last batch is left out


def rates(name: str, length: int, batch: int, ranks: int) -> tuple[float, list[float]]:
    """How many epochs a shipped recipe takes at this batch, and its learning rate at the end of some of them."""
    opt = option_files.load(FOLDER / name, [f"datasets:train:batch_size_per_gpu={batch}"])
    opt = counts.resolved(opt, length, ranks)
    assert opt.train is not None
    epoch = Epoch.of(opt, length, ranks)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=opt.train.optim_g["lr"])
    blocks = {"scheduler": opt.train.scheduler}
    schedule = build_schedules({"g": optimizer}, blocks, opt.train, lambda n: n * batch * ranks, None)["g"]
    last = round(epoch.epochs_of(opt.train.total_iter))
    ends = {epoch.iterations_of(n) for n in (40, last // 4, last // 2, 3 * last // 4, last - 1)}
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of torch: no step was taken before the schedule's
        for iteration in range(1, max(ends) + 1):
            if iteration in ends:
                found.append(optimizer.param_groups[0]["lr"])
            schedule.step()
    return epoch.epochs_of(opt.train.total_iter), found


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("underwater/spectroformer.yml", 24),
        ("underwater/paper/phaseformer_uieb.yml", 24),
        ("vfi/ablation/hybrid.yml", 2400),
    ],
)
def test_a_recipe_has_the_same_epochs_and_schedule_at_any_batch_and_on_any_ranks(name: str, length: int) -> None:
    epochs, usual = rates(name, length, 4, 1)
    assert epochs == option_files.load(FOLDER / name).train.total_epoch
    for batch, ranks in ((8, 1), (4, 2)):
        other, found = rates(name, length, batch, ranks)
        assert other == epochs and found == pytest.approx(usual, rel=0.05)  # VFI's warm-up has 2000 iterations


def test_repeats_count() -> None:
    assert resolved(12, datasets__train__dataset_enlarge_ratio=5).train.total_iter == 6 * 5 * 6


def test_stages_have_epochs_of_their_own_batch() -> None:
    plan = {"mini_batch_sizes": [4, 2], "iters": ["2 epochs", "4 epochs"], "gt_sizes": [8, 12]}
    opt = resolved(24, **{f"datasets__train__{k}": v for k, v in plan.items()})
    assert opt.datasets.train.iters == [12, 48]
    assert opt.train.total_iter == 12 + 48
    epoch = Epoch.of(opt, 24)
    assert epoch.changes and epoch.epochs_of(60) == 6 and epoch.iterations_of(1) == 6 and epoch.iterations_of(3) == 24
    assert epoch.sentence.startswith("The first epoch")


@pytest.mark.parametrize("text", ["1 epoch", "3 epochs", "0.25 epochs", "3epochs", " 2  epoch "])
def test_what_is_a_number_of_epochs(text: str) -> None:
    found = Epochs.read(text)
    assert found is not None and Epochs.read(str(found)) == found


@pytest.mark.parametrize(
    "text", ["epoch", "-1 epochs", "1e3 epochs", "nan epochs", "3 iterations", "3", "", "9" * 40 + " epochs"]
)
def test_what_is_none(text: str) -> None:
    assert Epochs.read(text) is None
    with pytest.raises(OptionError, match=r"val_freq: expected an integer \(or a number of epochs|val_freq: must be"):
        option_files.check(in_epochs(val__val_freq=text if text != "3" else "3.5"))


def test_none_of_what_must_be_there_is_refused() -> None:
    with pytest.raises(OptionError, match="must be at least 1, got 0 epochs"):
        option_files.check(in_epochs(val__val_freq="0 epochs"))


def test_what_comes_out_is_checked_again() -> None:
    scheduler = {"type": "OneCycleLR", "max_lr": 0.1, "total_steps": "2 epochs"}
    assert resolved(train__scheduler=scheduler).train.scheduler.total_steps == 12
    with pytest.raises(OptionError, match="save_checkpoint_freq"):
        option_files.check(in_epochs(logger__save_checkpoint_freq="three epochs"))


@pytest.mark.parametrize("base", ["total_iter: 40", "total_epoch: 3", "total_iter: 2 epochs"])
@pytest.mark.parametrize("over", ["total_iter: 50", "total_epoch: 7"])
def test_a_child_and_the_command_line_replace_one_by_the_other(tmp_path: Path, base: str, over: str) -> None:
    text = "name: x\nmodel_type: RestorationModel\nnetwork_g: {type: MSRResNet}\n"
    text += f"train: {{{base}, optim_g: {{type: Adam}}, pixel_opt: {{type: L1Loss}}}}\n"
    (tmp_path / "base.yml").write_text(text)
    (tmp_path / "child.yml").write_text(f"_base_: base.yml\ntrain: {{{over}}}\n")
    key, _, value = over.partition(": ")
    for opt in (
        option_files.load(tmp_path / "child.yml"),
        option_files.load(tmp_path / "base.yml", [f"train:{key}={value}"]),
    ):
        given = {k: opt.train[k] for k in ("total_iter", "total_epoch") if opt.train[k] is not None}
        assert given == {key: float(value)}
        assert option_files.check(opt.to_dict()).to_dict() == opt.to_dict()


def test_both_in_one_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="total_epoch: total_iter is given too"):
        option_files.check(in_epochs(train__total_iter=3))


def test_options_in_epochs_are_written_and_read_again(tmp_path: Path) -> None:
    opt = option_files.check(in_epochs())
    (tmp_path / "x.yml").write_text(option_files.dump(opt))
    assert option_files.load(tmp_path / "x.yml").to_dict() == opt.to_dict()


def test_a_run_in_epochs_equals_one_in_iterations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    same = {"train__total_iter": 12, "train__total_epoch": None, "train__warmup_iter": 1, "val__val_freq": 4}
    changes = {"datasets__train__batch_size_per_gpu": 6}
    train_pipeline(in_epochs(name="epochs", **changes))
    train_pipeline(
        in_epochs(name="iterations", **changes, **same, train__scheduler=MULTI_STEP, logger__save_checkpoint_freq=2)
    )
    found = [
        [{k: v for k, v in r.items() if not k.startswith("perf/")} for r in records(Path("experiments") / name)]
        for name in ("epochs", "iterations")
    ]
    assert found[0] == found[1] and [r["iter"] for r in found[0] if "metrics" in r] == [4, 8, 12]


def test_describe_shows_both_and_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for side in ("input", "gt"):
        (tmp_path / side).mkdir()
        for i in range(10):
            (tmp_path / side / f"{i}.png").write_bytes(b"no picture at all")
    data = {"type": "PairedImageDataset", "dataroot_lq": "input", "dataroot_gt": "gt", "batch_size_per_gpu": 2}
    opt = option_files.check(in_epochs(datasets={"train": data}))
    Path("x.yml").write_text(option_files.dump(opt))
    assert main(["check", "x.yml"]) == 0 and "valid" in capsys.readouterr().out
    for ranks, iterations in ((1, 5), (2, 3)):
        assert main(["describe", "x.yml", "--ranks", str(ranks)]) == 0
        shown = capsys.readouterr().out
        assert f"6 epochs (= {6 * iterations} iterations)" in shown
        assert f"[2 epochs, 5] (= [{2 * iterations}, 5] iterations)" in shown
    assert "3 iterations (not 2.50: the batch does not divide it); 18 iterations in all: 7.20 epochs" in shown
    opt = option_files.check(options(datasets={"train": data}, train__scheduler=MULTI_STEP))
    Path("y.yml").write_text(option_files.dump(opt))
    assert main(["describe", "y.yml"]) == 0
    rows = {
        line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines() if line
    }
    assert rows["train.total_iter"].startswith("12 (= 2.4 epochs) ")
    assert rows["train.scheduler.milestones"].startswith("[4, 5] (= [0.8, 1] epochs) ")
    assert rows["val.val_freq"].startswith("4 (= 0.8 epochs) ") and rows["train.warmup_iter"].startswith("-1 ")
    assert rows["An"].endswith("5 iterations; 12 iterations in all: 2.40 epochs")
    assert main(["describe", "x.yml", "--ranks", "0"]) == 2
    (tmp_path / "gt").rename(tmp_path / "elsewhere")
    assert main(["describe", "x.yml"]) == 0
    assert "Epochs are not counted in iterations: gt: no such file or folder" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scheduler", "warned"),
    [
        ({"type": "TrueCosineAnnealingLR", "T_max": 12}, False),
        ({"type": "TrueCosineAnnealingLR", "T_max": 6}, True),
        ({"type": "CosineAnnealingRestartLR", "periods": [6, 12]}, True),
        ({"type": "LambdaDecay", "niter": 1, "niter_decay": 4, "iters_per_epoch": "1 epoch"}, False),
        ({"type": "LambdaDecay", "niter": 1, "niter_decay": 9, "iters_per_epoch": "1 epoch"}, True),
        ({"type": "WarmupDecayLR", "warmup": 2, "total": 72}, False),
        ({"type": "WarmupDecayLR", "warmup": 2, "total": 36}, True),
        ({"type": "PolynomialLR", "total_iters": 13}, True),
        ({"type": "MultiStepLR", "milestones": [100]}, False),
        (None, False),
    ],
)
def test_a_schedule_of_another_length_is_remarked_upon_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], scheduler: Any, warned: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("relume.core.trainer.Trainer.fit", lambda self: None)
    train_pipeline(in_epochs(datasets__train__batch_size_per_gpu=6, train__scheduler=scheduler))
    assert capsys.readouterr().out.count("the rates are those of a training of another length") == warned


@pytest.mark.parametrize(("rate", "peak", "warned"), [(1e-3, 1e-3, 0), (1e-3, 2e-3, 1)])
def test_a_rate_that_a_schedule_replaces_is_remarked_upon(
    rate: float, peak: float, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    block = {"type": "CosineAnnealingWarmupRestarts", "first_cycle_steps": 9, "max_lr": peak, "min_lr": 0.0}
    build_schedules({"g": optimizer}, {"scheduler": block}, option_files.check(options()).train, lambda n: n, None)
    assert caplog.text.count("train.optim_g.lr: 0.001 has no effect: the rates are those of") == warned
