"""Triplets cut from clips, whose frames say their own number."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from relume.core.cli import main
from relume.core.errors import UserError
from relume.core.imaging.image_io import imwrite
from relume.datasets import build_dataset
from relume.datasets.clips import FrameFolder, find_clips
from relume.datasets.loading.worker import seeded
from relume.datasets.videos import Video


def write_frames(folder: Path, count: int, size: tuple[int, int] = (24, 32)) -> None:
    """Frame i is of grey level 4 i."""
    for i in range(count):
        imwrite(folder / f"{i:04d}.png", np.full((*size, 3), 4 * i, np.uint8))


def write_video(path: Path, count: int, size: tuple[int, int] = (32, 48), codec: str = "MJPG") -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, size[::-1])
    assert writer.isOpened()
    for i in range(count):
        writer.write(np.full((*size, 3), 4 * i, np.uint8))
    writer.release()


def level(image) -> float:
    """The number of the frame that an item's image shows."""
    return float(image.mean()) * 255 / 4


def build(name: str, root: Path, phase: str = "train", **options):
    return build_dataset({"type": name, "dataroot": str(root), **options}, phase=phase)


@pytest.fixture
def x4k(tmp_path):
    for clip in ("002/occ008.320_f2881", "002/occ009", "003/occ001"):
        write_frames(tmp_path / "train" / clip, 21)
    return tmp_path


def test_x4k_midpoints_are_exact(x4k):
    dataset = build("X4K1000FPSDataset", x4k, gt_size=16, stride=[3, 16], use_reverse_time=False)
    assert len(dataset) == 3
    distances = set()
    for seed in range(40):
        with seeded(seed):
            item = dataset[seed % 3]
        first, middle, last = (level(item[k]) for k in ("img0", "gt", "img1"))
        distances.add(round(last - first))
        assert middle == pytest.approx((first + last) / 2, abs=1e-3) and item["timestep"] == 0.5
    assert distances == {4, 6, 8, 10, 12, 14, 16}


def test_any_frame_in_between_with_its_time(x4k):
    dataset = build("X4K1000FPSDataset", x4k, stride=[5, 7], any_time=True)
    times = set()
    for seed in range(30):
        with seeded(seed):
            item = dataset[0]
        first, middle, last = (level(item[k]) for k in ("img0", "gt", "img1"))
        assert (middle - first) / (last - first) == pytest.approx(float(item["timestep"]), abs=1e-3)
        times.add(round(float(item["timestep"]), 3))
    assert len(times) > 5


def test_validation_takes_the_longest_distance(x4k):
    item = build("X4K1000FPSDataset", x4k, "val", stride=[8, 32])[2]
    assert [level(item[k]) for k in ("img0", "gt", "img1")] == pytest.approx([0, 10, 20], abs=1e-3)
    assert item["name"] == "003_occ001_0010"


def test_x4k_that_is_not_as_published(x4k):
    with pytest.raises(UserError, match=r"has 21 frames; a distance of 22 between the outer ones needs 23"):
        build("X4K1000FPSDataset", x4k, stride=[22, 32])
    with pytest.raises(UserError, match=r"stride: \[9, 9\] has no even distance"):
        build("X4K1000FPSDataset", x4k, stride=[9, 9])
    (x4k / "train/004").mkdir()
    (x4k / "train/004/occ001.mp4").touch()
    with pytest.raises(UserError, match=r"occ001\.mp4: is a video; .*relume prepare frames"):
        build("X4K1000FPSDataset", x4k)
    with pytest.raises(UserError, match="has no clips"):
        build("X4K1000FPSDataset", x4k / "train/002/occ009")


def test_downloaded_videos_become_the_folders_that_the_dataset_reads(tmp_path, capsys):
    root = str(tmp_path / "train")
    for name, count in (("002/occ008", 9), ("003/occ001", 5)):
        (tmp_path / "train" / name).parent.mkdir(parents=True)
        write_video(tmp_path / f"train/{name}.mp4", count, codec="mp4v")
    (tmp_path / "train/002/occ008.unfinished").mkdir()
    assert main(["prepare", "frames", root, root, "--dry_run"]) == 0
    assert capsys.readouterr().out.strip() == f"would be written: 14 frames of 2 videos: {root}"
    assert not list((tmp_path / "train").rglob("*.png"))
    for _ in range(2):  # the second finds everything done
        assert main(["prepare", "frames", root, root, "--workers", "1"]) == 0
        assert capsys.readouterr().out.strip() == f"14 frames of 2 videos: {root}"
    assert sorted(p.name for p in (tmp_path / "train/003/occ001").iterdir()) == [f"{i:04d}.png" for i in range(5)]
    item = build("X4K1000FPSDataset", tmp_path, phase="val", stride=[2, 4])[0]
    assert [level(item[k]) for k in ("img0", "gt", "img1")] == pytest.approx([0, 2, 4], abs=1)  # lossy
    write_video(tmp_path / "train/003/occ001.avi", 3)
    assert main(["prepare", "frames", root, root]) == 2 and "would share the folder" in capsys.readouterr().err
    assert main(["prepare", "frames", root, root, "--first", "-1"]) == 2
    assert main(["prepare", "frames", str(tmp_path / "train/002/occ008"), root]) == 2
    assert "has no videos" in capsys.readouterr().err
    assert main(["prepare", "frames", str(tmp_path / "train/003/occ001.avi"), str(tmp_path / "x"), "--first", "1"]) == 0
    assert sorted(p.name for p in (tmp_path / "x/occ001").iterdir()) == ["0001.png", "0002.png", "0003.png"]


