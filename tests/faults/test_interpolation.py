"""relume interpolate keeps order, depth, size and time, with a network that blends both frames."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
import yaml
from clips import BITS, SIDE

from relume.core.cli import main
from relume.core.imaging.image_io import imwrite, read_pixels
from relume.core.runtime import checkpoint
from relume.datasets.videos import Video

PLUGIN = '''
import torch
from relume.archs import ARCHS

@ARCHS.register()
class Blend(torch.nn.Module):
    """Both frames, each by its nearness in time."""
    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(1))
    def forward(self, x, timestep=0.5):
        return ((1 - timestep) * x[:, :3] + timestep * x[:, 3:]) * self.gain
'''


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blend")
    (folder / "blend.py").write_text(PLUGIN)
    checkpoint.save(folder / "net.pth", {"params": {"gain": torch.ones(1)}})
    opt = {"name": "t", "model_type": "InterpolationModel", "network_g": {"type": "Blend"}}
    opt |= {"plugins": ["blend.py"], "path": {"pretrain_network_g": str(folder / "net.pth")}}
    (folder / "o.yml").write_text(yaml.safe_dump(opt))
    return folder / "o.yml"


@pytest.fixture
def run(options, tmp_path, capsys):

    def call(source: str, *arguments: str) -> tuple[int, str]:
        code = main(["interpolate", str(tmp_path / source), "-opt", str(options), "--device", "cpu", *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def flat(value: int, size=(24, 32), dtype=np.uint8) -> np.ndarray:
    return np.full((*size, 3), value, dtype)


def levels(folder) -> list[int]:
    return [int(read_pixels(p).flat[0]) for p in sorted(folder.iterdir())]


@pytest.mark.parametrize("name", ["{}.png", "clip2_{}_x.bmp"])
def test_numbers_in_names_are_compared_as_numbers(run, tmp_path, name):
    for i in range(1, 13):
        imwrite(tmp_path / "in" / name.format(i), flat(10 * i))
    assert run("in", "--times", "2", "--frames", str(tmp_path / "out"))[0] == 0
    assert levels(tmp_path / "out") == list(range(10, 121, 5))


@pytest.mark.parametrize("suffix", ["png", "tif", "ppm"])
def test_sixteen_bits_stay_sixteen_bits(run, tmp_path, suffix):
    for i in range(3):
        imwrite(tmp_path / f"in/{i}.{suffix}", flat(10001 * (i + 1), dtype=np.uint16))
    code, said = run("in", "--frames", str(tmp_path / "out"), "--video", str(tmp_path / "v.mkv"))
    assert code == 0 and "v.mkv: has 8 bits, and the input more" in said
    assert levels(tmp_path / "out") == pytest.approx([10001, 15001.5, 20002, 25002.5, 30003], abs=0.5)
    assert read_pixels(tmp_path / "out/000000.png").dtype == np.uint16


ODD = [(31, 33), (32, 33), (31, 32), (32, 32)]


@pytest.mark.parametrize(
    ("suffix", "size"),
    [*(("mp4", size) for size in ODD), *((s, ODD[0]) for s in ("mkv", "mov", "m4v", "avi", "webm"))],
)
def test_odd_sizes_are_kept(run, tmp_path, suffix, size):
    for i in range(3):
        imwrite(tmp_path / f"in/{i}.png", flat(60 * i, size))
    assert run("in", "--video", str(tmp_path / f"v.{suffix}"))[0] == 0
    video = Video(str(tmp_path / f"v.{suffix}"))
    assert (len(video), video.size(0), video.rate) == (5, size, 50)
    shown = [float(image.mean()) for image in video.read(range(5))]
    assert shown == pytest.approx([0, 30, 60, 90, 120], abs=3)


@pytest.mark.parametrize("wanted", [("--times", "5/2"), ("--times", "2.5"), ("--to_fps", "60", "--from_fps", "24")])
def test_any_rate_of_a_folder(run, tmp_path, wanted):
    for i in range(24):
        imwrite(tmp_path / f"in/{i}.png", flat(10 * i))
    assert run("in", *wanted, "--frames", str(tmp_path / "out"))[0] == 0
    assert levels(tmp_path / "out") == [4 * j for j in range(58)]


@pytest.mark.parametrize(
    ("rate", "wanted"), [("24", "60"), ("24000/1001", "60"), ("25", "30000/1001"), ("30", "24"), ("50", "25")]
)
def test_any_rate_of_a_video(run, tmp_path, rate, wanted):
    source = encode_levels(tmp_path / "in.mkv", 20, Fraction(rate))
    assert (
        run("in.mkv", "--to_fps", wanted, "--frames", str(tmp_path / "out"), "--video", str(tmp_path / "v.mp4"))[0] == 0
    )
    step = Fraction(rate) / Fraction(wanted)
    count = int(19 / step) + 1
    expected = [float(10 * j * step) for j in range(count)]
    assert levels(tmp_path / "out") == pytest.approx(expected, abs=1.1), source
    assert Video(str(tmp_path / "v.mp4")).rate == Fraction(wanted)


def encode_levels(path, count, rate=Fraction(25), times=None):
    """Frames of the gray values 0, 10, 20, ..."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.width, stream.height, stream.pix_fmt = BITS * SIDE, 32, "bgr0"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(flat(10 * i, (32, BITS * SIDE)), format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = (times[i], Fraction(1, 1000)) if times else (i, 1 / rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_irregular_times_are_those_of_the_frames(run, tmp_path):
    times = [0, 20, 40, 120, 200]
    encode_levels(tmp_path / "in.mkv", 5, times=times)
    assert run("in.mkv", "--to_fps", "50", "--frames", str(tmp_path / "out"))[0] == 0
    assert levels(tmp_path / "out") == pytest.approx(np.interp(range(0, 201, 20), times, [0, 10, 20, 30, 40]), abs=0.51)
    assert run("in.mkv", "--video", str(tmp_path / "v.mp4"))[0] == 0
    video = Video(str(tmp_path / "v.mp4"))
    assert [video.time(i) * 1000 for i in range(9)] == [0, 10, 20, 30, 40, 80, 120, 160, 200]
    assert "AVI has one rate" in run("in.mkv", "--video", str(tmp_path / "v.avi"))[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--times", "1/2"), "--times: must be at least 1, not 1/2"),
        (("--times", "0"), "--times: must be above 0"),
        (("--times", "nan"), "--times: must be above 0"),
        (("--times", "inf"), "--times: must be above 0"),
        (("--fps", "1/0"), "--fps: must be above 0"),
        (("--to_fps", "60"), "a folder of frames does not say its rate; give --from_fps"),
        (("--times", "3", "--recursive"), "halving reaches 1/2, 1/4, 3/4, ... of the way between two frames, not"),
    ],
)
def test_one_line_for_what_cannot_be(run, tmp_path, arguments, message):
    for i in range(3):
        imwrite(tmp_path / f"in/{i}.png", flat(i))
    code, said = run("in", "--frames", str(tmp_path / "out"), *arguments)
    assert code == 2 and message in said and not (tmp_path / "out").exists()


