"""core/pipeline.py: test_pipeline, the command line and its exit codes, weights, and mistakes that building finds."""

from __future__ import annotations

import copy
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from runs import REPO, differences, options, records, weights

from relume.core import cli, pipeline
from relume.core.errors import EXIT_NONFINITE, EXIT_PREEMPTED, EXIT_USER_ERROR, UserError
from relume.core.imaging.image_io import imwrite
from relume.core.options.plugins import import_plugin, module_name
from relume.core.pipeline import test_pipeline, train_pipeline

test_pipeline.__test__ = False  # type: ignore[attr-defined] # it is no test

TOY = REPO / "tests" / "toy.py"
ROOT = Path("experiments/toy")
SLOW = pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="compiles; set RELUME_SLOW_TESTS=1")
PSNR = {"psnr": {"type": "calculate_psnr"}, "uiqm": {"type": "calculate_uiqm"}}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def images(folder: str, *names: str, size: tuple[int, int] = (20, 27)) -> str:
    for i, name in enumerate(names):
        imwrite(f"{folder}/{name}.png", torch.rand(3, *size, generator=torch.Generator().manual_seed(i)))
    return folder


def toy_net(**arguments: Any) -> torch.nn.Module:
    return sys.modules[module_name(Path(import_plugin(str(TOY), REPO)))].ToyNet(**arguments)


def saved_weights(path: str, key: str | None = "params", **arguments: Any) -> torch.nn.Module:
    torch.manual_seed(0)  # the same each time
    network = toy_net(**arguments).eval()
    state = network.state_dict()
    torch.save({key: state} if key else state, path)
    return network


def to_test(**changes: Any) -> dict[str, Any]:
    """Options of a test of `ToyNet` on two sets of images, the second without ground truth."""
    images("gt", "a", "b", "c")
    images("lq", "a", "b", "c")
    images("alone", "x", "y", size=(16, 16))
    saved_weights("w.pth")
    opt = options("tested")
    del opt["train"], opt["logger"]
    opt["datasets"] = {
        "test_1": {"name": "pairs", "type": "PairedImageDataset", "dataroot_gt": "gt", "dataroot_lq": "lq"},
        "test_2": {"name": "alone", "type": "SingleImageDataset", "dataroot_lq": "alone"},
    }
    opt["path"] = {"pretrain_network_g": "w.pth"}
    opt["val"] = {"metrics": PSNR, "save_img": True}
    for path, value in changes.items():
        section, _, key = path.partition("__")
        opt[section][key] = value
    return opt


def read(path: Path | str) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None, path
    return image


