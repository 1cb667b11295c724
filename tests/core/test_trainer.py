"""core/trainer.py: precision, layout, clipping, averages, several optimizers, bad steps, and what happens when."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from runs import REPO, differences, options, records, weights

from relume.core.errors import EXIT_NONFINITE, EXIT_PREEMPTED, NonFiniteError, UserError
from relume.core.models.base import Batch, Update
from relume.core.models.restoration import RestorationModel
from relume.core.options.plugins import import_plugin, module_name
from relume.core.pipeline import train_pipeline
from relume.core.trainer import Trainer

TOY, PLAYERS = REPO / "tests" / "toy.py", REPO / "tests" / "players.py"
ROOT = Path("experiments/toy")
PLAIN_NET: dict[str, Any] = {"network_g__dropout": 0.0, "network_g__norm": False}
SGD: dict[str, Any] = {"train__optim_g": {"type": "SGD", "lr": 0.05}}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plugin(path: Path) -> ModuleType:
    return sys.modules[module_name(Path(import_plugin(str(path), Path.cwd())))]


@pytest.fixture
def toy() -> ModuleType:
    return plugin(TOY)


@pytest.fixture
def players() -> Iterator[ModuleType]:
    module = plugin(PLAYERS)
    yield module
    module.RememberingSGD.seen.clear()
    module.TwoOutputs.seen.clear()


@pytest.fixture
def visits(toy: ModuleType) -> Iterator[Any]:
    """Counts visits to places of accidents from zero."""
    toy.visits.clear()
    yield toy.visits
    toy.visits.clear()


def steps(root: Path = ROOT) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that iterations wrote."""
    return [r for r in records(root) if "metrics" not in r]


def curve(opt: dict[str, Any], key: str = "l_pix") -> list[float]:
    """The loss of every iteration of a run."""
    train_pipeline(opt)
    return [r[key] for r in steps(Path("experiments") / opt["name"])]


def with_players(**changes: Any) -> dict[str, Any]:
    return options(**changes, plugins=[str(TOY), str(PLAYERS)])


# ------------------------------------------------------------------ precision, layout, compilation
@pytest.mark.parametrize(("amp", "tolerance"), [("bf16", 0.03), ("fp16", 0.01)])
def test_mixed_precision_stays_close_to_float32_and_is_not_it(amp: str, tolerance: float) -> None:
    full = curve(options("full", **PLAIN_NET, **SGD))
    mixed = curve(options("mixed", **PLAIN_NET, **SGD, train__amp=amp))
    assert mixed == pytest.approx(full, rel=tolerance)
    assert mixed != full
    a, b = (weights(Path("experiments") / name, 12)["params"] for name in ("full", "mixed"))
    for name in a:
        assert b[name].dtype == torch.float32
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=tolerance)
    state = torch.load("experiments/mixed/training_states/12.state", weights_only=True)
    assert bool(state["scaler"]["g"]) == (amp == "fp16")


def test_channels_last_reaches_weights_and_images_and_changes_no_result(
    toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts = []
    forward = toy.ToyNet.forward

    def spy(self: Any, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            last = torch.channels_last
            layouts.append((x.is_contiguous(memory_format=last), self.body[4].weight.is_contiguous(memory_format=last)))
        return forward(self, x)

    monkeypatch.setattr(toy.ToyNet, "forward", spy)
    plain = curve(options("plain", **PLAIN_NET))
    assert set(layouts) == {(False, False)}
    layouts.clear()
    assert curve(options("last", **PLAIN_NET, train__channels_last=True)) == pytest.approx(plain, rel=1e-4)
    assert set(layouts) == {(True, True)}


@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",  # traces the forward and the backward pass, and runs them as they are: all that is ours, in seconds
        pytest.param(
            "inductor",
            marks=[
                pytest.mark.skipif(
                    "RELUME_SLOW_TESTS" not in os.environ, reason="takes minutes; set RELUME_SLOW_TESTS=1"
                ),
                pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"),
            ],
        ),
    ],
)
@pytest.mark.filterwarnings("default")  # what torch's compiler warns of is its own business
def test_compiled_training_equals_eager(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small: dict[str, Any] = {**PLAIN_NET, "train__total_iter": 3, "network_g__width": 2, "val__val_freq": None}
    eager = curve(options("eager", **small))
    from torch._dynamo.utils import counters

    counters.clear()
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda net, mode: compile_(net, backend=backend, mode=mode))
    compiled = curve(options("compiled", **small, train__compile=True))
    assert counters["stats"]["unique_graphs"] > 0, "nothing was compiled"
    assert compiled == pytest.approx(eager, rel=1e-3)
    names = weights(Path("experiments/compiled"), 3)["params"].keys()
    assert names == weights(Path("experiments/eager"), 3)["params"].keys(), "the compiler's wrapping is not saved"


