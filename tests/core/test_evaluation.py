"""core/evaluation.py: what is scored and how, what is saved and where, and stopping in the middle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from relume.core.errors import UserError
from relume.core.evaluation import Evaluator, Interrupted, image_stem, is_better
from relume.core.imaging.image_io import read_pixels
from relume.core.imaging.transfer import MuLaw
from relume.core.metrics import METRICS, SetMetric, calculate_metric
from relume.core.models.base import Batch, Model
from relume.datasets.radiance import RADIANCE_READERS

PSNR = {"psnr": {"type": "calculate_psnr", "crop_border": 2}}
NAN = float("nan")


class Halves(Model):
    """Halves the input, upwards of one half it is too bright."""

    required_networks = ()

    def __init__(self, factor: float = 0.5) -> None:
        super().__init__({}, {})
        self.factor = factor

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        return {"output": self.factor * batch["lq"]}


def item(i: int, truth: bool = True, size: tuple[int, int] = (12, 15)) -> Batch:
    generator = torch.Generator().manual_seed(i)
    lq = torch.rand(1, 3, *size, generator=generator)
    batch: Batch = {"index": i, "lq": lq, "lq_path": [f"folder/im{i}.png"]}
    return {**batch, "gt": (0.6 * lq)} if truth else batch


def evaluator(tmp_path: Path, loaders: dict[str, Any], **settings: Any) -> Evaluator:
    defaults: dict[str, Any] = {
        "metrics": PSNR,
        "folder": tmp_path,
        "device": torch.device("cpu"),
        "image_name": lambda dataset, image, iteration: f"{image}_{iteration}.png",
    }
    return Evaluator(loaders=loaders, **{**defaults, **settings})


def eight_bit(image: Tensor) -> np.ndarray:
    return image[0].clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy().astype(np.uint8)


# ------------------------------------------------------------------ scores
def test_scores_are_means_over_images_of_metrics_on_8_bits(tmp_path: Path) -> None:
    items = [item(2), item(0), item(1)]
    results = evaluator(tmp_path, {"a": items, "b": [item(7)]}).run(Halves(), 5)
    expected = [
        calculate_metric({"img": eight_bit(0.5 * b["lq"]), "img2": eight_bit(b["gt"])}, PSNR["psnr"])
        for b in map(item, range(3))
    ]
    assert results["a"]["psnr"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert results["b"]["psnr"] != results["a"]["psnr"]
    lines = [json.loads(line) for line in (tmp_path / "a_scores.jsonl").read_text().splitlines()]
    assert [r["image"] for r in lines] == ["im0", "im1", "im2"] and all(r["iter"] == 5 for r in lines)
    assert [r["psnr"] for r in lines] == pytest.approx(expected)


def test_without_rounding_metrics_see_floats(tmp_path: Path) -> None:
    rounded = evaluator(tmp_path, {"a": [item(0)]}).run(Halves(0.6), 1)
    exact = evaluator(tmp_path, {"a": [item(0)]}, eight_bit=False).run(Halves(0.6001), 1)
    assert rounded["a"]["psnr"] == float("inf")
    assert 60 < exact["a"]["psnr"] < float("inf"), "a difference far below one grey level is seen"


def test_outputs_are_clipped_before_they_are_scored(tmp_path: Path) -> None:
    batch = {**item(0), "gt": torch.ones(1, 3, 12, 15)}
    batch["lq"] = torch.full_like(batch["lq"], 3.0)
    assert evaluator(tmp_path, {"a": [batch]}).run(Halves(), 1)["a"]["psnr"] == float("inf")
    assert json.loads((tmp_path / "a_scores.jsonl").read_text())["psnr"] is None, "JSON has no infinity"


def test_metrics_of_radiance_see_decoded_images_that_were_not_rounded(tmp_path: Path) -> None:
    transfer = MuLaw(peak=50.0, mu=100.0)
    batch = item(0)
    psnr_mu = {"type": "calculate_psnr_mu", "peak": 50.0}
    metrics = {**PSNR, "mu": psnr_mu}
    both = evaluator(tmp_path, {"hdr": [batch], "ldr": [item(1)]}, metrics=metrics, transfers={"hdr": transfer})
    results = both.run(Halves(0.55), 1)
    images = [transfer.decode(x)[0].permute(1, 2, 0).numpy() for x in (0.55 * batch["lq"], batch["gt"])]
    expected = calculate_metric({"img": images[0], "img2": images[1]}, {**psnr_mu, "color_order": "rgb"})
    assert results["hdr"]["mu"] == pytest.approx(expected, abs=1e-5)
    assert "mu" not in results["ldr"] and "psnr" in results["ldr"]


def test_metrics_of_radiance_need_radiance(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"val\.metrics\.mu: scores linear radiance"):
        evaluator(tmp_path, {"ldr": [item(1)]}, metrics={"mu": {"type": "calculate_psnr_mu"}})


def test_the_input_is_scored_where_it_can_be(tmp_path: Path) -> None:
    small = {**item(1), "lq": torch.rand(1, 3, 6, 5), "gt": torch.rand(1, 3, 6, 5).repeat(1, 1, 2, 3)}

    class Enlarges(Halves):
        def predict(self, batch: Batch) -> dict[str, Tensor]:
            return {"output": batch["lq"].repeat(1, 1, 2, 3) if batch["lq"].shape != batch["gt"].shape else batch["lq"]}

    results = evaluator(tmp_path, {"a": [item(0)], "b": [small]}, score_input=True).run(Enlarges(), 1)
    assert results["a"]["psnr_input"] == results["a"]["psnr"]
    assert set(results["b"]) == {"psnr"}


def test_without_ground_truth_only_metrics_that_need_none(tmp_path: Path) -> None:
    metrics = {**PSNR, "uiqm": {"type": "calculate_uiqm"}}
    loaders = {"truth": [item(0, size=(32, 32))], "none": [item(1, truth=False, size=(32, 32))]}
    results = evaluator(tmp_path, loaders, metrics=metrics).run(Halves(), 1)
    assert set(results["truth"]) == {"psnr", "uiqm"} and set(results["none"]) == {"uiqm"}
    alone = {"none": [item(1, truth=False, size=(32, 32))]}
    scored = evaluator(tmp_path, alone, metrics=metrics, score_input=True).run(Halves(), 1)
    assert set(scored["none"]) == {"uiqm", "uiqm_input"} and scored["none"]["uiqm_input"] != scored["none"]["uiqm"]


def test_repeated_images_of_sharded_runs_do_not_count(tmp_path: Path) -> None:
    extra = {**item(1), "index": -1}
    folder = tmp_path / "out"
    results = evaluator(folder, {"a": [item(0), extra]}, save_images=True).run(Halves(), 1)
    assert results == evaluator(tmp_path, {"a": [item(0)]}).run(Halves(), 1)
    assert [p.name for p in (folder / "a").iterdir()] == ["im0_1.png"]


def test_sizes_that_differ_are_explained(tmp_path: Path) -> None:
    batch = {**item(0), "gt": torch.rand(1, 3, 24, 30)}
    with pytest.raises(
        UserError, match=r"output and the ground truth differ in size: \(12, 15\) and \(24, 30\) \(is `scale`"
    ):
        evaluator(tmp_path, {"a": [batch]}).run(Halves(), 1)


# ------------------------------------------------------------------ which is better
def test_direction_and_choice_of_the_best_metric(tmp_path: Path) -> None:
    metrics = {
        "lpips": {"type": "calculate_lpips"},
        "psnr": {"type": "calculate_psnr"},
        "odd": {"type": "calculate_psnr", "better": "lower"},
    }
    chosen = evaluator(tmp_path, {}, metrics=metrics)
    assert chosen.better == {"lpips": "lower", "psnr": "higher", "odd": "lower"} and chosen.best == "lpips"
    assert evaluator(tmp_path, {}, metrics=metrics, best_metric="odd").best == "odd"
    assert evaluator(tmp_path, {}, metrics={}).best is None
    with pytest.raises(UserError, match=r"val\.best: no metric is called 'snr'"):
        evaluator(tmp_path, {}, metrics=metrics, best_metric="snr")


@pytest.mark.parametrize(
    ("value", "than", "direction", "better"),
    [
        (2.0, 1.0, "higher", True),
        (1.0, 1.0, "higher", False),
        (1.0, 2.0, "lower", True),
        (2.0, 1.0, "lower", False),
        (NAN, 1.0, "higher", False),
        (NAN, 1.0, "lower", False),
        (1.0, NAN, "higher", True),
        (1.0, NAN, "lower", True),
        (NAN, NAN, "higher", False),
        (float("inf"), 50.0, "higher", True),
    ],
)
def test_nan_beats_nothing(value: float, than: float, direction: str, better: bool) -> None:
    assert is_better(value, than, direction) is better


# ------------------------------------------------------------------ pictures
def test_pictures_are_saved_where_their_name_says(tmp_path: Path) -> None:
    shown: list[tuple[str, str, tuple[int, ...], int]] = []
    settings = {"save_images": True, "save_comparisons": True}
    runner = evaluator(tmp_path, {"a": [item(0), item(1)], "b": [{**item(2, truth=False), "index": 0}]}, **settings)
    runner.picture = lambda dataset, name, picture, iteration: shown.append((dataset, name, picture.shape, iteration))
    runner.run(Halves(), 9)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "im0_9.png", "im0_9_comparison.png", "im1_9.png", "im1_9_comparison.png",
    ]  # fmt: skip
    saved = cv2.cvtColor(cv2.imread(str(tmp_path / "a/im1_9.png")), cv2.COLOR_BGR2RGB)
    assert np.array_equal(saved, eight_bit(0.5 * item(1)["lq"]))
    assert [(d, n, i) for d, n, _, i in shown] == [("a", "im0", 9), ("b", "im2", 9)], "the first of each set"
    three = cv2.imread(str(tmp_path / "a/im0_9_comparison.png")).shape
    two = cv2.imread(str(tmp_path / "b/im2_9_comparison.png")).shape
    assert three[0] == two[0] and 1.4 < three[1] / two[1] < 1.6, "input | output | target, or without the target"


@pytest.mark.parametrize("linear_format", ["hdr", "exr", "pfm", "npy", "tif"])
def test_hdr_outputs_are_saved_as_radiance_with_a_picture_of_it_beside(tmp_path: Path, linear_format: str) -> None:
    if linear_format == "exr":
        pytest.importorskip("OpenEXR")
    settings = {"save_images": True, "save_comparisons": True, "linear_format": linear_format}
    batch = item(0)
    evaluator(tmp_path, {"a": [batch]}, transfers={"a": MuLaw()}, **settings).run(Halves(1.2), 9)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(
        [f"im0_9.{linear_format}", "im0_9.png", "im0_9_comparison.png"]
    )
    saved = read_pixels(tmp_path / f"a/im0_9.{linear_format}", readers=RADIANCE_READERS)
    made = MuLaw().decode(1.2 * batch["lq"])[0].permute(1, 2, 0).numpy()
    step = made.max(axis=2, keepdims=True) / 128 if linear_format == "hdr" else 1e-6
    assert made.max() > 1000 and (np.abs(saved - made) <= step).all(), "not cut off at the peak"
    preview = cv2.imread(str(tmp_path / "a/im0_9.png"))
    assert preview.shape == saved.shape and 20 < preview.mean() < 235


def test_a_network_that_went_astray_does_not_end_training_when_its_pictures_are_saved(tmp_path: Path) -> None:
    batch = item(0)
    batch["lq"][0, 0, 0, 0] = NAN
    batch["lq"][0, 1] = 1e30
    metrics = {"mu": {"type": "calculate_psnr_mu"}, "l": {"type": "calculate_ssim", "space": "linear"}}
    settings = {"save_images": True, "transfers": {"a": MuLaw()}, "metrics": metrics}
    scores = evaluator(tmp_path, {"a": [batch]}, **settings).run(Halves(), 1)["a"]
    assert set(scores) == {"mu", "l"} and all(np.isnan(v) for v in scores.values())
    assert np.isfinite(read_pixels(tmp_path / "a/im0_1.hdr", readers=RADIANCE_READERS)).all()


def test_any_metric_can_be_had_of_linear_radiance(tmp_path: Path) -> None:
    transfer = MuLaw(peak=50.0)
    metrics = {"l": {"type": "calculate_psnr", "space": "linear"}, "psnr_l": {"type": "calculate_psnr_l"}}
    batch = item(0)
    scores = evaluator(tmp_path, {"a": [batch]}, metrics=metrics, transfers={"a": transfer}).run(Halves(0.55), 1)["a"]
    x, y = (transfer.decode(v) / 50 for v in (0.55 * batch["lq"], batch["gt"]))
    assert scores["l"] == pytest.approx(float(-10 * (x - y).square().mean().log10()), abs=1e-4)
    assert scores["psnr_l"] == pytest.approx(scores["l"], abs=1e-9), "the peak is the transfer function's"


@pytest.mark.parametrize("rounding", ["8bit", "output", "none", None])
def test_each_dataset_may_say_what_its_figures_round(tmp_path: Path, rounding: Any) -> None:
    chosen = {} if rounding is None else {"a": rounding}
    metrics = {"psnr": {"type": "calculate_psnr"}}
    made = evaluator(tmp_path, {"a": [item(0)]}, metrics=metrics, rounding=chosen, eight_bit=False)
    score = made.run(Halves(0.55), 1)["a"]["psnr"]
    output, target = 0.55 * item(0)["lq"], item(0)["gt"]
    if rounding in ("8bit", "output"):
        output = (output * 255).round() / 255
    if rounding == "8bit":
        target = (target * 255).round() / 255
    assert score == pytest.approx(float(-10 * (output - target).double().square().mean().log10()), abs=1e-4)
    assert set(made.seconds) == {"a"} and made.seconds["a"] > 0


def test_nothing_is_saved_unless_asked_for(tmp_path: Path) -> None:
    evaluator(tmp_path, {"a": [item(0)]}).run(Halves(), 1)
    assert [p.name for p in tmp_path.iterdir()] == ["a_scores.jsonl"]
    bare = tmp_path / "bare"
    assert evaluator(bare, {"a": [item(0)]}, metrics={}).run(Halves(), 1) == {"a": {}} and not bare.exists()


def test_names_of_images() -> None:
    assert image_stem({"lq_path": ["x/y.z.png"], "gt_path": ["g.png"]}, 3) == "y.z"
    assert image_stem({"gt_path": "g.png"}, 3) == "g"
    assert image_stem({}, 3) == "00003"
    assert image_stem({"name": ["clip_1", "clip_2"], "gt_path": ["g.png", "h.png"]}, 0, 1) == "clip_2"


# ------------------------------------------------------------------ stopping
def test_a_stop_request_ends_it_and_keeps_nothing(tmp_path: Path) -> None:
    asked = iter([0, 0, 75, 75, 75])
    predicted: list[int] = []

    class Counts(Halves):
        def predict(self, batch: Batch) -> dict[str, Tensor]:
            predicted.append(1)
            return super().predict(batch)

    with pytest.raises(Interrupted) as caught:
        evaluator(tmp_path, {"a": [item(i) for i in range(9)]}).run(Counts(), 1, interrupted=lambda: next(asked))
    assert caught.value.code == 75 and len(predicted) == 2
    assert not (tmp_path / "a_scores.jsonl").exists()


def test_progress_goes_round_every_loader(tmp_path: Path) -> None:
    seen: list[str] = []

    def progress(label: str, items: Any) -> Iterator[Any]:
        seen.append(label)
        yield from items

    results = evaluator(tmp_path, {"a": [item(0)], "b": [item(1)]}, progress=progress).run(Halves(), 1)
    assert seen == ["a", "b"] == list(results)


# ------------------------------------------------------------------ batches, sets, grids
def together(items: list[Batch]) -> Batch:
    """Items of one size as one batch."""
    batch: Batch = {k: torch.cat([i[k] for i in items]) for k in ("lq", "gt")}
    return {**batch, "lq_path": [i["lq_path"][0] for i in items], "index": torch.tensor([i["index"] for i in items])}


def test_images_score_the_same_alone_and_in_batches(tmp_path: Path) -> None:
    items = [item(i) for i in range(5)]
    alone = evaluator(tmp_path / "a", {"a": items}, score_input=True, save_images=True)
    batches = evaluator(
        tmp_path / "b", {"a": [together(items[:3]), together(items[3:])]}, score_input=True, save_images=True
    )
    assert alone.run(Halves(), 5) == batches.run(Halves(), 5)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 6
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


class Seen(SetMetric):
    """The mean of everything, and how much of it there was; what a plugin may register."""

    better = "lower"

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift

    def start(self, reference: Any, device: torch.device) -> None:
        self.reference = reference
        self.values: list[float] = []
        self.indices: list[int] = []

    def update(self, images: Tensor, indices: list[int]) -> None:
        assert len(images) == len(indices)
        self.values += images.mean((1, 2, 3)).tolist()
        self.indices += indices

    def compute(self) -> dict[str, float]:
        return {"": float(np.mean(self.values)) + self.shift, "_count": len(self.indices), "_reference": self.reference}


@pytest.fixture
def seen() -> Iterator[None]:
    METRICS.register()(Seen)
    yield
    METRICS._members.pop("Seen")


@pytest.mark.usefixtures("seen")
def test_metrics_of_sets_see_every_image_once_and_no_padding(tmp_path: Path) -> None:
    class Loader(list):  # type: ignore[type-arg]
        reference = 3.0

    padding = {**item(2), "index": -1}
    loaders = {"a": Loader([together([item(0), item(1), padding]), {**item(4), "index": -1}]), "b": [item(7)]}
    metrics = {"seen": {"type": "Seen", "shift": 1.0, "better": "higher"}, **PSNR}
    scoring = evaluator(tmp_path, loaders, metrics=metrics)
    assert scoring.better["seen"] == "higher" and scoring.best == "seen"
    for _ in range(2):
        results = scoring.run(Halves(), 5)
        expected = 1 + float(np.mean([float(0.5 * item(i)["lq"].mean()) for i in range(2)]))
        assert results["a"]["seen"] == pytest.approx(expected)
        assert (results["a"]["seen_count"], results["a"]["seen_reference"]) == (2, 3.0)
        assert (results["b"]["seen_count"], results["b"]["seen_reference"]) == (1, None)
        assert len((tmp_path / "a_scores.jsonl").read_text().splitlines()) == 2 and "psnr" in results["a"]
    only = evaluator(tmp_path / "only", loaders, metrics={"seen": metrics["seen"]})
    only.run(Halves(), 5)
    assert not (tmp_path / "only").exists(), "there is no score of single images to file"


def test_sets_that_a_metric_cannot_score_are_refused_before_anything_is_run(tmp_path: Path) -> None:
    class Loader(list):  # type: ignore[type-arg]
        reference = None
        images = 4

    metrics = {"mine": {"type": "FID", "features": {"type": "pixel_avgpool"}}}
    with pytest.raises(UserError, match=r"^val\.metrics\.mine: FID: there are no real images to compare with"):
        evaluator(tmp_path, {"a": Loader()}, metrics=metrics)
    metrics["mine"]["features"] = {"type": "inception_fid", "weights": str(tmp_path / "w.pth")}
    with pytest.raises(UserError, match=r"^val\.metrics\.mine: inception_fid: weights: there is no file"):
        evaluator(tmp_path, {"a": Loader()}, metrics=metrics)


def test_the_first_outputs_are_put_into_one_picture(tmp_path: Path) -> None:
    shown = []
    grid = evaluator(tmp_path, {"a": [item(3), item(1), item(0), item(2)]}, save_grid=3, metrics={})
    grid.picture = lambda *arguments: shown.append(arguments[1:])
    grid.run(Halves(), 7)
    picture = cv2.imread(str(tmp_path / "a" / "grid_7.png"))[..., ::-1]
    panels = [eight_bit(0.5 * item(i)["lq"]) for i in range(3)]
    height, width = panels[0].shape[:2]
    assert picture.shape[:2] == (2 * height + 12, 2 * width + 12), "two by two"
    corner = np.argwhere((picture != 255).any(-1))[0]
    np.testing.assert_array_equal(picture[corner[0] : corner[0] + height, corner[1] : corner[1] + width], panels[0])
    assert [name for name, _, _ in shown] == ["im0", "grid"] and shown[1][2] == 7


def test_a_folder_that_cannot_be_written_ends_a_test_but_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"results of a cannot be written to .*out"):
        evaluator(tmp_path / "out", {"a": [item(0)]}, save_images=True).run(Halves(), 1)
    training = evaluator(tmp_path / "out", {"a": [item(0)]}, save_images=True, forgiving=True)
    assert training.run(Halves(), 1) == evaluator(tmp_path, {"a": [item(0)]}).run(Halves(), 1)
    assert "which loses nothing else" in caplog.text
