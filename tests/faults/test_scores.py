"""Scores that would be wrong in silence: of normalised or gray data, of equal images, and what follows from them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.imaging.image_io import imwrite, read_pixels
from relume.core.metrics import mean_score
from relume.core.pipeline import test_pipeline as run_test
from relume.core.pipeline import train_pipeline

run_test.__test__ = False  # type: ignore[attr-defined]

PLUGIN = Path(__file__).with_name("one_gain.py")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def flat(path: str, value: Any, channels: int = 3) -> None:
    imwrite(path, np.full((24, 32, channels), value, np.uint8))


def run(
    network: str = "OneGain",
    lr: float = 0.0,
    iterations: int = 1,
    freq: int = 1,
    of_val: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Train on lq and gt; `more` goes into both dataset blocks, `of_val` into one. The last validation's scores."""
    data = {"type": "PairedImageDataset", "dataroot_lq": "lq", "dataroot_gt": "gt", "num_worker_per_gpu": 0, **more}
    options = {
        "name": "x",
        "model_type": "RestorationModel",
        "num_gpu": 0,
        "plugins": [str(PLUGIN)],
        "datasets": {"train": {**data, "gt_size": 16, "batch_size_per_gpu": 1}, "val": {**data, **(of_val or {})}},
        "network_g": {"type": network},
        "train": {"total_iter": iterations, "optim_g": {"type": "Adam", "lr": lr}, "pixel_opt": {"type": "L1Loss"}},
        "val": {
            "val_freq": freq,
            "save_img": True,
            "score_input": True,
            "metrics": {"psnr": {"type": "calculate_psnr"}, "mae": {"type": "calculate_mae"}},
        },
    }
    return train_pipeline(options)["val"]


def decibels(difference: float) -> float:
    return 20 * math.log10(255 / difference)