def test_the_scale_of_fp16_survives_a_resume() -> None:
    changes: dict[str, Any] = {"train__amp": "fp16", "train__pixel_opt": {"type": "ToyLoss", "loss_weight": 10.0}}
    train_pipeline(options("straight", **changes))
    train_pipeline(options("parts", **changes, train__total_iter=5))
    train_pipeline(options("parts", **changes), auto_resume=True)
    a, b = (torch.load(f"experiments/{n}/training_states/12.state", weights_only=True) for n in ("straight", "parts"))
    assert a["scaler"]["g"]["scale"] < 65536 and differences(a, b) == []


# ------------------------------------------------------------------ clipping, warm-up
def remembered(players: ModuleType, **changes: Any) -> list[torch.Tensor]:
    """Every step's gradients as the optimizer saw them."""
    optimizer = {"type": "RememberingSGD", "lr": 0.05}
    train_pipeline(with_players(**PLAIN_NET, train__optim_g=optimizer, train__total_iter=3, **changes))
    seen = list(players.RememberingSGD.seen)
    players.RememberingSGD.seen.clear()
    return seen


def test_the_optimizer_sees_clipped_gradients(players: ModuleType) -> None:
    free = remembered(players)
    assert len(free) == 3 and free[0].norm() > 0.5
    assert steps()[0]["grad_norm"] == pytest.approx(float(free[0].norm()), rel=1e-5)

    by_norm = remembered(players, train__grad_clip_norm=0.1)
    assert [float(g.norm()) for g in by_norm] == pytest.approx([0.1] * 3, rel=1e-3)
    torch.testing.assert_close(by_norm[0], free[0] * (0.1 / free[0].norm()), rtol=1e-3, atol=1e-6)
    assert steps()[0]["grad_norm"] == pytest.approx(float(free[0].norm()), rel=1e-5), (
        "the log has the norm before clipping"
    )

    by_value = remembered(players, train__grad_clip_value=0.02)
    torch.testing.assert_close(by_value[0], free[0].clamp(-0.02, 0.02))

    both = remembered(players, train__grad_clip_value=0.02, train__grad_clip_norm=0.01)
    clamped = free[0].clamp(-0.02, 0.02)
    torch.testing.assert_close(both[0], clamped * (0.01 / clamped.norm()), rtol=1e-3, atol=1e-7)

    restormers = remembered(players, train__use_grad_clip=True)
    assert float(restormers[0].norm()) == pytest.approx(0.01, rel=1e-3)
    generous = remembered(players, train__grad_clip_norm=1e6)
    assert torch.equal(generous[0], free[0]), "small gradients are not touched"


def test_clipping_is_of_true_gradients_under_fp16(players: ModuleType) -> None:
    clipped = remembered(players, train__grad_clip_norm=0.1, train__amp="fp16")
    assert [float(g.norm()) for g in clipped] == pytest.approx([0.1] * 3, rel=1e-2)