# ------------------------------------------------------------------ test.py
def test_a_test_scores_saves_and_reports_every_set(capsys: pytest.CaptureFixture[str]) -> None:
    results = test_pipeline(to_test())
    assert set(results["pairs"]) == {"psnr", "uiqm"} and set(results["alone"]) == {"uiqm"}
    out = Path("results/tested/visualization")
    assert sorted(p.name for p in (out / "pairs").iterdir()) == ["a_tested.png", "b_tested.png", "c_tested.png"]
    assert sorted(p.name for p in (out / "alone").iterdir()) == ["x_tested.png", "y_tested.png"]
    with torch.no_grad():
        network = toy_net().eval()
        network.load_state_dict(torch.load("w.pth", weights_only=True)["params"])
        lq = torch.rand(1, 3, 20, 27, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
        expected = network(lq)[0].clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy()[..., ::-1]
    assert np.abs(read(out / "pairs/a_tested.png") - expected).max() <= 1
    scores = [json.loads(line) for line in (out / "pairs_scores.jsonl").read_text().splitlines()]
    assert [s["image"] for s in scores] == ["a", "b", "c"]
    assert results["pairs"]["psnr"] == pytest.approx(np.mean([s["psnr"] for s in scores]))
    assert json.loads(Path("results/tested/metrics.json").read_text()) == results
    seconds = json.loads(Path("results/tested/seconds.json").read_text())
    assert set(seconds["pairs"]) == {row["image"] for row in scores} and min(seconds["pairs"].values()) > 0
    (log,) = Path("results/tested").glob("test_tested_*.log")
    table = (
        r"dataset +psnr +uiqm +params M +ms/image\n"
        rf"pairs +{results['pairs']['psnr']:.4f} +[\d.]+ +0\.00 +[\d.]+\nalone +- +[\d.-]+ +0\.00 +[\d.]+\n"
    )
    assert re.search(table, log.read_text()) and re.search(table, capsys.readouterr().out)
    assert "random weights" not in log.read_text()


def test_names_and_comparisons_as_asked_for() -> None:
    test_pipeline(to_test(val__suffix="v2", val__save_comparison=True, val__save_img=False))
    assert sorted(p.name for p in Path("results/tested/visualization/alone").iterdir()) == [
        "x_v2_comparison.png",
        "y_v2_comparison.png",
    ]
    test_pipeline({**to_test(), "path": {"pretrain_network_g": "w.pth", "results_root": "elsewhere"}})
    assert Path("elsewhere/tested/visualization/alone/x_tested.png").exists()


def test_images_of_one_name_in_several_folders_are_saved_apart_and_the_others_as_ever() -> None:
    opt = to_test()
    images("many/day", "x", "z")
    images("many/night", "x", "y")
    images("more", "x")
    opt["datasets"] = {"test_1": {"name": "sets", "type": "SingleImageDataset", "dataroot_lq": ["many", "more"]}}
    opt["val"]["save_comparison"] = True
    test_pipeline(opt)
    stems = ["day_x", "more_x", "night_x", "y", "z"]
    saved = sorted(p.name for p in Path("results/tested/visualization/sets").iterdir())
    assert saved == sorted(f"{s}_tested{end}.png" for s in stems for end in ("", "_comparison"))
    lines = [
        json.loads(line) for line in Path("results/tested/visualization/sets_scores.jsonl").read_text().splitlines()
    ]
    assert sorted(line["image"] for line in lines) == stems


def test_tiles_give_the_same_as_whole_images(monkeypatch: pytest.MonkeyPatch) -> None:
    test_pipeline(to_test())
    module = sys.modules[module_name(Path(import_plugin(str(TOY), REPO)))]
    seen = set()
    forward = module.ToyNet.forward
    monkeypatch.setattr(module.ToyNet, "forward", lambda net, x: seen.add(tuple(x.shape[-2:])) or forward(net, x))
    opt = to_test(val__tile=12, val__tile_overlap=6)
    test_pipeline({**opt, "name": "tiled"})
    assert seen == {(12, 12)}
    for name in ("pairs/a", "pairs/c", "alone/y"):
        a, b = (read(f"results/{n}/visualization/{name}_{n}.png").astype(int) for n in ("tested", "tiled"))
        assert np.abs(a - b).max() <= 1, "the network sees five pixels, tiles overlap by six"


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"val__channels_last": True}, 1e-3),
        ({"val__amp": "bf16"}, 0.3),
        pytest.param({"val__compile": True}, 1e-3, marks=SLOW),
        pytest.param({"val__amp": "bf16", "val__compile": True, "val__channels_last": True}, 0.3, marks=SLOW),
    ],
    ids=lambda v: "+".join(v) if isinstance(v, dict) else str(v),
)
def test_however_it_is_computed_the_scores_are_near(
    changes: dict[str, Any], tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network that is called as the options ask for."""
    expected = test_pipeline(to_test())
    called = []
    toy = sys.modules[module_name(Path(import_plugin(str(TOY), REPO)))].ToyNet

    def watch(net: torch.nn.Module, inputs: Any, y: torch.Tensor) -> None:
        last = net.body[0].weight.is_contiguous(memory_format=torch.channels_last)
        called.append((net._compiled_call_impl is not None, torch.is_autocast_enabled("cpu"), last))

    build = pipeline.build_model

    def built(*args: Any, **more: Any) -> Any:
        model, networks = build(*args, **more)
        assert isinstance(networks["g"], toy)
        networks["g"].register_forward_hook(watch)
        return model, networks

    monkeypatch.setattr(pipeline, "build_model", built)
    found = test_pipeline(to_test(**changes))
    for name, scores in expected.items():
        for metric, score in scores.items():
            assert found[name][metric] == pytest.approx(score, abs=tolerance)
    wanted = tuple(f"val__{key}" in changes for key in ("compile", "amp", "channels_last"))
    assert called and set(called) <= {wanted}


def test_a_picture_that_a_thread_cannot_write_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, *arguments: Any) -> None:
        if "b_tested" in path.name:
            raise OSError(28, "No space left on device", str(path))
        imwrite(path, *arguments)

    monkeypatch.setattr("relume.core.imaging.gallery.imwrite", write)
    with pytest.raises(UserError, match=r"No space left on device: .*b_tested\.png"):
        test_pipeline(to_test())


def test_training_options_can_be_tested_too() -> None:
    train_pipeline(options(val__save_img=True, train__total_iter=4))
    assert Path("experiments/toy/visualization/held_out/img001/img001_4.png").exists()
    trained = test_pipeline(options(path__pretrain_network_g=str(ROOT / "models/net_g_4.pth")))
    assert trained["held_out"]["score"] == pytest.approx(records(ROOT)[-1]["metrics"]["score"], abs=1e-9)


def test_random_weights_are_remarked_upon(capsys: pytest.CaptureFixture[str]) -> None:
    opt = to_test()
    del opt["path"]
    test_pipeline(opt, random_weights=True)
    assert "WARNING: network_g has random weights: path.pretrain_network_g names none" in capsys.readouterr().out


def test_one_text_log_per_test(capsys: pytest.CaptureFixture[str]) -> None:
    test_pipeline(to_test())
    (log,) = Path("results/tested").glob("test_tested_*.log")
    before = log.read_text()
    train_pipeline(options(train__total_iter=1))
    assert log.read_text() == before, "the next run does not write into it"


# ------------------------------------------------------------------ options stay the caller's
def test_plain_options_are_not_modified() -> None:
    opt = options(manual_seed=None, train__ema_decay=0.5)
    opt["network_g"]["norm"] = False
    kept = copy.deepcopy(opt)
    train_pipeline(opt)
    assert opt == kept
    opt = to_test()
    kept = copy.deepcopy(opt)
    test_pipeline(opt)
    assert opt == kept


def test_a_drawn_seed_is_told_and_kept_over_a_resume() -> None:
    train_pipeline(options(manual_seed=None, train__total_iter=4))
    seed = torch.load(ROOT / "training_states/4.state", weights_only=True)["seed"]
    (log,) = ROOT.glob("train_toy_*.log")
    assert f"model RestorationModel, seed {seed}\n" in log.read_text()
    assert f"manual_seed: {seed}\n" in (ROOT / "toy.yml").read_text()
    train_pipeline(options(manual_seed=None), auto_resume=True)
    train_pipeline(options("same", manual_seed=seed))
    lines = [[r.get("l_pix") for r in records(Path("experiments") / n)] for n in ("toy", "same")]
    assert lines[0] == lines[1]


# ------------------------------------------------------------------ weights
def test_training_starts_from_pretrained_weights_and_a_resume_does_not() -> None:
    saved_weights("w.pth", key=None)
    opt = options(path__pretrain_network_g="w.pth", train__total_iter=1, train__optim_g={"type": "SGD", "lr": 1e-12})
    train_pipeline(opt)
    start = torch.load("w.pth", weights_only=True)
    torch.testing.assert_close(weights(ROOT, 1)["params"]["body.0.weight"], start["body.0.weight"], rtol=0, atol=1e-6)
    Path("w.pth").unlink()
    opt["train"]["total_iter"] = 2
    train_pipeline(opt, auto_resume=True)
    a, b = (weights(ROOT, i)["params"]["body.4.bias"] for i in (1, 2))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            {"pretrain_network_g": "v.pth"},
            r"^v\.pth: no such file\. Did you mean 'w\.pth'\? \(path\.pretrain_network_g\)$",
        ),
        (
            {"pretrain_network_g": "w.pth", "param_key_g": "parms"},
            r"^w\.pth: has no entry 'parms'\. Did you mean 'params'\?",
        ),
        (
            {"pretrain_network_g": "wide.pth"},
            r"^wide\.pth: does not fit ToyNet: .*\(path\.strict_load_g: false loads what fits\) \(path\.pretrain_network_g\)$",
        ),
        ({"pretrain_network_g": "text.pth"}, r"^text\.pth: "),
    ],
)
@pytest.mark.parametrize("pipeline", [train_pipeline, test_pipeline])
def test_weights_that_cannot_be_loaded_are_one_line_before_anything_happens(
    pipeline: Any, path: dict[str, str], message: str
) -> None:
    opt = to_test() if pipeline is test_pipeline else options()
    saved_weights("w.pth")
    saved_weights("wide.pth", width=16)
    Path("text.pth").write_text("not weights")
    with pytest.raises(UserError, match=message) as caught:
        pipeline({**opt, "path": path})
    assert "\n" not in str(caught.value) and not Path("experiments").exists() and not Path("results").exists()


def test_what_fits_of_other_weights_is_loaded_and_the_rest_is_told(said: list[str]) -> None:
    network = saved_weights("norm.pth", norm=True)
    optimizer = {"type": "SGD", "lr": 1e-12}
    settings = {"pretrain_network_g": "norm.pth", "strict_load_g": False}
    train_pipeline(options(path=settings, network_g__norm=False, train__total_iter=1, train__optim_g=optimizer))
    loaded = weights(ROOT, 1)["params"]["body.0.weight"]
    torch.testing.assert_close(loaded, network.state_dict()["body.0.weight"], rtol=0, atol=1e-6)
    told = [s for s in said if "not loaded" in s]
    assert "network_g: not loaded: unexpected body.1.running_mean" in told and len(told) == 5


def test_averaged_weights_where_there_are_and_plain_ones_where_not(said: list[str]) -> None:
    network = saved_weights("w.pth")
    torch.save({"params": toy_net().state_dict(), "params_ema": network.state_dict()}, "both.pth")
    results = []
    for path in ({"pretrain_network_g": "both.pth", "param_key_g": "params_ema"}, {"pretrain_network_g": "w.pth"}):
        opt = to_test()
        torch.save({"params": network.state_dict()}, "w.pth")
        results.append(test_pipeline({**opt, "path": path}))
    assert results[0] == results[1]
    test_pipeline({**to_test(), "path": {"pretrain_network_g": "w.pth", "param_key_g": "params_ema"}})
    assert "w.pth: has no averaged weights (params_ema), taking params" in said


def test_averages_may_be_switched_on_in_a_resume(said: list[str]) -> None:
    train_pipeline(options(train__total_iter=2))
    train_pipeline(options(train__total_iter=4, train__ema_decay=0.9), auto_resume=True)
    assert weights(ROOT, 4).keys() == {"params", "params_ema"}
    assert any("has no averaged weights (params_ema), taking params" in s for s in said)


def test_a_state_of_other_options_is_one_line() -> None:
    train_pipeline(options(train__total_iter=2))
    groups = options(train__optim_g__param_groups=[{"params": "bias", "lr": 0.1}])
    with pytest.raises(UserError, match=r"2\.state: does not fit these options.*path\.pretrain_network_g$") as caught:
        train_pipeline(groups, auto_resume=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"net_g_2\.pth: does not fit ToyNet"):
        train_pipeline(options(network_g__width=16), auto_resume=True)
    train_pipeline(options(train__total_iter=4), auto_resume=True)


def test_a_network_may_be_left_out_of_a_resume(said: list[str]) -> None:
    train_pipeline(options(train__total_iter=2))
    frozen = {"type": "SGD", "lr": 1e-12}
    train_pipeline(
        options(train__total_iter=4, train__optim_g=frozen, path__ignore_resume_networks=["network_g"]),
        auto_resume=True,
    )
    assert differences(weights(ROOT, 2)["params"]["body.0.weight"], weights(ROOT, 4)["params"]["body.0.weight"]) != []


# ------------------------------------------------------------------ mistakes that building finds
def mistake(opt: dict[str, Any], pipeline: Any = train_pipeline) -> str:
    """The message of the UserError that running `opt` raises, before anything is written."""
    with pytest.raises(UserError) as caught:
        pipeline(opt)
    assert caught.value.code == EXIT_USER_ERROR and not Path("experiments").exists() and not Path("results").exists()
    return str(caught.value)


def test_two_datasets_of_one_name() -> None:
    opt = to_test()
    opt["datasets"]["test_2"]["name"] = "pairs"
    message = "datasets.test_2: another dataset is called 'pairs' too; give each a `name` of its own"
    assert mistake(opt, test_pipeline) == message
    opt = options()
    opt["datasets"]["val_2"] = dict(opt["datasets"]["val"])
    assert "datasets.val_2: another dataset is called 'held_out'" in mistake(opt)


def test_sections_that_are_missing() -> None:
    assert mistake(to_test()).startswith("there is no `train` section in these options; test.py runs files without one")
    opt = options()
    del opt["datasets"]["train"]
    assert mistake(opt) == "datasets: there is no `train` block"
    del opt["datasets"]["val"]
    assert mistake(opt, test_pipeline) == "datasets: there is no `test` (or test_1, val, ...) block"


def test_data_that_cannot_be_trained_on() -> None:
    assert "one iteration takes 100 samples" in mistake(options(datasets__train__batch_size_per_gpu=100))
    images("gt", "a", "b")
    images("lq", "a", "b")
    Path("empty").mkdir()
    paired = {"type": "PairedImageDataset", "dataroot_gt": "gt", "dataroot_lq": "lq", "num_worker_per_gpu": 0}
    assert "empty" in mistake(options(datasets__train={**paired, "dataroot_lq": "empty", "dataroot_gt": "empty"}))
    assert "64" in mistake(options(datasets__train={**paired, "gt_size": 64})), "a patch larger than the images"
    message = mistake(options(datasets__train={**paired, "dataroot_lq": "nowhere"}))
    assert "nowhere" in message and "\n" not in message


# ------------------------------------------------------------------ the command line
def written(opt: dict[str, Any]) -> str:
    Path("x.yml").write_text(yaml.safe_dump(opt, sort_keys=False))
    return "x.yml"


def exit_code(*arguments: str) -> int:
    return cli.main(arguments)


def test_check_touches_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    opt = options(datasets__train={"type": "PairedImageDataset", "dataroot_gt": "nowhere", "dataroot_lq": "nowhere"})
    assert exit_code("train", "-opt", written(opt), "--check") == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "plugins: running" not in line]
    assert said == [
        "x.yml: valid (RestorationModel, train, val)",
        "note: nowhere: no such file or folder. (datasets.train.dataroot_gt)",
        "note: nowhere: no such file or folder. (datasets.train.dataroot_lq)",
    ]
    assert [p.name for p in Path().iterdir()] == ["x.yml"]
    opt["train"]["optim_g"]["lrr"] = 1
    assert exit_code("train", "-opt", written(opt), "--check") == EXIT_USER_ERROR
    out, err = capsys.readouterr()
    assert not out and re.match(r"x\.yml:\d+:\d+: .*'lrr'.*Did you mean 'lr'\?", err) and err.count("\n") == 1


def test_debug_runs_have_their_own_folder_and_cadence() -> None:
    path = written(options(logger__use_tb_logger=True, logger__print_freq=100, val__val_freq=5000))
    assert exit_code("train", "-opt", path, "--debug") == 0
    assert [p.name for p in Path("experiments").iterdir()] == ["debug_toy"] and not Path("tb_logger").exists()
    lines = records(Path("experiments/debug_toy"))
    assert [r["iter"] for r in lines if "metrics" in r] == [8, 12]
    assert [r["iter"] for r in lines if "lr" in r] == list(range(1, 13))
    assert Path("experiments/debug_toy/training_states/8.state").exists()


def test_force_yml_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["train:total_iter=3", "train:optim_g:lr=1e-3", "datasets:train:batch_size_per_gpu=1", "name=other"]
    assert exit_code("train", "-opt", written(options()), "--force_yml", *overrides) == 0
    lines = records(Path("experiments/other"))
    assert [r["iter"] for r in lines if "lr" in r] == [1, 2, 3] and lines[0]["lr"] == [1e-3]
    capsys.readouterr()
    assert exit_code("train", "-opt", "x.yml", "--force_yml", "train:total_itr=3") == EXIT_USER_ERROR
    assert "Did you mean 'total_iter'?" in capsys.readouterr().err


def test_test_py_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("test", "-opt", written(to_test())) == 0
    assert Path("results/tested/metrics.json").exists()
    assert exit_code("test", "-opt", "x.yml", "--force_yml", "path:pretrain_network_g=v.pth") == EXIT_USER_ERROR
    place = "--force_yml path:pretrain_network_g=v.pth"
    line = f"{place}: v.pth: no such file. Did you mean 'w.pth'? (path.pretrain_network_g)\n"
    assert capsys.readouterr().err == line
    with pytest.raises(SystemExit, match="2"):
        exit_code("test", "-opt", "x.yml", "--auto_resume")  # which is for training


def test_auto_resume_after_the_end_is_success(capsys: pytest.CaptureFixture[str]) -> None:
    path = written(options(train__total_iter=2))
    for expected in ("Done in", "This run is already complete: experiments/toy is at iteration 2"):
        assert exit_code("train", "-opt", path, "--auto_resume") == 0
        assert expected in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["-opt", "nowhere.yml"], ["-opt", "nowhere.yml", "--check"]])
def test_a_missing_option_file(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("train", *arguments) == EXIT_USER_ERROR
    err = capsys.readouterr().err
    assert err.startswith("nowhere.yml: ") and err.count("\n") == 1


def test_nonfinite_and_interrupted_runs_have_codes_of_their_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loud = options(train__pixel_opt={"type": "ToyLoss", "loss_weight": 1e39}, train__max_nonfinite=2)
    assert exit_code("train", "-opt", written(loud)) == EXIT_NONFINITE
    assert "relume replay" in capsys.readouterr().err

    written(options())
    module = sys.modules[module_name(Path(import_plugin(str(TOY), REPO)))]
    module.visits.clear()
    monkeypatch.setenv("RELUME_TEST_SIGNAL", "loss:2:15")
    assert exit_code("train", "-opt", "x.yml") == EXIT_PREEMPTED
    module.visits.clear()
    assert "at iteration 2; the checkpoint is saved. Continue with --auto_resume" in capsys.readouterr().err


def test_machines_without_the_gpus_that_are_asked_for(said: list[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    train_pipeline(options(num_gpu=8, train__total_iter=1, val__val_freq=None))
    assert "num_gpu: 8, but torch sees no GPU here: running on the CPU" in said
