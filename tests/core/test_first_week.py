"""A student's first week: own pictures with more channels than three, broken ones among them; weights that are found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from runs import options, records

from relume.core import cli
from relume.core.errors import UserError, did_you_mean
from relume.core.imaging.image_io import imwrite, read_pixels
from relume.core.imaging.storage import UnreadableFile
from relume.core.options import OptionError, resolve
from relume.core.pipeline import test_pipeline, train_pipeline

test_pipeline.__test__ = False  # type: ignore[attr-defined] # it is no test

ROOT = Path("experiments/toy")
OWN = """
import numpy as np
import torch
from torch import nn
from relume.archs import ARCHS
from relume.core.metrics import METRICS, metric
from relume.datasets import DATASETS

@ARCHS.register()
class WeekNet(nn.Module):
    def __init__(self, channels: int = 3, out: int = 3, multiple: int = 1) -> None:
        super().__init__()
        self.multiple = multiple
        self.conv = nn.Conv2d(channels, out, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.multiple > 1:
            x = nn.functional.pixel_shuffle(nn.functional.pixel_unshuffle(x, self.multiple), self.multiple)
        return self.conv(x)

@ARCHS.register()
class WeekMaskNet(nn.Module):
    seen: list = []

    def __init__(self, extra: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3 + extra, 3, 3, padding=1)
        self.gain = nn.Linear(2, 3)

    def forward(self, lq: torch.Tensor, mask: torch.Tensor, vector=None, prompt=None) -> torch.Tensor:
        type(self).seen.append((tuple(lq.shape[-2:]), tuple(mask.shape[-2:]), prompt))
        y = self.conv(torch.cat([lq, mask], 1))
        return y if vector is None else y * self.gain(vector)[:, :, None, None]

@ARCHS.register()
class WeekNothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x

@DATASETS.register()
class WeekDataset(torch.utils.data.Dataset):
    def __init__(
        self, channels: int = 3, out: int = 3, size: list[int] = [16, 18], broken: list[int] = [], length: int = 4
    ) -> None:
        self.channels, self.out, self.size, self.broken, self.length = channels, out, size, broken, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        if index in self.broken:
            raise ValueError("my own bug")
        rng = np.random.RandomState(index)
        lq, gt = (torch.from_numpy(rng.rand(c, *self.size).astype(np.float32)) for c in (self.channels, self.out))
        mask = torch.from_numpy(rng.rand(1, *self.size).astype(np.float32))
        return {"lq": lq, "gt": gt, "mask": mask, "vector": torch.ones(2), "prompt": "night", "lq_path": f"im{index}.png"}

@METRICS.register()
def week_score(img: np.ndarray, img2: np.ndarray) -> float:
    return 0.0

@metric("lower")
def week_fails(img: np.ndarray, img2: np.ndarray) -> float:
    raise IndexError("no such pixel")
"""


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("own") / "week.py"
    path.write_text(OWN)
    return str(path)


def week(own: str, **changes: Any) -> dict[str, Any]:
    """Options with the student's own file, on his data set."""
    opt = options(
        network_g={"type": "WeekNet"},
        train__pixel_opt={"type": "L1Loss"},
        train__total_iter=2,
        val__val_freq=None,
        val__metrics={"psnr": {"type": "calculate_psnr"}},
    )
    opt["plugins"] = [own]
    opt["datasets"] = {
        "train": {"type": "WeekDataset", "size": [8, 8], "batch_size_per_gpu": 2, "num_worker_per_gpu": 0},
        "val": {"type": "WeekDataset", "num_worker_per_gpu": 0},
    }
    for path, value in changes.items():
        block = opt
        *parents, last = path.split("__")
        for parent in parents:
            block = block.setdefault(parent, {})
        block[last] = value
    return opt


def pictures(folder: str, count: int, size: tuple[int, int] = (24, 28)) -> str:
    for i in range(count):
        imwrite(f"{folder}/{i:02d}.png", torch.rand(3, *size, generator=torch.Generator().manual_seed(i)))
    return folder


# ------------------------------------------------------------------ 1: what fails is named and left out
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("harm", ["truncated", "empty", "text"])
def test_a_broken_validation_picture_is_named_and_left_out(
    harm: str, workers: int, batch: int, said: list[str]
) -> None:
    pictures("lq", 20)
    pictures("gt", 20)
    content = Path("lq/07.png").read_bytes()
    Path("lq/07.png").write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello"}[harm])
    paired = {"type": "PairedImageDataset", "dataroot_lq": "lq", "dataroot_gt": "gt", "batch_size_per_gpu": batch}
    opt = options(
        datasets__val={**paired, "num_worker_per_gpu": workers}, train__total_iter=2, train__ema_decay=0.5,
        val__metrics={"psnr": {"type": "calculate_psnr"}},
    )  # fmt: skip
    results = train_pipeline(opt)
    assert [s for s in said if "07 is left out: lq/07.png: cannot be decoded" in s]
    assert any(s.startswith("Validation val (EMA, 19 of 20 images)\n\t # psnr: ") for s in said)
    assert np.isfinite(results["val"]["psnr"]) and (ROOT / "models/net_g_2.pth").exists()
    test_pipeline(opt)
    (log,) = Path("results/toy").glob("test_toy_*.log")
    assert "val (19 of 20 images)" in log.read_text() and "OpenCV" not in log.read_text()
    lines = (Path("results/toy/visualization/val_scores.jsonl")).read_text().splitlines()
    assert len(lines) == 19 and not any(json.loads(line)["image"] == "07" for line in lines)


def test_a_bug_of_an_own_data_set_leaves_out_its_sample(own: str, said: list[str]) -> None:
    results = train_pipeline(week(own, datasets__val__broken=[1, 2]))
    assert "psnr" in results["val"] and any(s.startswith("Validation val (2 of 4 images)") for s in said)
    assert any("is left out: ValueError: my own bug (week.py:" in s for s in said)


def test_when_everything_fails_training_goes_on_and_a_test_is_an_error(own: str, said: list[str]) -> None:
    opt = week(own, datasets__val__broken=[0, 1, 2, 3])
    assert train_pipeline(opt) == {"val": {}}
    assert (ROOT / "models/net_g_2.pth").exists() and any("(0 of 4 images)" in s for s in said)
    with pytest.raises(UserError, match="my own bug"):
        test_pipeline(opt)


def test_a_metric_that_fails_costs_its_own_scores_only(own: str, said: list[str]) -> None:
    metrics = {"psnr": {"type": "calculate_psnr"}, "own": {"type": "week_fails"}}
    results = train_pipeline(week(own, val__metrics=metrics))
    assert set(results["val"]) == {"psnr"}
    assert any("val: own of im0 is left out: metric week_fails: IndexError: no such pixel (week.py:" in s for s in said)
    with pytest.raises(UserError, match="week_fails: IndexError: no such pixel"):
        test_pipeline(week(own, val__metrics=metrics))


def test_a_size_that_the_network_does_not_take_names_size_multiple(own: str, said: list[str]) -> None:
    opt = week(own, network_g={"type": "WeekNet", "multiple": 8}, datasets__val__size=[17, 23])
    train_pipeline(opt)
    told = [s for s in said if "is left out" in s]
    assert len(told) == 4 and all("17 x 23" in s and "size_multiple = 8" in s and "\n" not in s for s in told)
    train_pipeline(
        week(own, network_g={"type": "WeekNet", "multiple": 8}, datasets__val__size=[17, 23], val__window_size=8)
    )
    assert len([s for s in said if "is left out" in s]) == 4, "which helps"


# ------------------------------------------------------------------ 2: channels, inputs, no validation
@pytest.mark.parametrize(("channels", "out"), [(4, 3), (1, 1), (2, 2), (5, 5), (3, 1), (1, 4), (7, 3)])
def test_any_number_of_channels_trains_and_validates(own: str, channels: int, out: int, said: list[str]) -> None:
    opt = week(own, network_g={"type": "WeekNet", "channels": channels, "out": out}, val__save_comparison=True)
    opt["val"].update(save_img=True, score_input=True, save_grid=2)
    for block in opt["datasets"].values():
        block.update(channels=channels, out=out)
    results = train_pipeline(opt)
    assert results["val"]["psnr"] > 0 and not [s for s in said if "is left out: " in s or "cannot be made" in s]
    saved = sorted(p.name for p in (ROOT / "visualization/val").rglob("*.png"))
    assert {"im0_2.png", "im0_2_comparison.png", "grid_2.png"} <= set(saved)
    assert cv2.imread(str(ROOT / "visualization/val/im0/im0_2_comparison.png")) is not None
    test_pipeline(opt)


@pytest.mark.parametrize("tile", [None, 12])
def test_a_network_is_called_with_the_items_that_are_named(own: str, tile: int | None) -> None:
    opt = week(
        own, network_g={"type": "WeekMaskNet"}, train__inputs=["lq", "mask"], val__tile=tile, val__tile_overlap=4
    )
    assert train_pipeline(opt)["val"]["psnr"] > 0
    opt["train"]["inputs"] = ["lq", "mask", "vector", "prompt"]
    assert train_pipeline(opt)["val"]["psnr"] > 0
    assert test_pipeline(opt)["val"]["psnr"] > 0
    opt["train"]["inputs"] = ["lq", "masc"]
    with pytest.raises(UserError, match=r"train\.inputs: the samples have no 'masc'\. Did you mean 'mask'\?"):
        train_pipeline(opt)


def test_a_validation_set_can_be_taken_out(own: str) -> None:
    Path("base.yml").write_text(yaml.safe_dump(week(own)))
    Path("x.yml").write_text("_base_: base.yml\ndatasets: {val: ~}\n")
    assert cli.main(["train", "-opt", "x.yml"]) == 0
    assert not [r for r in records(ROOT) if "metrics" in r]


# ------------------------------------------------------------------ 3, 4: which weights
def test_what_was_validated_is_what_is_tested(said: list[str]) -> None:
    opt = options(train__ema_decay=0.9)
    train_pipeline(opt)
    score = {r["iter"]: r["metrics"]["score"] for r in records(ROOT) if "metrics" in r}
    best = max(score.values())
    Path("x.yml").write_text(yaml.safe_dump(opt))
    said.clear()
    assert test_pipeline(opt)["held_out"]["score"] == pytest.approx(best, abs=1e-9)
    assert any("taking those trained here" in s for s in said)
    (line,) = [s for s in said if "net_g_best.pth" in s]
    assert "[params_ema]: the moving average; the file also has params: path.param_key_g chooses" in line
    said.clear()
    plain = test_pipeline(options(train__ema_decay=0.9, path__param_key_g="params"))["held_out"]["score"]
    assert plain != best and any("[params]: the weights themselves; the file also has params_ema" in s for s in said)


def test_the_latest_weights_where_nothing_was_validated(said: list[str]) -> None:
    opt = options(val__metrics={})
    train_pipeline(opt)
    said.clear()
    test_pipeline(opt)
    assert any("net_g_latest.pth" in s for s in said)


def test_random_weights_must_be_wanted(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.yml").write_text(yaml.safe_dump(options()))
    assert cli.main(["test", "-opt", "x.yml", "--check"]) == 0
    capsys.readouterr()
    assert cli.main(["test", "-opt", "x.yml"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "network_g has no weights" in err and "--random_weights" in err
    assert cli.main(["test", "-opt", "x.yml", "--random_weights"]) == 0
    nothing = week(own, network_g={"type": "WeekNothing"})
    assert test_pipeline(nothing)["val"]["psnr"] > 0, "a network without parameters needs none"


@pytest.mark.parametrize("content", [[torch.zeros(2)], torch.zeros(2), 3])
def test_what_holds_no_weights_is_one_line(content: Any, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(content, "w.pth")
    Path("x.yml").write_text(yaml.safe_dump(options(path__pretrain_network_g="w.pth")))
    for command in ("test", "train"):
        assert cli.main([command, "-opt", "x.yml"]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "w.pth" in err and "path.pretrain_network_g" in err


def test_the_start_of_a_fine_tuning_is_not_taken_for_its_end_in_silence(said: list[str]) -> None:
    train_pipeline(options("first"))
    start = "experiments/first/models/net_g_12.pth"
    opt = options("second", path__pretrain_network_g=start)
    train_pipeline(opt)
    said.clear()
    test_pipeline(opt)
    assert any(f"testing {start}, where the training of this file starts from" in s for s in said)


def test_the_next_command_is_this_runs_own(said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    train_pipeline(options())
    farewell = next(s for s in said if s.startswith("Done in"))
    commands = [line.partition("relume ")[2].split() for line in farewell.splitlines() if "relume " in line]
    assert len(commands) == 2
    assert cli.main(commands[0]) == 0
    pictures("many", 3)
    assert cli.main([word.replace("FOLDER", "many") for word in commands[1]]) == 0
    assert len(list(Path("results/toy/visualization").rglob("*_toy.png"))) == 3


def test_an_average_that_lags_is_told_once(said: list[str]) -> None:
    train_pipeline(options(train__ema_decay=0.999))
    (told,) = [s for s in said if "initial weights" in s]
    assert "99 % initial weights" in told and "ema_decay: 0.5" in told
    said.clear()
    train_pipeline(options(train__ema_decay=0.5))
    assert not [s for s in said if "initial weights" in s]


# ------------------------------------------------------------------ 5: another type of data set
def test_another_type_keeps_what_it_has_in_common() -> None:
    Path("mine.yml").write_text(
        "_base_: relume:quickstart.yml\nname: mine\ndatasets:\n"
        "  train: {type: PairedImageDataset, dataroot_lq: a, dataroot_gt: b}\n"
        "  val: {type: SingleImageDataset, dataroot_lq: c}\n"
    )
    resolved = resolve("mine.yml")
    train = resolved.options.datasets["train"]
    assert (train.batch_size_per_gpu, train.use_hflip, train.gt_size, train.name) == (6, True, 64, "photographs")
    assert "source" not in train and "depth" not in train
    notes = list(map(str, resolved.notes))
    assert notes[0].startswith("mine.yml:4:") and "which drops source, " in notes[0] and "renditions" in notes[0]
    assert resolve("mine.yml", ["datasets:train:type=SingleImageDataset"]).options.datasets["train"].dataroot_lq == "a"


def test_a_base_is_a_file_beside_or_one_that_comes_with_relume() -> None:
    for base in ("quickstart.yml", "options/quickstart.yml", "relume:quickstart.yml"):
        Path("x.yml").write_text(f"_base_: {base}\nname: x\n")
        assert resolve("x.yml").options.network_g.type == "Spectroformer"
    Path("quickstart.yml").write_text(yaml.safe_dump(options()))
    Path("x.yml").write_text("_base_: quickstart.yml\nname: x\n")
    assert resolve("x.yml").options.network_g.type == "ToyNet", "what lies beside comes first"
    Path("x.yml").write_text("_base_: quickstrat.yml\nname: x\n")
    with pytest.raises(
        OptionError, match=r"x\.yml:1:9: quickstrat\.yml: no such file\. Did you mean 'quickstart\.yml'"
    ):
        resolve("x.yml")


def test_places_of_other_data_are_not_kept() -> None:
    Path("a.yml").write_text(yaml.safe_dump(options(datasets__val={"type": "PairedImageDataset", "dataroot": "x"})))
    Path("b.yml").write_text(
        "_base_: a.yml\ndatasets: {val: {type: LDR_HDR_PairedDataset, dataroot_lq: y, dataroot_gt: z}}\n"
    )
    block = resolve("b.yml").options.datasets["val"]
    assert "dataroot" not in block and block.dataroot_gt == "z"


# ------------------------------------------------------------------ 6: consequences, directions
def test_only_the_cause_is_said_where_a_plugin_fails(own: str) -> None:
    Path("bad.py").write_text("import nothing_of_this_name\n")
    opt = week(own)
    opt["plugins"] = ["bad.py"]
    Path("x.yml").write_text(yaml.safe_dump(opt))
    with pytest.raises(OptionError) as caught:
        resolve("x.yml")
    (problem,) = caught.value.problems
    assert "nothing_of_this_name" in problem.text


def test_a_metric_that_does_not_say_which_score_is_better_is_asked_once(own: str) -> None:
    metrics: dict[str, Any] = {"mine": {"type": "week_score"}}
    Path("x.yml").write_text(yaml.safe_dump(week(own, val__metrics=metrics)))
    with pytest.raises(OptionError, match="week_score does not say which of two scores is the better one") as caught:
        resolve("x.yml")
    assert len(caught.value.problems) == 1
    metrics["mine"]["better"] = "lower"
    Path("x.yml").write_text(yaml.safe_dump(week(own, val__metrics=metrics)))
    assert resolve("x.yml").options.val.metrics["mine"].better == "lower"


# ------------------------------------------------------------------ 7: messages
@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("batch_size", ["mini_batch_sizes", "batch_size_per_gpu"], "batch_size_per_gpu"),
        ("L1", ["FFTLoss", "L1Loss"], "L1Loss"),
        ("strict_load", ["pretrain_network_g", "strict_load_g"], "strict_load_g"),
        ("num_workers", ["num_worker_per_gpu"], "num_worker_per_gpu"),
        ("Epochs", ["total_iter", "name"], "total_iter"),
        ("learning_rate", ["lr", "betas"], "lr"),
    ],
)
def test_common_words_are_known(word: str, known: list[str], meant: str) -> None:
    assert did_you_mean(word, known) == f" Did you mean '{meant}'?"
    assert did_you_mean(word, ["zzz"]) == ""


@pytest.mark.parametrize(
    ("place", "key", "meant"),
    [
        ("", "lr", "train.optim_g.lr"),
        ("", "batch_size", "datasets.train.batch_size_per_gpu"),
        ("", "epochs", "train.total_epoch"),
        ("", "resume_from", "path.resume_state"),
        ("train", "val_freq", "val.val_freq"),
        ("train", "num_workers", "datasets.train.num_worker_per_gpu"),
        ("train.optim_g", "scheduler", "train.scheduler"),
        ("val", "print_freq", "logger.print_freq"),
        ("datasets.train", "manual_seed", "manual_seed"),
    ],
)
def test_a_key_in_another_section_is_sent_home(place: str, key: str, meant: str) -> None:
    opt = options(train__pixel_opt={"type": "L1Loss"})
    block = opt
    for part in filter(None, place.split(".")):
        block = block[part]
    block[key] = 1
    Path("x.yml").write_text(yaml.safe_dump(opt))
    with pytest.raises(OptionError) as caught:
        resolve("x.yml")
    (problem,) = caught.value.problems
    assert f"unknown key '{key}'" in problem.text and f" Did you mean '{meant}'?" in problem.text


def test_a_wrong_scale_is_the_cause_and_no_patch_is() -> None:
    pictures("lq", 2, (12, 12))
    pictures("gt", 2, (48, 48))
    paired = {"type": "PairedImageDataset", "dataroot_lq": "lq", "dataroot_gt": "gt", "gt_size": 32}
    with pytest.raises(
        UserError, match=r"^scale is 2, but gt/00.png is 48x48 .* 4 times as large as its input, .*: set scale: 4$"
    ):
        train_pipeline(options(scale=2, datasets__train={**paired, "num_worker_per_gpu": 0}))


def test_an_empty_picture_is_said_to_be_empty() -> None:
    Path("none.png").write_bytes(b"")
    with pytest.raises(UnreadableFile, match=r"^none\.png: cannot be decoded; the file is empty$"):
        read_pixels("none.png")


def test_a_launch_lists_everything_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    pictures("here", 2)
    paired = {"type": "PairedImageDataset", "dataroot_lq": "here", "dataroot_gt": ["nowhere", "s3://far/away"]}
    opt = options(
        datasets__train={**paired, "meta_info_file": "list.txt"},
        datasets__val={"type": "SingleImageDataset", "dataroot_lq": "hera"},
        path__pretrain_network_g="w.pth",
    )
    Path("x.yml").write_text(yaml.safe_dump(opt))
    assert cli.main(["check", "x.yml"]) == 0
    notes = [n for n in capsys.readouterr().out.splitlines()[1:] if "plugins: running" not in n]
    lines = [
        "w.pth: no such file. (path.pretrain_network_g)",
        "nowhere: no such file or folder. (datasets.train.dataroot_gt)",
        "list.txt: no such file or folder. (datasets.train.meta_info_file)",
        "hera: no such file or folder. Did you mean 'here'? (datasets.val.dataroot_lq)",
    ]
    assert sorted(notes) == sorted(f"note: {line}" for line in lines)
    assert cli.main(["train", "-opt", "x.yml"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert all(re.match(r"x\.yml:\d+:\d+: ", line) for line in err), "with the option's place"
    assert sorted(line.split(": ", 1)[1] for line in err) == sorted(lines) and not Path("experiments").exists()