NORMALISED = [
    {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    {"mean": [0.5]},
    {"std": [0.25, 0.5, 2.0]},
    {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    {},
]


@pytest.mark.parametrize("normalised", NORMALISED, ids=str)
def test_metrics_and_pictures_are_of_pixels(normalised: dict[str, Any]) -> None:
    flat("lq/a.png", 100)
    flat("gt/a.png", 110)
    scores = run(**normalised)
    assert scores["psnr"] == pytest.approx(decibels(10), abs=1e-3)
    assert scores["psnr_input"] == pytest.approx(decibels(10), abs=1e-3)
    assert scores["mae"] == pytest.approx(10)
    (saved,) = Path("experiments/x/visualization").rglob("a_1.png")
    assert (read_pixels(saved) == 100).all()


@pytest.mark.parametrize("normalised", NORMALISED[:2], ids=str)
@pytest.mark.parametrize("deep", [False, True])
def test_results_with_fewer_bits_than_their_inputs_are_said_to_be(deep: bool, normalised: dict[str, Any]) -> None:
    if deep:
        imwrite("lq/a.png", np.full((24, 32, 3), 25001, np.uint16))
    else:
        flat("lq/a.png", 101)
    flat("gt/a.png", 110)
    run(**normalised)
    log = next(Path("experiments/x").glob("train_*.log")).read_text()
    assert log.count("val: inputs have more than 8 bits; results are saved with 8") == deep


@pytest.mark.parametrize(
    ("name", "values"), [("mean", [0.5, 0.5]), ("std", [0.5, 0.5]), ("std", [0.0]), ("std", [-1.0])]
)
def test_impossible_mean_and_std_are_refused(name: str, values: list[float]) -> None:
    flat("lq/a.png", 100)
    flat("gt/a.png", 110)
    with pytest.raises(UserError, match=name):
        run(**{name: values})


def test_one_gray_channel_is_the_gray_value() -> None:
    flat("lq/a.png", 100, channels=1)
    flat("gt/a.png", 110, channels=1)
    assert run("OneConvolution", color="gray")["psnr"] == pytest.approx(decibels(10), abs=1e-3)
    (saved,) = Path("experiments/x/visualization").rglob("a_1.png")
    assert (read_pixels(saved) == 100).all()


@pytest.mark.parametrize("value", [0, 1, 77, 128, 254, 255])
def test_gray_is_exact_for_gray_images(value: int) -> None:
    from relume.datasets.transforms import gray

    image = np.full((3, 3, 3), value, np.uint8).astype(np.float32) / 255
    assert (gray(image) == image[..., :1]).all()


def test_gray_of_colours_is_what_pil_makes_of_them() -> None:
    from PIL import Image

    from relume.datasets.transforms import gray

    pixels = np.random.default_rng(3).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(pixels).convert("L")).astype(float)
    assert np.abs(gray(pixels.astype(np.float32) / 255)[..., 0] * 255 - theirs).max() < 0.51


CLIPS = {"dataroot_lq": "clips", "dataroot_gt": "clips", "scale": 1}
SEVEN = {"dataroot_lq": "seven", "dataroot_gt": "seven", "meta_info_file": "list.txt", "scale": 1}
COLOURED = {
    "PairedImageDataset": {"dataroot_lq": "clips/000", "dataroot_gt": "clips/000"},
    "SingleImageDataset": {"dataroot_lq": "clips/000"},
    "ClipsDataset": {**CLIPS, "num_frame": 2, "gt_size": 16},
    "VideoTestDataset": {**CLIPS, "num_frame": 3},
    "VideoTestDUFDataset": {**CLIPS, "num_frame": 3, "use_duf_downsampling": True, "scale": 2},
    "VideoRecurrentTestDataset": CLIPS,
    "REDSDataset": {**CLIPS, "val_partition": "official", "num_frame": 3, "gt_size": 16},
    "REDSRecurrentDataset": {**CLIPS, "val_partition": "official", "num_frame": 2},
    "Vimeo90KNeighboursDataset": {**SEVEN, "num_frame": 3},
    "Vimeo90KRecurrentDataset": SEVEN,
    "VideoTestVimeo90KDataset": {**SEVEN, "num_frame": 3},
    "PairedStereoImageDataset": {"dataroot_lq": "views", "dataroot_gt": "views", "mean": [0.0]},
    "Dataset_DefocusDeblur_DualPixel_16bit": {f"dataroot_{k}": "clips/000" for k in ("gt", "lqL", "lqR")},
}
"""Every data set that reads pictures or frames of its users, one each of which has the colour (200, 100, 50)."""
OF_TWO = ("PairedStereoImageDataset", "Dataset_DefocusDeblur_DualPixel_16bit")


@pytest.mark.parametrize("name", COLOURED)
def test_one_channel_is_the_same_in_every_data_set(name: str) -> None:
    from relume.datasets import DATASETS

    for i in range(7):
        flat(f"clips/000/{i:08d}.png", (200, 100, 50))
        flat(f"seven/00001/0001/im{i + 1}.png", (200, 100, 50))
    for side in "LR":
        flat(f"views/s_{side}.png", (200, 100, 50))
    Path("list.txt").write_text("00001/0001 7 (24,32,3)\n")
    phase = {} if name.startswith(("Video", "Single")) else {"phase": "train"}
    values = {
        None: np.array([200, 100, 50]) / 255,
        "gray": np.array([0.299 * 200 + 0.587 * 100 + 0.114 * 50]) / 255,
        "y": np.array([16 + (65.481 * 200 + 128.553 * 100 + 24.966 * 50) / 255]) / 255,
    }
    for color, value in values.items():
        dataset = DATASETS.get(name)(**COLOURED[name], **phase, **({"color": color} if color else {}))
        item = dataset[0]
        for key in {"lq", "gt"} & item.keys():
            expected = np.tile(value, 2) if name in OF_TWO[:1] or (name in OF_TWO and key == "lq") else value
            seen = item[key].numpy()
            assert seen.shape[-3] == len(expected), (color, key)
            assert np.allclose(np.moveaxis(seen, -3, -1), expected, atol=1e-6), (color, key)


def test_channels_that_do_not_fit_are_one_line() -> None:
    flat("lq/a.png", 100, channels=1)
    flat("gt/a.png", 110, channels=1)
    with pytest.raises(UserError, match=r"takes 1 channel\(s\) where .* have 3; .*color: gray"):
        run("OneConvolution")


def test_an_identical_pair_hides_no_improvement() -> None:
    flat("lq/black.png", 0)
    flat("gt/black.png", 0)
    flat("lq/gray.png", 100)
    flat("gt/gray.png", 150)
    run(lr=0.01, iterations=12, freq=4)
    rows = [json.loads(line) for line in Path("experiments/x/metrics.jsonl").read_text().splitlines()]
    text = json.dumps(rows)
    assert "Infinity" not in text
    log = next(Path("experiments/x").glob("train_*.log")).read_text()
    assert re.findall(r"psnr: [\d.]+\s*(?:\t)?Best: [\d.]+ @ (\d+) iter", log)[-1] == "12"
    assert "psnr: 1 of 2 images equal their ground truth and count as 100" in log
    best = torch.load("experiments/x/models/net_g_best.pth", weights_only=True)["params"]["gain"]
    last = torch.load("experiments/x/models/net_g_12.pth", weights_only=True)["params"]["gain"]
    assert best == last


def test_a_training_whose_validation_scores_nothing_says_why() -> None:
    flat("lq/a.png", 100)
    flat("gt/a.png", 110)
    Path("damaged").mkdir()
    Path("damaged/a.png").write_bytes(b"\x89PNG")
    damaged = {"dataroot_lq": "damaged", "dataroot_gt": "damaged", "on_error": "skip"}
    assert run(of_val=damaged) == {}
    log = next(Path("experiments/x").glob("train_*.log")).read_text()
    assert re.search(r"\tval: nothing could be scored: none of the 1 samples can be read", log)
    assert (
        Path("experiments/x/models/net_g_1.pth").exists() and not Path("experiments/x/models/net_g_best.pth").exists()
    )


PSNR = ["calculate_psnr", "calculate_psnr_skimage", "calculate_psnr_mu", "calculate_pu21_psnr_fork"]


@pytest.mark.parametrize("name", PSNR)
def test_the_mean_orders_what_images_say(name: str) -> None:
    def mean(*values: float) -> float:
        return mean_score(name, values)[0]

    assert mean(math.inf, 20) < mean(math.inf, 21)
    assert mean(30, 60) < mean(30, math.inf)  # an image that becomes exact does not lower the mean
    assert mean(30, 107) <= mean(30, math.inf)
    assert mean(math.inf, math.inf) == math.inf
    assert math.isnan(mean(math.nan, 20))
    assert mean(20, 30) == 25


def test_an_exact_clip_or_validation_set_hides_no_other() -> None:
    from relume.core.metrics.scoring import Scorer
    from relume.core.training.best import mean_of

    blocks = {"p": {"type": "calculate_psnr"}}

    def means(*others: float) -> float:
        rows = [{"index": 0, "image": "a", "folder": "exact", "p": math.inf}]
        rows += [{"index": i, "image": "b", "folder": "other", "p": p} for i, p in enumerate(others, 1)]
        found, said = Scorer(blocks, {"a": []}).means(rows)
        assert "p: 1 of 2 clips equal their ground truth and count as 100" in said
        return found["p"]

    assert means(20, 22) == pytest.approx((100 + 21) / 2)
    assert mean_of({"a": {"p": math.inf}, "b": {"p": 30.0}, "c": {}}, "p", blocks) == {"p": 65.0}


def test_infinite_scores_of_other_metrics_are_left_out_and_said() -> None:
    assert mean_score("calculate_ie", [1.0, math.inf, 3.0]) == (
        2.0,
        "1 of 3 scores are infinite and left out of the mean",
    )
