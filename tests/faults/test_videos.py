"""Every frame of a video is found under its number, whatever the container says of counts, times and order."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from clips import encode, lying, number_of, numbered, program_stream, shown_from, turned

from relume.core.errors import UserError
from relume.datasets import build_dataset, videos
from relume.datasets.videos import OpenCV, Video

H264 = {"bf": "3", "g": "12"}
OPEN = {"bf": "3", "g": "12", "x264-params": "open-gop=1:b-adapt=0"}
VARIABLE = [20 * i if i < 30 else 600 + 80 * (i - 30) for i in range(60)]

# What the files are called, how they are made, and the numbers of the frames that a player shows.
KINDS = {
    "program_stream.mpg": (lambda p: program_stream(p, 200), range(200)),
    "edit_list.mp4": (lambda p: shown_from(encode(p, 40, "mpeg4"), 10, 20), range(10, 30)),
    "edit_list_reordered.mp4": (lambda p: shown_from(encode(p, 40, "libx264", options=H264), 15, 20), range(15, 35)),
    "variable.mkv": (lambda p: encode(p, 60, "mjpeg", "yuvj420p", times=VARIABLE), range(60)),
    "variable.mp4": (lambda p: encode(p, 60, "libx264", times=VARIABLE, options=H264), range(60)),
    "reordered.mp4": (lambda p: encode(p, 50, "libx264", options=H264), range(50)),
    "open_groups.ts": (lambda p: encode(p, 60, "libx264", options=OPEN), range(60)),
    "mpeg2.ts": (lambda p: encode(p, 50, "mpeg2video", options={"bf": "2", "g": "12"}), range(50)),
    "mpeg2.vob": (lambda p: encode(p, 50, "mpeg2video", options={"bf": "2", "g": "12"}), range(50)),
    "elementary.m2v": (lambda p: encode(p, 30, "mpeg2video", options={"bf": "2"}), range(30)),
    "small_rate.mkv": (lambda p: encode(p, 20, "ffv1", rate=Fraction(24000, 1001)), range(20)),
    "lossless.avi": (lambda p: encode(p, 20, "ffv1", "bgr0"), range(20)),
    "says_more.avi": (lambda p: lying(encode(p, 20, "mpeg4"), 50), range(20)),
    "says_fewer.avi": (lambda p: lying(encode(p, 20, "mpeg4"), 7), range(20)),
    "flash.flv": (lambda p: encode(p, 30, "flv1"), range(30)),
    "web.webm": (lambda p: encode(p, 40, "libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}), range(40)),
}


@pytest.fixture(params=KINDS)
def clip(request, tmp_path):
    make, shown = KINDS[request.param]
    return make(tmp_path / request.param), list(shown)


def test_every_frame_is_found_under_its_number(clip):
    path, shown = clip
    video = Video(str(path))
    assert len(video) == len(shown)
    assert [number_of(f) for f in video.read(range(len(video)))] == shown
    chosen = np.random.RandomState(0).permutation(len(shown))[:12]
    for number in (*map(int, chosen), 0, len(shown) - 1):
        assert [number_of(f) for f in video.read([number])] == [shown[number]]
    with pytest.raises(UserError, match=rf"{path.name}#{len(shown)}: this frame cannot be decoded"):
        video.read([len(shown)])


def test_without_pyav_frames_are_the_same(clip, monkeypatch):
    path, shown = clip
    if path.name == "elementary.m2v":
        pytest.skip("OpenCV's FFmpeg drops the last frame of an elementary stream")
    monkeypatch.setattr(videos, "decoder", OpenCV)
    video = Video(str(path))
    assert [number_of(f) for f in video.read(range(len(video)))] == shown
    assert number_of(video.read([len(shown) // 2])[0]) == shown[len(shown) // 2]


def test_samples_of_a_dataset_are_in_order(tmp_path):
    program_stream(tmp_path / "a.mpg", 100)
    dataset = build_dataset({"type": "VideoDataset", "dataroot": str(tmp_path)}, phase="val")
    assert len(dataset) == 98
    assert [number_of(dataset[90][k].permute(1, 2, 0).numpy()) for k in ("img0", "gt", "img1")] == [90, 91, 92]


def test_rates_are_fractions_and_times_those_of_the_frames(tmp_path):
    for rate in (Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60), Fraction(25, 2), Fraction(24)):
        for suffix in ("mp4", "mkv", "avi"):
            path = encode(tmp_path / f"{rate.numerator}.{suffix}", 50, "mpeg4", rate=rate)
            assert Video(str(path)).rate == rate, path
    video = Video(str(encode(tmp_path / "v.mkv", 60, "mjpeg", "yuvj420p", times=VARIABLE)))
    assert [video.time(i) for i in (1, 29, 31, 59)] == [Fraction(t, 1000) for t in (20, 580, 680, 2920)]


def test_a_file_that_changes_is_looked_at_again_and_one_that_does_not_is_not(tmp_path, monkeypatch):
    path = encode(tmp_path / "v.mkv", 10, "ffv1")
    assert len(Video(str(path))) == 10
    monkeypatch.setattr(videos.PyAV, "index", lambda *_: pytest.fail("decoded again"))
    assert len(Video(str(path))) == 10
    monkeypatch.undo()
    assert len(Video(str(encode(path, 12, "ffv1")))) == 12


def test_what_is_remembered_may_be_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = encode(tmp_path / "v.mkv", 10, "ffv1")
    assert len(Video(str(path))) == 10
    (remembered,) = (tmp_path / "cache").rglob("*.json")
    for content in (b"", b"{}", b"[]", b"\xff", b'{"size": 3}', b"null"):
        remembered.write_bytes(content)
        assert len(Video(str(path))) == 10
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(Video(str(path))) == 10


def test_frames_are_upright_as_opencv_has_them(tmp_path):
    path = turned(encode(tmp_path / "phone.mp4", 3, "libx264", options={"qp": "0"}))
    video = Video(str(path))
    assert video.size(0) == (128, 32)
    seen = video.read([1])[0]
    assert seen.shape == (128, 32, 3) and np.abs(seen.astype(int) - np.rot90(numbered(1), -1)).max() < 4
    expected = cv2.VideoCapture(str(path)).read()[1]
    assert expected.shape == (128, 32, 3)


@pytest.mark.parametrize(("space", "matrix"), [(1, (0.2126, 0.0722)), (5, (0.299, 0.114)), (9, (0.2627, 0.0593))])
@pytest.mark.parametrize("full", [False, True])
def test_colours_are_those_that_the_stream_names(tmp_path, space, matrix, full):
    """Against the definition: Y' = Kr R + Kg G + Kb B, and differences scaled to +-1/2 (Rec. ITU-T H.273)."""
    import av

    colour = np.array([0.8, 0.35, 0.2])
    kr, kb = matrix
    y = kr * colour[0] + (1 - kr - kb) * colour[1] + kb * colour[2]
    cb, cr = (colour[2] - y) / (2 * (1 - kb)), (colour[0] - y) / (2 * (1 - kr))
    scale = (255, 255, 0) if full else (219, 224, 16)
    planes = np.rint([y * scale[0] + scale[2], cb * scale[1] + 128, cr * scale[1] + 128]).astype(np.uint8)
    with av.open(str(tmp_path / "c.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = space, 2 if full else 1
        frame = av.VideoFrame.from_ndarray(np.stack([np.full((32, 32), p) for p in planes]), format="yuv444p")
        frame.colorspace, frame.color_range = space, 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    seen = Video(str(tmp_path / "c.mkv")).read([0])[0][16, 16] / 255
    assert seen == pytest.approx(colour, abs=0.012)


def test_more_than_eight_bits_stay(tmp_path):
    path = encode(tmp_path / "deep.mkv", 3, "ffv1", "yuv444p10le")
    image = Video(str(path)).read([1])[0]
    assert image.dtype == np.uint16 and number_of(image) == 1
    assert np.abs(image / 65535 - numbered(1) / 255).max() < 0.01


def test_damage_in_the_middle_is_said_and_shifts_nothing(tmp_path, caplog):
    path = encode(tmp_path / "v.ts", 100, "mpeg2video", options={"g": "5"})
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : third + 4000] = bytes(4000)
    path.write_bytes(data)
    try:
        video = Video(str(path))
    except UserError as e:
        assert "v.ts" in str(e)
        return
    every = video.read(range(len(video)))
    assert all(np.array_equal(video.read([i])[0], every[i]) for i in (0, len(every) // 2, len(every) - 1))
