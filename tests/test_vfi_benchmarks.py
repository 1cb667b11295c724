"""test.py on small copies of benchmarks: from the option file to the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import relume
from relume.archs import build_network
from relume.core import options
from relume.core.imaging.image_io import imwrite
from relume.core.inference.tiling import Inference
from relume.core.models.interpolation import InterpolationModel
from relume.core.pipeline import test_pipeline as run_test
from relume.datasets import build_dataset

FOLDER = Path(relume.__file__).resolve().parent / "options" / "vfi" / "test"
SMALL = {
    "F": 8,
    "depths": [1, 1, 1],
    "num_heads": [1, 2, 4],
    "mlp_ratios": [1, 1, 1],
    "backbone_mode": "gated_attn_only",
    "use_flow": False,
}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yml")), ids=lambda p: p.stem)
def test_every_file_is_valid_and_says_how_to_run_it(path: Path) -> None:
    opt = options.load(path)
    assert opt.model_type == "InterpolationModel" and opt.path.pretrain_network_g
    assert f"python test.py -opt options/vfi/test/{path.name}" in path.read_text()


def run(name: str, roots: Path, tmp_path: Path, **val: object) -> dict[str, dict[str, float]]:
    opt = options.load(FOLDER / f"{name}.yml").to_dict()
    opt["network_g"].update(SMALL)
    opt["path"] = {"results_root": str(tmp_path / "results")}
    opt["val"].update({"pbar": False, **val})
    for block in opt["datasets"].values():
        block.update(dataroot=str(roots), num_worker_per_gpu=0)
    return run_test(opt, random_weights=True)


def random_frame(seed: int, size: tuple[int, int] = (24, 36)) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)


def test_a_level_per_row_with_published_figures_below(tmp_path: Path) -> None:
    for level in ("easy", "medium", "hard", "extreme"):
        for i in range(3):
            imwrite(tmp_path / f"test/{level}/{i}.png", random_frame(i))
        paths = [f"data/SNU-FILM/test/{level}/{i}.png" for i in range(3)]
        (tmp_path / f"test-{level}.txt").write_text(" ".join(paths) + "\n")
    results = run("snu_film", tmp_path, tmp_path)
    assert list(results) == ["easy", "medium", "hard", "extreme"]
    (log,) = (tmp_path / "results/vfi_snu_film").glob("*.log")
    lines = log.read_text().splitlines()
    rows = [line.split()[0] for line in lines if line.startswith(tuple(results))]
    assert rows[:4] == list(results)
    assert any(line.split() == ["VFIMamba", "[b]", "30.99", "-", "-", "0.9401", "-", "-", "66.07"] for line in lines)
    assert any("padding centred to height and width that are multiples of" in line for line in lines)


def test_the_blend_scores_as_written_out(tmp_path: Path) -> None:
    """By a separate path: frames blended here, rounded to 8 bits, in grey levels."""
    frames = {}
    for i, scene in enumerate(("Venus", "Walking")):
        names = (f"other-data/{scene}/frame10", f"other-gt-interp/{scene}/frame10i11", f"other-data/{scene}/frame11")
        frames[scene] = [random_frame(3 * i + k) for k in range(3)]
        for name, frame in zip(names, frames[scene], strict=True):
            imwrite(tmp_path / f"{name}.png", frame)
    opt = options.load(FOLDER / "middlebury.yml").to_dict()
    opt["datasets"]["test"]["scenes"] = list(frames)
    opt["network_g"].update(SMALL)
    opt["path"] = {"results_root": str(tmp_path / "results")}
    opt["datasets"]["test"].update(dataroot=str(tmp_path), num_worker_per_gpu=0)
    scores = run_test(opt, random_weights=True)["Middlebury"]
    ie = []
    for first, truth, last in frames.values():
        blend = torch.lerp(torch.from_numpy(first / 255).float(), torch.from_numpy(last / 255).float(), 0.5)
        ie.append(np.abs((blend * 255).round().numpy() - truth).mean())
    assert scores["ie_input"] == pytest.approx(np.mean(ie), abs=1e-4)


def test_x_test_asks_directly_or_by_halving(tmp_path: Path) -> None:
    for i in range(33):
        imwrite(tmp_path / f"Type1/TEST01/{i:04d}.png", random_frame(i, (32, 32)))
    direct, halved = (run("xtest_4k", tmp_path, tmp_path, recursive=r)["X-TEST_4K"] for r in (False, True))
    assert direct["psnr_input"] == halved["psnr_input"] and direct["psnr"] != halved["psnr"]


def test_large_frames_are_tiled_and_that_changes_little() -> None:
    for name in ("xtest_2k", "xtest_4k", "xiph", "phase3_xtest_2k", "phase3_xtest_4k"):
        val = options.load(FOLDER / f"{name}.yml").val
        assert val.tile == 768 and val.tile_overlap >= 192 and val.tile % 128 == 0  # of which a quarter is flow's size
        assert options.load(FOLDER / f"{name}.yml", ["val:tile=~"]).val.tile is None
    torch.manual_seed(0)
    block = {**SMALL, "type": "HybridVFI", "backbone_mode": "hybrid", "mamba": {"d_state": 4, "headdim": 16}}
    network = build_network({**block, "use_flow": True, "flow_c": [8, 8, 8], "drop_path": 0}).eval()
    model = InterpolationModel({"g": network}, {})
    moving = {"type": "SyntheticMotionDataset", "source": "skimage", "gt_size": 160, "shorter_side": 256}
    item = build_dataset({**moving, "motion": [4, 16], "renditions": 1}, phase="val", scale=1)[1]
    batch = {key: item[key][None] for key in ("img0", "img1", "gt")}
    made = []
    for tile in (None, 96):
        model.inference = Inference(tile, 32, None, "centred", None)
        with torch.no_grad():
            made.append(model.predict(batch)["output"])
    scores = [float(-10 * (out - batch["gt"]).square().mean().log10()) for out in made]
    assert 0 < abs(scores[0] - scores[1]) < 0.1
    assert float((made[0] - made[1]).abs().mean()) * 255 < 1
