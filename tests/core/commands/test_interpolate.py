"""relume interpolate on tiny clips."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from relume.archs import build_network
from relume.core.cli import main
from relume.core.imaging.image_io import imwrite, read_pixels
from relume.core.runtime import checkpoint
from relume.datasets.videos import Video

NETWORK = {
    "type": "HybridVFI",
    "F": 8,
    "depths": [1, 1, 1],
    "num_heads": [1, 2, 4],
    "mlp_ratios": [1, 1, 1],
    "backbone_mode": "gated_attn_only",
    "drop_path": 0,
    "use_flow": True,
    "flow_c": [4, 4, 4],
}


@pytest.fixture
def run(tmp_path, capsys):
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "net.pth", {"params": build_network(NETWORK).state_dict()})
    opt = {"name": "t", "model_type": "InterpolationModel", "network_g": NETWORK}
    opt["path"] = {"pretrain_network_g": str(tmp_path / "net.pth")}
    (tmp_path / "o.yml").write_text(yaml.safe_dump(opt))
    for i in range(3):
        smooth = cv2.resize(np.random.RandomState(i).randint(0, 256, (2, 3, 3)).astype(np.uint8), (36, 20))
        imwrite(tmp_path / f"in/{i}.png", smooth)

    def call(*arguments: str, source: str = "in") -> tuple[int, str]:
        where = ["--device", "cpu", "-opt", str(tmp_path / "o.yml")]
        code = main(["interpolate", str(tmp_path / source), *where, *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def frames(folder: Path) -> list[np.ndarray]:
    return [read_pixels(p) for p in sorted(folder.iterdir())]


def test_old_frames_stay_and_new_ones_come_between(run, tmp_path):
    code, said = run("--times", "4", "--frames", str(tmp_path / "out"), "--video", str(tmp_path / "v.avi"))
    assert code == 0 and said.splitlines()[-1].startswith("3 frames became 9: ")
    made = frames(tmp_path / "out")
    assert len(made) == 9 and all(np.array_equal(a, b) for a, b in zip(made[::4], frames(tmp_path / "in"), strict=True))
    video = Video(str(tmp_path / "v.avi"))
    assert (len(video), video.size(0), video.rate) == (9, (20, 36), 100)
    assert np.abs(video.read([4])[0].astype(int) - made[4]).mean() < 8 < np.abs(made[4].astype(int) - made[0]).mean()


def test_halving_agrees_at_the_middle_and_nowhere_else(run, tmp_path):
    for name, flags in (("direct", ()), ("halved", ("--recursive",))):
        assert run("--times", "4", "--frames", str(tmp_path / name), *flags)[0] == 0
    direct, halved = frames(tmp_path / "direct"), frames(tmp_path / "halved")
    same = [np.array_equal(a, b) for a, b in zip(direct, halved, strict=True)]
    assert same == [True, False, True, False] * 2 + [True]


def test_a_video_in(run, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (36, 20))
    for image in frames(tmp_path / "in")[:2]:
        writer.write(image)
    writer.release()
    code, said = run("--video", str(tmp_path / "slow.avi"), "--fps", "10", source="clip.avi")
    assert code == 0 and "2 frames became 3" in said
    assert Video(str(tmp_path / "slow.avi")).rate == 10


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "where to?"),
        (("--frames", "x", "--flow_scale", "2"), "--flow_scale: must be above 0"),
        (("--frames", "x", "--fps", "0"), "--fps: must be above 0"),
        (("--frames", "x", "--to_fps", "60"), "--to_fps: a folder of frames does not say its rate; give --from_fps"),
        (("--frames", "x", "--device", "gpu"), "--device: there is no 'gpu'; give cpu"),
        (("--frames", "x", "--device", "cuda:99"), "--device: 'cuda:99' is not here"),
        (("--video", "x.nonsense"), "cannot write such a video here; .avi"),
        (("--frames", "x", "--weights", "none.pth"), "none.pth"),
    ],
)
def test_one_line_for_a_mistake(run, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    code, said = run(*flags)
    assert code != 0 and message in said and "Traceback" not in said


def test_inputs_that_are_no_clip(run, tmp_path):
    imwrite(tmp_path / "in/3.png", np.zeros((24, 36, 3), np.uint8))
    code, said = run("--frames", str(tmp_path / "x"))
    assert code != 0 and said.endswith("0.png is 20x36\n") and "3.png: is 24x36 (height x width)" in said
    imwrite(tmp_path / "in/deeper/0.png", np.zeros((24, 36, 3), np.uint8))
    assert "holds 2 videos or folders of frames" in run("--frames", str(tmp_path / "x"))[1]
    assert "has one frame only" in run("--frames", str(tmp_path / "x"), source="in/deeper")[1]
    assert "there is no such folder" in run("--frames", str(tmp_path / "x"), source="nothing")[1]


def test_networks_that_only_find_the_middle_must_halve(run, tmp_path):
    network = {**NETWORK, "use_flow": False}
    checkpoint.save(tmp_path / "net.pth", {"params": build_network(network).state_dict()})
    opt = yaml.safe_load((tmp_path / "o.yml").read_text())
    (tmp_path / "o.yml").write_text(yaml.safe_dump({**opt, "network_g": network}))
    code, said = run("--times", "4", "--frames", str(tmp_path / "x"))
    assert code != 0 and "this network only finds the middle of two frames; give --recursive" in said
    assert run("--times", "4", "--frames", str(tmp_path / "x"), "--recursive")[0] == 0
    assert run("--times", "2", "--frames", str(tmp_path / "y"))[0] == 0
