"""``relume look``: the very samples that training takes, with their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from left_behind import picture
from runs import options

from relume.core import options as option_files
from relume.core.cli import main
from relume.core.commands import look
from relume.core.imaging.image_io import imwrite, read_pixels
from relume.core.pipeline import build_training_loader, build_training_set


@pytest.fixture(autouse=True)
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(5):
        imwrite(f"lq/{i}.png", picture(Path(f"gt/{i}.png"), i, 40) // 2)
    paired = {"type": "PairedImageDataset", "dataroot_lq": "lq", "dataroot_gt": "gt", "gt_size": 16}
    opt = options("x", datasets__train={**paired, "batch_size_per_gpu": 3, "num_worker_per_gpu": 0, "use_hflip": True})
    Path("x.yml").write_text(yaml.safe_dump(opt))


def test_samples_are_those_of_the_training() -> None:
    opt = option_files.load("x.yml")
    assert opt.train is not None
    dataset = build_training_set(opt)
    shown = list(look.samples(dataset, opt.datasets["train"], 7, 0, 6))
    loader = build_training_loader(opt, opt.train, dataset, None, torch.device("cpu"))
    stream = iter(loader)
    taken = [next(stream) for _ in range(2)]
    loader.close()
    lq = torch.cat([b["lq"] for b in taken])
    assert all(torch.equal(next(iter(s.values())), x) for s, x in zip(shown, lq, strict=True))


def test_the_sheet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["look", "-opt", "x.yml", "-o", "sheet.png", "--count", "7"]) == 0
    assert "7 samples; the first:" in capsys.readouterr().out
    image = read_pixels("sheet.png")
    assert image.shape[1] > 6 * look.HEIGHT and image.shape[0] > 4 * look.HEIGHT and image.std() > 20
    top, below = (image[4 + 20 + n : 4 + 20 + n + 180, 4:196].mean() for n in (0, 192 + 24))
    assert below > 1.3 * top, "the input, half as bright, is above its target"
    assert not np.array_equal(image[:400], image[400:800])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--count", "0"], "--count: 1 to 600"), (["--force_yml", "datasets:train:dataroot_lq=nowhere"], "nowhere")],
)
def test_bad_input(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["look", "-opt", "x.yml", *arguments]) == 2
    assert said in capsys.readouterr().err