def test_frames_are_not_mixed_with_others(run, tmp_path):
    for i in range(3):
        imwrite(tmp_path / f"in/{i}.png", flat(i))
    assert run("in", "--frames", str(tmp_path / "out"), "--times", "4")[0] == 0
    assert "frames of an earlier, longer run (000005.png" in run("in", "--frames", str(tmp_path / "out"))[1]
    assert "is the input; give another folder" in run("in", "--frames", str(tmp_path / "in"))[1]
    assert run("in", "--frames", str(tmp_path / "out"), "--times", "8")[0] == 0


def test_a_video_that_fails_leaves_the_old_one(run, tmp_path):
    imwrite(tmp_path / "in/0.png", flat(0))
    imwrite(tmp_path / "in/1.png", flat(9))
    imwrite(tmp_path / "in/2.png", flat(9, (24, 30)))
    (tmp_path / "v.mp4").write_bytes(b"old")
    code, said = run("in", "--video", str(tmp_path / "v.mp4"))
    assert code == 2 and "2.png: is 24x30" in said
    assert (tmp_path / "v.mp4").read_bytes() == b"old" and len(list(tmp_path.glob("*.mp4"))) == 1
    assert not list(tmp_path.glob(".*"))


def scenes(path, levels, rate=Fraction(24)):
    """A video, without loss, of pictures of stripes that are brighter by these levels."""
    import av

    stripes = np.tile(np.arange(BITS * SIDE) % 64 // 16 * 8, (32, 1)).astype(np.uint8)[..., None].repeat(3, 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.width, stream.height, stream.pix_fmt = BITS * SIDE, 32, "bgr0"
        for level in levels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stripes + np.uint8(level), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_scene_cuts_are_not_interpolated(run, tmp_path):
    scenes(tmp_path / "in.mkv", [0, 4, 8, 12, 200, 204, 208, 212])
    code, said = run("in.mkv", "--times", "4", "--frames", str(tmp_path / "out"))
    assert code == 0 and "1 scene cuts" in said and "8 frames became 29" in said
    made = levels(tmp_path / "out")
    assert made == [*range(12), 12, 12, 12, 12, *range(200, 213)]
    code, said = run("in.mkv", "--times", "4", "--frames", str(tmp_path / "all"), "--across_cuts")
    assert code == 0 and "scene cuts" not in said
    assert levels(tmp_path / "all")[12:17] == [12, 59, 106, 153, 200]


def test_duplicates_are_dropped_first(run, tmp_path):
    scenes(tmp_path / "in.mkv", [0, 0, 20, 20, 40, 40, 60, 60, 60])
    plain = ("in.mkv", "--to_fps", "60")
    assert run(*plain, "--frames", str(tmp_path / "jerky"))[0] == 0
    code, said = run(*plain, "--frames", str(tmp_path / "out"), "--drop_duplicates")
    assert code == 0 and "5 frames that repeat the one before were left out first" in said
    expected = [min(10 * j * 24 / 60, 60) for j in range(21)]
    assert levels(tmp_path / "out") == pytest.approx(expected, abs=0.51)
    jerky = levels(tmp_path / "jerky")
    assert len(jerky) == 21 and max(abs(a - b) for a, b in zip(jerky, expected, strict=True)) > 5


def test_what_else_a_film_has_comes_along_where_it_plays_as_fast(run, tmp_path):
    import av

    with av.open(str(tmp_path / "in.mp4"), "w") as made:
        video = made.add_stream("libx264", rate=24)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p10le"
        video.codec_context.color_primaries = video.codec_context.colorspace = 9
        video.codec_context.color_trc = 16
        sound = made.add_stream("aac", rate=16000)
        for i in range(12):
            frame = av.VideoFrame.from_ndarray(flat(10 * i, (32, 32)), format="rgb24")
            made.mux(video.encode(frame.reformat(format="yuv420p10le", dst_colorspace=9)))
        heard = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        heard.sample_rate = 16000
        for packet in (*video.encode(None), *sound.encode(heard), *sound.encode(None)):
            made.mux(packet)
    for name, arguments, streams in (
        ("same.mp4", (), 2),
        ("slow.mp4", ("--fps", "24"), 1),
        ("any.mkv", ("--codec", "h264", "--crf", "30", "--depth", "10"), 2),
    ):
        code, said = run("in.mp4", "--to_fps", "60", "--video", str(tmp_path / name), *arguments)
        assert code == 0, said
        with av.open(str(tmp_path / name)) as container:
            assert len(container.streams) == streams
            context = container.streams.video[0].codec_context
            assert (context.colorspace, context.color_primaries, context.color_trc) == (9, 9, 16)
            assert context.pix_fmt == "yuv420p10le" and len(list(container.decode(video=0))) == 28
    code, said = run("in.mp4", "--frames", str(tmp_path / "f"), "--codec", "h264")
    assert code == 2 and "are of a video; give --video FILE" in said
