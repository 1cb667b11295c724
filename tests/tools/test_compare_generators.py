"""tools/compare_generators.py: a row for the start and for each run, a picture, and one line for what cannot be compared."""

from __future__ import annotations

from functools import partial

import pytest
import yaml

from relume.core.imaging.image_io import imread

FACES = {"type": "ShippedImagesDataset", "resolution": 8}
FEATURES = {"type": "pixel_avgpool", "size": 4}
OPTIONS = {
    "model_type": "GenerationModel",
    "num_gpu": 0,
    "datasets": {
        "train": {**FACES, "batch_size_per_gpu": 4, "num_worker_per_gpu": 0},
        "val": {"type": "NoiseDataset", "num_images": 8, "batch_size_per_gpu": 8, "reference": FACES, "num_worker_per_gpu": 0},
    },
    "network_g": {"type": "OneStepGenerator", "img_resolution": 8, "model_channels": 8, "channel_mult": [1], "num_blocks": 1},
    "train": {
        "total_iter": 2,
        "optim_g": {"type": "Adam", "lr": 1e-3},
        "features": FEATURES,
        "flow_opt": {"type": "PseudoHuberLoss"},
    },
    "val": {"save_grid": 4, "metrics": {"kid": {"type": "KID", "features": FEATURES, "subsets": 2, "subset_size": 8}}},
}  # fmt: skip


def file(folder, name, **changes):
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump({**OPTIONS, "name": name, **changes}))
    return str(path)


@pytest.fixture
def main(run_tool):
    return partial(run_tool, "compare_generators")


def test_table_and_picture(main, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([file(tmp_path, "a"), file(tmp_path, "b"), "--out", "out/both", "--height", "100"]) == 0
    lines = (tmp_path / "out/both.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines] == ["", "---", "at the start", "a", "b"]
    start, a, b = (float(line.split("|")[2]) for line in lines[2:])
    assert a == b != start and "out/both.png" in capsys.readouterr().out
    picture = imread(tmp_path / "out/both.png")
    assert picture.shape[0] > 100 and picture.shape[1] > 150


def test_what_cannot_be_compared(main, tmp_path, capsys):
    without = {**OPTIONS["val"], "save_grid": None}
    assert main([file(tmp_path, "a"), file(tmp_path, "c", val=without)]) == 2
    assert "c.yml: val.save_grid must be on" in capsys.readouterr().err
    other = {**OPTIONS["datasets"], "val": {**OPTIONS["datasets"]["val"], "num_images": 9}}
    assert main([file(tmp_path, "a"), file(tmp_path, "d", datasets=other)]) == 2
    assert "d.yml: datasets.val must be there, and the same" in capsys.readouterr().err