def test_warm_up_rises_linearly_and_leaves_the_schedule_alone() -> None:
    schedule = {"type": "MultiStepLR", "milestones": [6], "gamma": 0.5}
    train_pipeline(options(train__warmup_iter=4, train__scheduler=schedule, train__total_iter=8, val__val_freq=None))
    rates = [r["lr"][0] for r in steps()]
    assert rates[3:] == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.005])
    rises = [b - a for a, b in itertools.pairwise(rates[:4])]
    assert rises == pytest.approx([rises[0]] * 3) and rates[0] < 0.005


# ------------------------------------------------------------------ averages
def test_the_average_is_what_it_says_in_files_and_in_validation(toy: ModuleType) -> None:
    opt = options(**SGD, train__ema_decay=0.7, train__total_iter=4, logger__save_checkpoint_freq=1, val__val_freq=4)
    results = train_pipeline(opt)
    files = [weights(ROOT, i) for i in range(1, 5)]
    for earlier, now in itertools.pairwise(files):
        for name, value in now["params"].items():
            average = now["params_ema"][name]
            if "running" in name or "num_batches" in name:
                assert torch.equal(average, value), "buffers are copied"
            else:
                torch.testing.assert_close(average, 0.7 * earlier["params_ema"][name] + 0.3 * value)
    assert not torch.equal(files[-1]["params"]["body.0.weight"], files[-1]["params_ema"]["body.0.weight"])

    def score(entry: str) -> float:
        network = toy.ToyNet().eval()
        network.load_state_dict(files[-1][entry])
        data = toy.ToyDataset(length=3, phase="val")
        errors = []
        for item in (data[i] for i in range(3)):
            with torch.no_grad():
                output = network(item["lq"][None])[0].clamp(0, 1)
            errors.append((output.mul(255).round() - item["gt"].mul(255).round()).abs().mean())
        return -float(torch.stack(errors).mean())

    assert results["held_out"]["score"] == pytest.approx(score("params_ema"), abs=1e-3)
    assert results["held_out"]["score"] != pytest.approx(score("params"), abs=1e-2)


# ------------------------------------------------------------------ several optimizers, several updates in a step
def two_players(name: str = "toy", **changes: Any) -> dict[str, Any]:
    opt = with_players(
        name=name,
        model_type="TwoPlayers",
        network_d={"type": "ToyNet", "dropout": 0.0, "norm": False, "width": 4},
        **PLAIN_NET,
        **changes,
    )
    opt["train"].update(optim_d={"type": "SGD", "lr": 0.1}, alone=3)
    return opt


def test_two_networks_two_updates_and_a_phase() -> None:
    train_pipeline(two_players(train__ema_decay=0.5, logger__save_checkpoint_freq=1, train__total_iter=5))
    lines = steps()
    assert ["l_g_pix" in r for r in lines] == [False, False, False, True, True]
    assert all({"l_d", "error", "grad_norm"} <= r.keys() for r in lines)
    assert "grad_norm_g" in lines[-1] and "l_g_critic" in lines[-1]
    assert [r["lr"][0] for r in lines[:3]] == [pytest.approx(0.1, rel=0.2)] * 3, "the rate of what is stepped"
    assert [r["lr"][0] for r in lines[3:]] == [pytest.approx(0.01, rel=0.6)] * 2, (
        "the first optimizer's, where both are"
    )
    g, d = ([weights(ROOT, i, key)["params"] for i in range(1, 6)] for key in "gd")
    assert differences(g[0], g[2]) == [], "the first phase leaves the restorer alone"
    assert differences(g[2], g[3]) != [] and all(differences(a, b) for a, b in itertools.pairwise(d))
    assert {"params", "params_ema"} == weights(ROOT, 5, "d").keys()
    state = torch.load(ROOT / "training_states/5.state", weights_only=True)
    assert set(state["optimizers"]) == set(state["schedulers"]) == {"g", "d"}
    assert state["model"]["steps_seen"] == [1, 2, 3, 4, 5]