def test_videos_and_folders_are_found(tmp_path):
    write_frames(tmp_path / "b/frames", 5)
    write_video(tmp_path / "a.avi", 7)
    clips = find_clips(str(tmp_path))
    assert [type(c) for c in clips] == [Video, FrameFolder] and [len(c) for c in clips] == [7, 5]
    dataset = build("VideoDataset", tmp_path, "val")
    assert len(dataset) == 5 + 3
    names = [dataset[i]["name"] for i in (0, 7)]
    assert names == ["a.avi_1", "b_frames_0003"]
    assert [level(dataset[6][k]) for k in ("img0", "gt", "img1")] == pytest.approx([1, 2, 3], abs=1e-3)


def test_frames_of_a_video_are_the_ones_asked_for(tmp_path):
    write_video(tmp_path / "v.avi", 9)
    video = Video(str(tmp_path / "v.avi"))
    for numbers in ([0, 1, 2], [3, 5, 7], [8], [2, 8]):
        assert [level(f / 255) for f in video.read(numbers)] == pytest.approx(numbers, abs=0.5)
    assert video.size(0) == (32, 48) and video.rate == 25
    with pytest.raises(UserError, match=r"v\.avi#9: this frame cannot be decoded"):
        video.read([9])


def test_any_frame_can_be_entered_where_frames_depend_on_others(tmp_path):
    path = tmp_path / "v.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, (48, 32))
    if not writer.isOpened():
        pytest.skip("this OpenCV has no MPEG-4 encoder")
    wide = cv2.resize(np.random.RandomState(0).randint(0, 256, (4, 24, 3)).astype(np.uint8), (150, 32))
    for i in range(30):
        writer.write(np.ascontiguousarray(wide[:, 2 * i : 2 * i + 48]))
    writer.release()
    capture = cv2.VideoCapture(str(path))
    every = [capture.read()[1][..., ::-1] for _ in range(30)]
    for numbers in ([0, 1], [1, 2, 3], [17, 20, 29], [13]):
        read = Video(str(path)).read(numbers)
        assert all(np.array_equal(a, every[n]) for a, n in zip(read, numbers, strict=True))


def test_videos_that_cannot_be_decoded(tmp_path, capfd):
    write_video(tmp_path / "cut.avi", 9)
    (tmp_path / "cut.avi").write_bytes((tmp_path / "cut.avi").read_bytes()[:400])
    for name, content in (("bad.mp4", b"not a video" * 50), ("empty.mkv", b""), ("cut.avi", None)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: (cannot be|not one frame of this video can be) decoded"):
            build("VideoDataset", tmp_path / name)
    assert capfd.readouterr().err == ""  # decoders keep their own messages to themselves
    with pytest.raises(UserError, match=r"short\.avi: has 3 frames; a distance of 8"):
        write_video(tmp_path / "short.avi", 3)
        build("VideoDataset", tmp_path / "short.avi", stride=(8, 8))
    with pytest.raises(UserError, match=r"none\.mp4: there is no such folder. Give a video file"):
        build("VideoDataset", tmp_path / "none.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has neither images nor videos"):
        build("VideoDataset", tmp_path / "empty")


def test_patches_are_checked_by_first_frames(tmp_path):
    write_frames(tmp_path / "frames", 5)
    write_video(tmp_path / "a.avi", 7)
    dataset = build("VideoDataset", tmp_path, gt_size=28)
    with pytest.raises(UserError, match=r"gt_size 28 is larger than 1 of 2 images.*0000\.png \(24x32\)"):
        dataset.require_patch(28)


def test_results_of_clips_of_the_same_name_are_filed_apart(tmp_path):
    for folder in ("a/frames", "b/frames"):
        write_frames(tmp_path / folder, 3)
    write_video(tmp_path / "b" / "v.avi", 3)
    dataset = build("VideoDataset", tmp_path, phase="val")
    assert [dataset[i]["name"] for i in range(3)] == ["a_frames_0001", "b_frames_0001", "b_v.avi_1"]
    assert build("VideoDataset", tmp_path / "a", phase="val")[0]["name"] == "frames_0001"
