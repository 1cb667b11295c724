"""Which frames the data sets for video give, against the original's (`video_index.json`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relume.core.errors import UserError
from relume.datasets import build_dataset, frame_pairs, generate_frame_indices
from relume.datasets.sources import Source

ROOT = "GT", "LQ"


class Numbered(Source):
    """Frames that hold their own number."""

    def pixels(self, name: str) -> np.ndarray:
        number = int("".join(c for c in name.rpartition("/")[2] if c.isdigit()))
        return np.full((8, 8, 3), number, np.uint8)


@pytest.fixture(scope="module")
def index(request: pytest.FixtureRequest) -> dict[str, Any]:
    path = Path(__file__).parents[2].parent / "shared" / "golden" / "zoo" / "video_index.json"
    if not path.is_file():
        pytest.skip("golden indices are not here")
    return json.loads(path.read_text())


def numbers(frames: Any) -> list[int]:
    frames = frames if frames.dim() == 4 else frames[None]
    return [round(float(f[0, 0, 0]) * 255) for f in frames]


def test_frame_indices(index: dict[str, Any]) -> None:
    for case in index["generate_frame_indices"]:
        given = (case[k] for k in ("crt_idx", "max_frame_num", "num_frames", "padding"))
        assert generate_frame_indices(*given) == case["indices"]
    with pytest.raises(UserError, match="must be odd"):
        generate_frame_indices(0, 10, 4)
    with pytest.raises(UserError, match="do not fit into a clip of 2"):
        generate_frame_indices(0, 2, 7, "reflection")


@pytest.mark.parametrize("name", ["REDSDataset", "REDSRecurrentDataset"])
def test_reds(name: str, index: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{clip:03d}/{i:08d}.png" for clip in range(270) for i in range(100)]
    monkeypatch.setattr(frame_pairs, "open_source", lambda root, backend: Numbered(root, names))
    meta = tmp_path / "meta.txt"
    meta.write_text("".join(f"{clip:03d} 100 (720,1280,3)\n" for clip in range(270)))
    for case in index[name]:
        opt = {"type": name, "dataroot_gt": "GT", "dataroot_lq": "LQ", "meta_info_file": str(meta), **case["opt"]}
        data = build_dataset(opt, phase="train", scale=1)
        several, backwards = len(case["opt"]["interval_list"]) > 1, case["opt"]["random_reverse"]
        recurrent = name == "REDSRecurrentDataset"
        for expected in case["items"]:
            assert len(data) == expected["len"]
            item = data[expected["index"]]
            assert item["key"] == expected["key"]
            lq, gt = numbers(item["lq"]), numbers(item["gt"])
            assert len(lq) == case["opt"]["num_frame"]
            steps = set(np.diff(lq))
            assert len(steps) == 1
            assert abs(steps.pop()) in case["opt"]["interval_list"]
            assert gt == (lq if recurrent else [lq[len(lq) // 2]])
            own = int(expected["key"][-8:])
            inside = own in expected["gt"][:1] or own in expected["gt"][-1:]
            if inside and not several:  # nothing was drawn but the direction
                assert lq == expected["lq"] or (backwards and lq == expected["lq"][::-1])


def vimeo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clips: list[str]) -> dict[str, str]:
    names = [f"{clip}/im{i}.png" for clip in clips for i in range(1, 8)]
    monkeypatch.setattr(frame_pairs, "open_source", lambda root, backend: Numbered(root, names))
    meta = tmp_path / "meta.txt"
    meta.write_text("".join(f"{clip} 7 (256,448,3)\n" for clip in clips))
    return {"dataroot_gt": "GT", "dataroot_lq": "LQ", "meta_info_file": str(meta)}


@pytest.mark.parametrize("name", ["Vimeo90KDataset", "Vimeo90KRecurrentDataset", "VideoTestVimeo90KDataset"])
def test_vimeo(name: str, index: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for case in index[name]:
        clips = [item.get("key") or item["lq_path"].split("/", 1)[1].rpartition("/")[0] for item in case["items"]]
        data = build_dataset({"type": name, **vimeo(monkeypatch, tmp_path, clips), **case["opt"]}, scale=1)
        backwards = case["opt"].get("random_reverse")
        for i, expected in enumerate(case["items"]):
            item = data[i]
            assert item["key"] == clips[i]
            lq, gt = numbers(item["lq"]), numbers(item["gt"])
            wanted = [int(n.rpartition("im")[2].split(".")[0]) for n in expected["lq"]]
            if case["opt"].get("flip_sequence"):
                assert len(lq) == expected["frames_returned"]
                assert lq == lq[::-1]
                lq, gt = lq[:7], gt[:7]
            assert lq == wanted or (backwards and lq == wanted[::-1])
            assert gt == (lq if len(gt) > 1 else [4])
            for key in ("folder", "idx", "border"):
                assert item.get(key) == expected.get(key)


@pytest.fixture
def two_clips(tmp_path: Path, write_png: Callable[[Path, np.ndarray], None]) -> Path:
    for root in ROOT:
        for clip, count in (("city", 5), ("walk", 7)):
            for i in range(count):
                write_png(tmp_path / root / clip / f"{i:08d}.png", np.full((8, 8, 3), i, np.uint8))
    return tmp_path


@pytest.fixture
def write_png() -> Callable[[Path, np.ndarray], None]:
    from relume.core.imaging.opencv import cv2

    def write(path: Path, image: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)

    return write


def test_clips_with_neighbours(index: dict[str, Any], two_clips: Path) -> None:
    for case in index["VideoTestDataset"]:
        opt = {k: v for k, v in case["opt"].items() if k != "name"}
        roots = {f"dataroot_{root.lower()}": str(two_clips / root) for root in ROOT}
        data = build_dataset({"type": "VideoTestDataset", **roots, **opt}, scale=1)
        assert len(data) == len(case["items"])
        for i, expected in enumerate(case["items"]):
            item = data[i]
            assert {k: item[k] for k in ("folder", "idx", "border")} == {
                k: expected[k] for k in ("folder", "idx", "border")
            }
            assert numbers(item["lq"]) == [int(Path(p).stem) for p in expected["lq"]]
            assert numbers(item["gt"]) == [int(Path(p).stem) for p in expected["gt"]]
            assert item["lq_path"].endswith(expected["lq_path"])


@pytest.mark.parametrize("name", ["VideoRecurrentTestDataset", "ClipsDataset"])
def test_whole_clips(name: str, two_clips: Path) -> None:
    roots = {f"dataroot_{root.lower()}": str(two_clips / root) for root in ROOT}
    data = build_dataset({"type": name, **roots}, scale=1, phase="val")
    assert [(item["folder"], len(item["lq"]), len(item["gt"])) for item in map(data.__getitem__, (0, 1))] == [
        ("city", 5, 5),
        ("walk", 7, 7),
    ]


def test_windows_of_any_clips(two_clips: Path) -> None:
    roots = {f"dataroot_{root.lower()}": str(two_clips / root) for root in ROOT}
    data = build_dataset({"type": "ClipsDataset", **roots, "num_frame": 3, "interval_list": [2]}, scale=1)
    for i in range(len(data)):
        item = data[i]
        assert numbers(item["lq"]) == numbers(item["gt"])
        assert set(np.diff(numbers(item["lq"]))) == {2}


def test_damaged_sets_are_named(two_clips: Path, write_png: Callable[[Path, np.ndarray], None]) -> None:
    roots = {f"dataroot_{root.lower()}": str(two_clips / root) for root in ROOT}
    test = {"type": "VideoRecurrentTestDataset", **roots}
    clips = {"type": "ClipsDataset", **roots, "num_frame": 3}
    with pytest.raises(UserError, match="num_frame: must be odd"):
        build_dataset({"type": "VideoTestDataset", **roots, "num_frame": 4}, scale=1)
    with pytest.raises(UserError, match="clip city has 5"):
        build_dataset({**clips, "num_frame": 6}, scale=1)
    with pytest.raises(UserError, match=r"gt_size 16 is larger than 2 of 2 images"):
        build_dataset(clips, scale=1).require_patch(16)

    def refused(message: str, **more: Any) -> None:
        """Before any frame is read, and by both sets in the same words."""
        for opt in (test, clips):
            with pytest.raises(UserError, match=message) as caught:
                build_dataset(opt, **{"scale": 1, **more})
            assert "\n" not in str(caught.value)

    refused("clip city: gt is 8x8 and lq 8x8, which is not scale 4", scale=4)
    for root in ROOT:
        frame = two_clips / root / "city" / "00000002.png"
        whole = frame.read_bytes()
        write_png(frame, np.zeros((4, 8, 3), np.uint8))
        refused(rf"clip city: frames in {root.lower()} have several sizes: 00000000\.png is 8x8, 00000002\.png is 4x8")
        frame.write_bytes(whole)
    (two_clips / "GT" / "city" / "00000002.png").unlink()
    refused("clip city: 4 frames in gt and 5 in lq: only one has 00000002")


def test_listed_frames_that_are_missing_are_named(
    tmp_path: Path, write_png: Callable[[Path, np.ndarray], None]
) -> None:
    meta = tmp_path / "meta.txt"
    meta.write_text("00001/0001 7 (8,8,3)\n")
    for root in ROOT:
        for i in range(1, 8):
            write_png(tmp_path / root / "00001/0001" / f"im{i}.png", np.zeros((8, 8, 3), np.uint8))
            write_png(tmp_path / "reds" / root / "007" / f"{i - 1:08d}.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "LQ/00001/0001/im2.png").unlink()
    (tmp_path / "reds/GT/007/00000003.png").unlink()
    roots = {f"dataroot_{root.lower()}": str(tmp_path / root) for root in ROOT}
    for name in ("Vimeo90KDataset", "Vimeo90KRecurrentDataset", "VideoTestVimeo90KDataset"):
        with pytest.raises(UserError, match=r"dataroot_lq: 1 of 7 frames are not in .*: 00001/0001/im2"):
            build_dataset({"type": name, **roots, "meta_info_file": str(meta)}, scale=1)
    build_dataset({"type": "VideoTestVimeo90KDataset", **roots, "meta_info_file": str(meta), "num_frame": 3}, scale=1)
    roots = {f"dataroot_{root.lower()}": str(tmp_path / "reds" / root) for root in ROOT}
    reds = {"type": "REDSRecurrentDataset", **roots, "num_frame": 3}
    with pytest.raises(UserError, match="dataroot_gt: lacks 007/00000003, of"):
        build_dataset(reds, scale=1)
    meta.write_text("007 7 (8,8,3)\n")
    with pytest.raises(UserError, match=r"dataroot_gt: 1 of 7 frames are not in .*: 007/00000003"):
        build_dataset({**reds, "meta_info_file": str(meta)}, scale=1)
    with pytest.raises(UserError, match="num_frame: 8 frames at a distance of 1 span 8, and clip 007 has 7"):
        build_dataset({**reds, "meta_info_file": str(meta), "num_frame": 8}, scale=1)
    with pytest.raises(UserError, match="num_frame: must be odd"):
        build_dataset({**reds, "type": "REDSDataset", "num_frame": 4}, scale=1)


def test_duf_downsampling() -> None:
    import torch
    from scipy.ndimage import gaussian_filter

    from relume.datasets.video_tests import duf_downsample

    frames = torch.rand(2, 3, 32, 24, dtype=torch.float64)
    expected = gaussian_filter(frames.numpy(), (0, 0, 1.6, 1.6), mode="mirror", radius=(0, 0, 6, 6))[..., ::4, ::4]
    assert np.abs(duf_downsample(frames, 4).numpy() - expected).max() < 1e-6