def test_two_networks_resume_exactly() -> None:
    train_pipeline(two_players("straight"))
    train_pipeline(two_players("parts", train__total_iter=5))
    train_pipeline(two_players("parts"), auto_resume=True)
    a, b = (torch.load(f"experiments/{n}/training_states/12.state", weights_only=True) for n in ("straight", "parts"))
    assert b["model"]["steps_seen"] == list(range(1, 13))
    schedule = a.pop("schedulers"), b.pop("schedulers")  # the shorter run had the same schedule
    assert differences(*schedule) == [] and differences(a, b) == []
    for key in "gd":
        assert differences(*(weights(Path("experiments") / n, 12, key) for n in ("straight", "parts"))) == []


def test_two_networks_accumulate_to_one_larger_batch() -> None:
    train_pipeline(two_players("whole", datasets__train__batch_size_per_gpu=4, train__total_iter=6))
    train_pipeline(two_players("parts", train__accumulate=2, train__total_iter=6))
    for key in "gd":
        a, b = (weights(Path("experiments") / n, 6, key)["params"] for n in ("whole", "parts"))
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)
    first, last = (records(Path("experiments") / n) for n in ("whole", "parts"))
    assert [r["l_d"] for r in first if "l_d" in r] == pytest.approx([r["l_d"] for r in last if "l_d" in r], rel=1e-3)


def test_a_bad_first_update_cancels_the_rest_of_the_step() -> None:
    opt = two_players(datasets__train__poison=3, logger__save_checkpoint_freq=1, train__total_iter=6)
    opt["train"]["alone"] = 0
    train_pipeline(opt)
    bad = [r["iter"] for r in steps() if r["l_d"] is None]
    assert bad and all("l_g_pix" not in r for r in steps() if r["iter"] in bad)
    for i in [i for i in bad if i > 1]:
        for key in "gd":
            assert differences(weights(ROOT, i - 1, key), weights(ROOT, i, key)) == []


