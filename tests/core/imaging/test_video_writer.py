"""Videos that are written: what is asked for, and what they keep of another video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relume.core.errors import UserError
from relume.core.imaging.video_codecs import CONTAINERS, Encoding, choose
from relume.core.imaging.video_writer import VideoWriter, look_of
from relume.datasets.videos import Video

av = pytest.importorskip("av")

HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
SAID = ((40, 120, "Hello"), (280, 360, "Grüße"))
"""Subtitles: beginning and end in milliseconds, and text."""


def film(
    path: Path, subtitles: str | None = None, times: tuple[int, ...] = tuple(range(0, 480, 40)), **tags: Any
) -> Path:
    """A film of gray levels 20, 30, ... at `times` in milliseconds, with sound, subtitles and chapters."""
    with av.open(str(path), "w") as made:
        made.metadata["title"] = "A film"
        video = made.add_stream("libx264", rate=25, options={"crf": "10"})
        video.width, video.height, video.pix_fmt = 32, 24, tags.pop("pixels", "yuv420p")
        video.codec_context.time_base = Fraction(1, 1000)
        for key, value in tags.items():
            setattr(video.codec_context, key, value)
        sound = made.add_stream("aac", rate=16000)
        sound.metadata["language"] = "fra"
        texts = None if subtitles is None else made.add_stream(subtitles)
        if texts is not None:
            texts.metadata["language"] = "deu"
            texts.codec_context.subtitle_header = HEADER
            texts.codec_context.time_base = Fraction(1, 1000)
            made.set_chapters(
                [{"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}]
            )
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 20 + 10 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            context = video.codec_context
            matrix, full = context.colorspace, context.color_range
            made.mux(video.encode(frame.reformat(format=video.pix_fmt, dst_colorspace=matrix, dst_color_range=full)))
            heard = av.AudioFrame.from_ndarray(np.full((1, 640), 0.01 * i, np.float32), format="fltp", layout="mono")
            heard.sample_rate, heard.pts = 16000, i * 640
            made.mux(sound.encode(heard))
        for stream in (video, sound):
            made.mux(stream.encode(None))
        for i, (start, end, text) in enumerate(SAID if texts is not None else ()):
            shown = av.subtitles.subtitle.SubtitleSet.create(f"{i},0,Default,,0,0,0,,{text}".encode(), 0, end - start)
            packet = texts.codec_context.encode_subtitle(shown)
            packet.stream, packet.time_base = texts, Fraction(1, 1000)
            packet.pts, packet.dts, packet.duration = start, start, end - start
            made.mux(packet)
    return path


def said(path: Path) -> list[tuple[int, int, str]]:
    """What subtitles say, and when, in milliseconds after the first frame."""
    found = []
    index = Video(str(path)).index
    first = float(Fraction(*index.tick) * index.ticks[0] * 1000)
    with av.open(str(path)) as container:
        (stream,) = container.streams.subtitles
        for packet in container.demux(stream):
            if packet.size and (shown := stream.codec_context.decode2(packet)) is not None:
                start, lasts = (float(n * packet.time_base * 1000) for n in (packet.pts, packet.duration))
                found.append((round(start - first), round(start - first + lasts), shown[0].dialogue.decode()))
    return found


def copied(source: Path, target: Path, **options: Any) -> VideoWriter:
    clip = Video(str(source))
    tick = Fraction(*clip.index.tick)
    with VideoWriter(
        target, clip.rate, timed=True, unit=tick, alike=str(source), begins=tick * clip.index.ticks[0], **options
    ) as video:
        for i, image in clip.frames():
            video.write(image(), clip.time(i))
    return video


@pytest.mark.parametrize("suffixes", [("mkv", "mp4"), ("mp4", "mkv"), ("mkv", "mkv"), ("mp4", "mp4"), ("mkv", "webm")])
def test_sound_subtitles_chapters_and_names_come_along(suffixes: tuple[str, str], tmp_path: Path) -> None:
    kind = {"mkv": "subrip", "mp4": "mov_text"}[suffixes[0]]
    source = film(tmp_path / f"in.{suffixes[0]}", kind)
    made = copied(source, tmp_path / f"out.{suffixes[1]}")
    assert made.notes == []
    assert said(made.path) == list(SAID)
    with av.open(str(made.path)) as container:
        streams = [s for s in container.streams if s.type != "data"]  # an MP4's chapters
        assert [s.type for s in streams] == ["video", "audio", "subtitle"]
        assert container.metadata["title"] == "A film"
        assert [s.metadata["language"] for s in streams[1:]] == ["fra", "deu"]
        assert [c["metadata"]["title"] for c in container.chapters()] == ["One"]
    clip = Video(str(made.path))
    assert [clip.time(i) * 1000 for i in range(len(clip))] == list(range(0, 480, 40))


def test_avi_says_what_it_does_not_hold(tmp_path: Path) -> None:
    made = copied(film(tmp_path / "in.mkv", "subrip"), tmp_path / "out.avi")
    assert "subtitle track 2 (srt) does not fit into it and is left out; .mkv holds it" in made.notes
    with av.open(str(made.path)) as container:
        assert [s.type for s in container.streams] == ["video", "audio"]
    # Sound of MP4 begins before the pictures, which must not move them.
    made = copied(film(tmp_path / "in.mp4"), tmp_path / "out.avi")
    clip = Video(str(made.path))
    assert [clip.time(i) * 1000 for i in range(len(clip))] == list(range(0, 480, 40))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_colours_are_meant_as_they_were(suffix: str, tmp_path: Path) -> None:
    tags = {
        "colorspace": 9,
        "color_range": 2,
        "color_primaries": 9,
        "color_trc": 16,
        "sample_aspect_ratio": Fraction(4, 3),
    }
    times = (0, 40, 70, 150, 151, 400)
    source = film(tmp_path / f"in.{suffix}", None, times, pixels="yuv420p10le", **tags)
    made = copied(source, tmp_path / f"out.{suffix}")
    assert look_of(str(made.path)) == look_of(str(source))
    look = look_of(str(made.path))
    assert (look.matrix, look.full, look.primaries, look.transfer, look.aspect) == (9, True, 9, 16, Fraction(4, 3))
    assert look.deep and made.bits == 16
    before, after = Video(str(source)), Video(str(made.path))
    assert [after.time(i) * 1000 for i in range(len(after))] == list(times)
    for image, again in zip(before.read(range(6)), after.read(range(6)), strict=True):
        assert np.abs(image.astype(int) - again).max() < 800


def test_rgb_and_the_usual_matrices(tmp_path: Path) -> None:
    colours = np.zeros((24, 32, 3), np.uint8)
    colours[..., 0], colours[..., 2] = 200, 60
    for name, encoding, matrix in (
        ("a.mkv", Encoding("ffv1"), (0,)),
        ("b.mkv", Encoding(pixels="yuv444p", crf=0), (5,)),
        ("c.mov", Encoding("prores"), (5, 6)),
    ):
        with VideoWriter(tmp_path / name, Fraction(25), encoding=encoding) as video:
            video.write(colours, Fraction(0))
        assert look_of(str(tmp_path / name)).matrix in matrix
        (image,) = Video(str(tmp_path / name)).read([0])
        image = image // 257 if image.dtype == np.uint16 else image
        assert np.abs(image.astype(int) - colours).max() <= (0 if matrix == (0,) else 3)


P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.3127, 0.329))
"""Red, green, blue and white of the display P3-D65."""
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
"""The same, of 1000 and 0.005 cd/m2, as x265 takes it."""


@pytest.mark.parametrize(
    ("said", "brightest"),
    [(f"master-display={DISPLAY}:max-cll=987,65", (987, 65)), ("max-cll=400,0", (400, 0)), ("", None)],
)
def test_what_is_known_of_the_light_of_hdr_comes_along(
    said: str, brightest: tuple[int, int] | None, tmp_path: Path
) -> None:
    with av.open(str(tmp_path / "hdr.mp4"), "w") as made:
        video = made.add_stream("libx265", rate=25, options={"x265-params": f"log-level=none:{said}"})
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p10le"
        for i in range(4):  # of fewer, x265 leaves times unset
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
            frame.pts = i
            made.mux(video.encode(frame.reformat(format="yuv420p10le")))
        made.mux(video.encode(None))
    light = look_of(str(tmp_path / "hdr.mp4")).light
    assert light.display == ("display" in said) and light.brightest == brightest
    if light.display:
        assert np.allclose(np.array(light.primaries, float), P3) and np.allclose(
            np.array(light.luminance, float), (0.005, 1000)
        )
    for codec in ("hevc", "h264", "av1", "vp9"):
        writer = VideoWriter(
            tmp_path / f"{codec}.mkv", Fraction(25), alike=str(tmp_path / "hdr.mp4"), encoding=Encoding(codec)
        )
        assert any("HDR10" in note for note in writer.notes) == (codec == "vp9" and said != "")
        if codec == "vp9":
            continue
        with writer:
            writer.write(np.full((64, 64, 3), 23000, np.uint16), Fraction(0))
        kept = look_of(str(tmp_path / f"{codec}.mkv")).light
        assert (kept.display, kept.brightest) == (light.display, light.brightest)
        if light.display:  # AV1 has other units
            assert np.allclose(np.array(kept.primaries, float), P3, atol=1e-5)
            assert np.allclose(np.array(kept.luminance, float), (0.005, 1000), rtol=0.02)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_h265_of_few_frames_has_their_times(count: int, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for _ in range(12):  # what x265 leaves unset is not always wrong
        with VideoWriter(tmp_path / "a.mp4", Fraction(25), encoding=Encoding("hevc")) as video:
            for i in range(count):
                video.write(image, Fraction(i, 25))
        with av.open(str(tmp_path / "a.mp4")) as container:
            assert [frame.time for frame in container.decode(video=0)] == [i / 25 for i in range(count)]


def test_codecs_depths_and_rates_by_option(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0, 65535, 64).astype(np.uint16)[None, :, None], 64, 0).repeat(3, 2)
    sizes = {}
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for name, encoding, codec, pixels in (
        ("a.mp4", Encoding(bits=10), "h264", "yuv420p10le"),
        ("b.mp4", Encoding("h265", 20, "yuv444p10le"), "hevc", "yuv444p10le"),
        ("c.mkv", Encoding("libx265", bits=12), "hevc", "yuv420p12le"),
        ("d.webm", Encoding(bits=10), "av1", "yuv420p10le"),
        ("e.mp4", Encoding(crf=40), "h264", "yuv420p"),
        ("f.mp4", Encoding(crf=4), "h264", "yuv420p"),
    ):
        with VideoWriter(tmp_path / name, Fraction(25), encoding=encoding) as video:
            for i in range(2):
                image = noise if encoding.crf in (40, 4) else ramp
                video.write(video.fitting(image), Fraction(i, 25))
        with av.open(str(tmp_path / name)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.codec.canonical_name, stream.codec_context.pix_fmt) == (codec, pixels), name
            assert len(list(container.decode(video=0))) == 2
        if encoding.bits == 10:
            found = np.unique(Video(str(tmp_path / name)).read([0])[0][:, :, 1])
            assert found.dtype == np.uint16 and len(set(found // 257)) > 48
        sizes[name] = (tmp_path / name).stat().st_size
    assert sizes["f.mp4"] > 3 * sizes["e.mp4"]


@pytest.mark.parametrize(
    ("suffix", "encoding", "message"),
    [
        (".mp4", Encoding("prores"), "--codec: .mp4 files are written with h264, hevc, "),
        (".mp4", Encoding("nonsense"), "not 'nonsense'"),
        (".mkv", Encoding("h264", 52), "--crf: must be from 0 to 51 for h264, not 52"),
        (".mkv", Encoding("ffv1", 5), "--crf: ffv1 has no constant rate factor; h264, hevc, vp9, av1 have"),
        (".mp4", Encoding(pixels="rgb24"), "--pix_fmt: h264 takes yuv420p, "),
        (".mp4", Encoding(pixels="yuv420p", bits=10), "--depth 10: yuv420p has 8 bits; leave one out"),
        (".mp4", Encoding("h264", bits=12), "--depth 12: h264 does not hold as many bits; --codec hevc does"),
        (".avi", Encoding("mjpeg", bits=10), "--depth 10: mjpeg does not hold as many bits; --codec ffv1 does"),
        (".gif", Encoding(), "'.gif' files are not written here; .avi, "),
    ],
)
def test_what_cannot_be_is_one_line(suffix: str, encoding: Encoding, message: str) -> None:
    with pytest.raises(UserError) as caught:
        choose(suffix, encoding)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_every_container_has_what_it_says(tmp_path: Path) -> None:
    image = np.full((64, 64, 3), 90, np.uint8)
    for suffix, names in CONTAINERS.items():
        for name in names:
            if suffix == ".m4v" or (suffix, name) in ((".mkv", "av1"), (".mp4", "av1")):
                continue  # as .mp4 and .webm
            path = tmp_path / f"{name}{suffix}"
            with VideoWriter(path, Fraction(24000, 1001), encoding=Encoding(name)) as video:
                for i in range(3):
                    video.write(image, i * Fraction(1001, 24000))
            clip = Video(str(path))
            assert (len(clip), clip.rate) == (3, Fraction(24000, 1001)), path
            assert abs(float(clip.read([2])[0].mean()) / (257 if name == "prores" else 1) - 90) < 2, path


def test_frames_that_an_encoder_refuses_are_one_line_and_leave_no_file(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.webm", Fraction(25), encoding=Encoding("av1"))
    with pytest.raises(UserError, match=r"a\.webm: libsvtav1 cannot write frames of 3 x 3") as caught, writer as video:
        video.write(np.zeros((3, 3, 3), np.uint8), Fraction(0))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
