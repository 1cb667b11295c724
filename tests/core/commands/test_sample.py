"""relume sample: images by seed, whatever the batch and the number of ranks."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from runs import forked, launched

from relume.archs import build_network
from relume.core.cli import main
from relume.core.commands import sample
from relume.core.errors import UserError
from relume.core.runtime import checkpoint, distributed

NETWORK = {
    "type": "OneStepGenerator",
    "img_resolution": 8,
    "label_dim": 3,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.0,
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with options and weights, whose average differs from them."""
    opt = {"name": "tiny", "model_type": "GenerationModel", "num_gpu": 0, "network_g": NETWORK}
    (tmp_path / "opt.yml").write_text(yaml.safe_dump(opt))
    torch.manual_seed(0)
    states = []
    for _ in range(2):
        network = build_network(NETWORK)
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.2)
        states.append(network.state_dict())
    checkpoint.save(tmp_path / "w.pth", {"params": states[0], "params_ema": states[1]})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    code: int = main(["sample", "-opt", "opt.yml", "--weights", "w.pth", "--cpu", *arguments])
    return code


def pixels(folder: Path) -> dict[str, np.ndarray]:
    return {p.name: cv2.imread(str(p))[..., ::-1] for p in sorted(folder.glob("0*.png"))}


def test_an_image_is_its_seeds_whatever_else_is_made(files: Path, capsys) -> None:
    assert run("--out", "many", "--seeds", "0-6", "--batch", "4", "--grid", "4") == 0
    assert "many: 7 images, 1 network evaluation each" in capsys.readouterr().out
    assert run("--out", "few", "--seeds", "5,2", "--batch", "3") == 0
    many, few = pixels(files / "many"), pixels(files / "few")
    assert list(many) == [f"{i:06d}.png" for i in range(7)] and list(few) == ["000002.png", "000005.png"]
    for name, image in few.items():
        # Kernels are chosen by the size of the batch and may round differently.
        assert np.abs(image.astype(int) - many[name]).max() <= 1
    assert len({image.tobytes() for image in many.values()}) == 7
    assert cv2.imread(str(files / "many" / "grid.png")).shape == (28, 28, 3)


def test_arrays_hold_what_files_hold(files: Path) -> None:
    assert run("--out", "a", "--seeds", "3-5", "--steps", "1", "4", "--label", "2") == 0
    assert run("--out", "b.npz", "--seeds", "3-5", "--steps", "4", "1", "--label", "2", "--grid", "2") == 0
    for steps in (1, 4):
        with np.load(files / f"b_steps_{steps}.npz", allow_pickle=False) as found:
            assert found["seeds"].tolist() == [3, 4, 5] and found["images"].dtype == np.uint8
            np.testing.assert_array_equal(
                found["images"], np.stack(list(pixels(files / "a" / f"steps_{steps}").values()))
            )
        assert (files / f"b_steps_{steps}_grid.png").is_file()
    one, four = (pixels(files / "a" / f"steps_{n}") for n in (1, 4))
    assert any((one[k] != four[k]).any() for k in one)


def test_averaged_weights_and_classes_matter(files: Path) -> None:
    for out, arguments in {"ema": (), "raw": ("--raw",), "class": ("--label", "1")}.items():
        assert run("--out", out, "--seeds", "0-1", *arguments) == 0
    ema, raw, label = (pixels(files / out) for out in ("ema", "raw", "class"))
    assert (ema["000000.png"] != raw["000000.png"]).any()
    assert (ema["000000.png"] != label["000000.png"]).any(), "its own class is 0"
    assert (ema["000001.png"] == label["000001.png"]).all(), "its own class is 1"


def test_ranks_share_seeds_and_fill_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Numbers:
        steps = 1

        def predict(self, batch):
            asked.append(batch["seed"].tolist())
            return {"output": (batch["seed"] / 255).float().view(-1, 1, 1, 1).expand(-1, 3, 2, 2)}

    found = {}
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        found.update(sample.generate(Numbers(), range(10, 17), None, 3, torch.device("cpu")))
    assert {seed: int(image[0, 0, 0]) for seed, image in found.items()} == {s: s for s in range(10, 17)}
    assert asked == [[10, 12, 14], [16, 16, 16], [11, 13, 15]]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--seeds", "4-1"], "--seeds: '4-1' is neither a number nor a range"),
        (["--seeds", "x"], "--seeds: 'x' is neither"),
        (["--label", "3"], "--label: 3 is no class; there are: from 0 to 2"),
        (["--steps", "0"], "--steps and --batch must be at least 1"),
        (["--weights", "v.pth"], "v.pth: no such file. Did you mean 'w.pth'?"),
    ],
)
def test_mistakes_are_one_line(arguments, message, files: Path, capsys) -> None:
    assert run("--out", "x", *arguments) == UserError.code
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not (files / "x").exists()


def test_two_ranks_make_the_files_of_one(files: Path) -> None:
    tool = Path(__file__).resolve().parents[3] / "tools" / "sample.py"
    command = [
        str(tool),
        "-opt",
        "opt.yml",
        "--weights",
        "w.pth",
        "--cpu",
        "--seeds",
        "0-8",
        "--batch",
        "4",
        "--grid",
        "9",
    ]
    for start in (
        [*command, "--out", "one"],
        launched(2, *command, "--out", "two", "--launcher", "pytorch"),
    ):
        done = forked(start, files, [{**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}])
        assert done.returncode == 0, done.stderr
    one, two = (sorted((files / out).iterdir()) for out in ("one", "two"))
    assert [p.name for p in one] == [p.name for p in two] and len(one) == 10
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))