# ------------------------------------------------------------------ progressive training
def test_restormers_progressive_schedule_reaches_the_network(toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    forward = toy.ToyNet.forward
    monkeypatch.setattr(
        toy.ToyNet, "forward", lambda net, x: shapes.append((net.training, *x.shape)) or forward(net, x)
    )
    opt = options(train__total_iter=7, val__val_freq=None)
    opt["datasets"]["train"].update(mini_batch_sizes=[3, 2, 1], iters=[2, 3, 1], gt_sizes=[8, 12, 16], gt_size=16)
    train_pipeline(opt)
    expected = [(3, 3, 8, 8)] * 2 + [(2, 3, 12, 12)] * 3 + [(1, 3, 16, 16)] * 2  # the last stage goes on
    assert [tuple(shape) for training, *shape in shapes if training] == expected


# ------------------------------------------------------------------ non-finite steps
def poisoned(**changes: Any) -> dict[str, Any]:
    return options(datasets__train__poison=3, logger__save_checkpoint_freq=1, **changes)


@pytest.mark.parametrize("changes", [{}, {"train__accumulate": 2}, {"train__amp": "fp16"}, {"train__ema_decay": 0.9}])
def test_a_nan_is_named_and_changes_nothing(changes: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    train_pipeline(poisoned(**changes))
    said = re.findall(r"iteration (\d+) skipped \((\d+) in a row\): (.*)", capsys.readouterr().out)
    bad = [r["iter"] for r in steps() if r["l_pix"] is None]
    assert 2 <= len(bad) < 10 and [int(i) for i, _, _ in said] == bad, "one epoch has six batches, one of them poisoned"
    for iteration, _, text in said:
        assert "l_pix = nan for " in text and "img003.png" in text
        i = int(iteration)
        if i > 1:
            assert differences(weights(ROOT, i - 1), weights(ROOT, i)) == [], "batch statistics and averages included"
    final = weights(ROOT, 12)["params"]
    assert all(torch.isfinite(v).all() for v in final.values())
    assert differences(weights(ROOT, bad[-1])["params"], weights(ROOT, min(bad[-1] + 1, 12))["params"]) or bad[-1] == 12


def test_bad_gradients_of_finite_losses_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    opt = with_players(train__pixel_opt={"type": "KinkLoss", "at": [2, 3, 5]}, logger__save_checkpoint_freq=1)
    opt["train"]["max_nonfinite"] = 3
    train_pipeline(opt)
    said = re.findall(r"iteration (\d+) skipped \((\d+) in a row\): (.*)", capsys.readouterr().out)
    assert [(i, n) for i, n, _ in said] == [("2", "1"), ("3", "2"), ("5", "1")], "a sound step starts the count anew"
    assert all(t.startswith("the losses are finite, the gradients of g.body.0.weight") for _, _, t in said)
    assert differences(weights(ROOT, 1), weights(ROOT, 3)) == []
    assert [r["l_pix"] is not None and r["grad_norm"] is None for r in steps()[:5]] == [False, True, True, False, True]


def test_too_many_bad_steps_stop_the_run_with_a_bundle_that_replays() -> None:
    opt = with_players(train__pixel_opt={"type": "KinkLoss", "at": [4, 5]}, train__max_nonfinite=2)
    with pytest.raises(NonFiniteError) as caught:
        train_pipeline(opt)
    assert caught.value.code == EXIT_NONFINITE and "training stopped at iteration 5: 2 steps in a row" in str(
        caught.value
    )
    bundle = torch.load(ROOT / "nonfinite_5_rank0.pt", weights_only=True)
    assert bundle["iteration"] == 5 and bundle["seed"] == 7
    assert bundle["batches"][0]["lq"].shape == (2, 3, 12, 12) and bundle["networks"]["g"]["body.0.weight"].shape[0] == 8
    assert "KinkLoss" in bundle["options"]
    log = next(ROOT.glob("train_toy_*.log")).read_text()
    assert "ERROR: training stopped at iteration 5" in log, "the text log says why the run ended"


def test_fp16_overflow_lowers_the_scale_and_is_no_bad_step(capsys: pytest.CaptureFixture[str]) -> None:
    loud = {"type": "ToyLoss", "loss_weight": 10.0}  # times the first scale, 65536, beyond what fp16 gradients hold
    opt = options(**PLAIN_NET, train__pixel_opt=loud, train__amp="fp16", train__max_nonfinite=1, train__total_iter=8)
    opt["train"]["optim_g"] = {"type": "SGD", "lr": 1e-3}
    opt["logger"]["save_checkpoint_freq"] = 1
    train_pipeline(opt)
    assert "skipped" not in capsys.readouterr().out
    states = [torch.load(ROOT / f"training_states/{i}.state", weights_only=True) for i in range(1, 9)]
    scales = [s["scaler"]["g"]["scale"] for s in states]
    assert scales[0] == 32768.0 and scales == sorted(scales, reverse=True)
    assert scales[-1] == scales[-2], "the scale has settled, and steps happen"
    overflowed = next(i for i in range(7) if scales[i] != scales[i + 1])
    assert differences(weights(ROOT, overflowed + 1), weights(ROOT, overflowed + 2)) == [], "an overflow steps nothing"
    assert differences(weights(ROOT, 7), weights(ROOT, 8)) != []


# ------------------------------------------------------------------ validation, best, checkpoints
def test_validation_and_checkpoints_come_when_they_are_due() -> None:
    opt = options(
        train__total_iter=11, logger__save_checkpoint_freq=3, logger__keep_checkpoints=2, logger__print_freq=5
    )
    train_pipeline(opt)
    lines = records(ROOT)
    assert [r["iter"] for r in lines if "metrics" in r] == [4, 8, 11]
    assert [r["iter"] for r in lines if "metrics" not in r] == [5, 10, 11]
    assert sorted(p.name for p in (ROOT / "training_states").iterdir()) == [
        "11.sha256",
        "11.state",
        "9.sha256",
        "9.state",
    ]
    names = {p.name for p in (ROOT / "models").iterdir()}
    assert names == {"net_g_9.pth", "net_g_11.pth", "net_g_latest.pth", "net_g_best.pth"}


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_best_weights_are_those_of_the_best_validation(better: str) -> None:
    metrics = {"other": {"type": "calculate_psnr"}, "score": {"type": "toy_score", "better": better}}
    changes = {"val__metrics": metrics, "val__best": "score", "val__val_freq": 2, "logger__save_checkpoint_freq": 2}
    train_pipeline(options(**SGD, **changes, train__optim_g__lr=0.5))
    scores = {r["iter"]: r["metrics"]["score"] for r in records(ROOT) if "metrics" in r}
    assert len(set(scores.values())) > 2
    best = (max if better == "higher" else min)(scores, key=lambda i: scores[i])
    assert differences(weights(ROOT, "best"), weights(ROOT, best)) == []
    state = torch.load(ROOT / "training_states/12.state", weights_only=True)
    assert state["best"]["held_out"]["score"] == {"value": scores[best], "iter": best}


def test_the_first_set_that_has_the_metric_chooses_the_best_weights(toy: ModuleType) -> None:
    opt = options(train__total_iter=4)
    val = opt["datasets"].pop("val")
    Path("alone").mkdir()
    from relume.core.imaging.image_io import imwrite

    imwrite("alone/a.png", torch.rand(3, 16, 16))
    opt["datasets"]["val"] = {"name": "no_truth", "type": "SingleImageDataset", "dataroot_lq": "alone"}
    opt["datasets"]["val_2"] = {**val, "name": "with_truth"}
    results = train_pipeline(opt)
    assert results["no_truth"] == {} and set(results["with_truth"]) == {"score"}
    assert differences(weights(ROOT, "best"), weights(ROOT, 4)) == []


def test_a_metric_may_be_dropped_on_resume(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"score": {"type": "toy_score"}, "psnr": {"type": "calculate_psnr"}}
    train_pipeline(options(train__total_iter=4, val__metrics=metrics))
    del metrics["score"]
    results = train_pipeline(options(train__total_iter=8, val__metrics=metrics), auto_resume=True)
    assert set(results["held_out"]) == {"psnr"} and "Done in" in capsys.readouterr().out


# ------------------------------------------------------------------ the end of a run
def test_a_signal_in_the_last_validation_leaves_it_to_the_resumed_run(
    visits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = train_pipeline(options("straight"))
    visits.clear()
    monkeypatch.setenv("RELUME_TEST_SIGNAL", f"metric:8:{int(signal.SIGTERM)}")
    with pytest.raises(
        UserError, match=r"preempted at iteration 12; the checkpoint is saved\. Continue with --auto_res"
    ) as e:
        train_pipeline(options("stopped"))
    assert e.value.code == EXIT_PREEMPTED
    visits.clear()
    monkeypatch.setenv("RELUME_TEST_SIGNAL", f"metric:1:{int(signal.SIGTERM)}")
    with pytest.raises(UserError, match="preempted at iteration 12"):
        train_pipeline(options("stopped"), auto_resume=True)
    monkeypatch.delenv("RELUME_TEST_SIGNAL")
    assert train_pipeline(options("stopped"), auto_resume=True) == straight
    states = [
        torch.load(f"experiments/{n}/training_states/12.state", weights_only=True) for n in ("straight", "stopped")
    ]
    assert differences(*states) == []
    assert [r.get("metrics") for r in records(Path("experiments/stopped"))][-1] == straight["held_out"]


def test_a_run_that_is_complete_says_so_and_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    results = train_pipeline(options())
    before = {p: os.stat(p).st_mtime_ns for p in sorted(Path("experiments").rglob("*"))}
    capsys.readouterr()
    assert train_pipeline(options(), auto_resume=True) == results
    said = capsys.readouterr().out
    assert "This run is already complete: experiments/toy is at iteration 12, and train.total_iter is 12" in said
    assert said.count("\n") == 1
    assert {p: os.stat(p).st_mtime_ns for p in sorted(Path("experiments").rglob("*"))} == before
    longer = train_pipeline(options(train__total_iter=14), auto_resume=True)
    assert [r["iter"] for r in steps()] == list(range(1, 15)) and longer.keys() == results.keys()


def test_another_runs_last_state_is_nothing_to_continue_from() -> None:
    train_pipeline(options())
    state = str(ROOT / "training_states/12.state")
    with pytest.raises(
        UserError, match=r"path\.resume_state: .*12\.state is at iteration 12 .* raise train\.total_iter"
    ):
        train_pipeline(options("other", path__resume_state=state))
    assert not Path("experiments/other").exists()


def test_metrics_jsonl_is_json_and_complete(visits: Any) -> None:
    train_pipeline(poisoned(train__total_iter=6))
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (ROOT / "metrics.jsonl").read_text().splitlines()]
    first = lines[0]
    assert {"iter", "epoch", "lr", "l_pix", "grad_norm", "perf/time", "perf/data_time"} <= first.keys()
    assert first["lr"] == [0.01] and first["perf/iterations_per_second"] == pytest.approx(
        1 / first["perf/time"], rel=1e-3
    )
    assert [r["epoch"] for r in lines if "lr" in r] == [0] * 6
    clock = [datetime.datetime.fromisoformat(r["perf/wall_clock"]) for r in lines]
    assert clock == sorted(clock) and clock[0].tzinfo is not None
    assert abs(clock[-1] - datetime.datetime.now(datetime.timezone.utc)) < datetime.timedelta(minutes=2)
    steps = [r for r in lines if "lr" in r]
    assert steps[-1]["perf/eta"] == 0 and all(r["perf/eta"] > 0 for r in steps[:-1])
    assert all(r["perf/time_max"] == pytest.approx(r["perf/time"]) and r["perf/time_max_rank"] == 0 for r in steps)


Curve = Callable[..., list[float]]


# ------------------------------------------------------------------ what Model.updates promises
def test_every_micro_batch_has_its_generator_before_the_first_is_advanced(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[tuple[str, int]] = []
    original = RestorationModel.updates

    def updates(self: RestorationModel, batch: Batch, step: int) -> Iterator[Update]:
        happened.append(("created", step))

        def generator() -> Iterator[Update]:
            happened.append(("advanced", step))
            yield from original(self, batch, step)

        return generator()

    monkeypatch.setattr(RestorationModel, "updates", updates)
    train_pipeline(options(train__total_iter=2, train__accumulate=3))
    assert happened == [(what, step) for step in (1, 2) for what in ["created"] * 3 + ["advanced"] * 3]


def test_a_state_with_one_scale_for_all_optimizers_gives_it_to_each(monkeypatch: pytest.MonkeyPatch) -> None:
    train_pipeline(options(train__amp="fp16", train__total_iter=2, logger__save_checkpoint_freq=2, val__val_freq=None))
    restored: list[float] = []
    load = Trainer.load_state

    def as_before(self: Trainer, state: Mapping[str, Any]) -> None:
        load(self, {**state, "scaler": {**state["scaler"]["g"], "scale": 1024.0}})
        restored.extend(scaler.get_scale() for scaler in self.updater.scalers.values())

    monkeypatch.setattr(Trainer, "load_state", as_before)
    train_pipeline(options(train__amp="fp16", train__total_iter=3, val__val_freq=None), auto_resume=True)
    assert restored == [1024.0]
