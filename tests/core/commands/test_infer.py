"""relume infer on small files of every kind: what comes out is what `relume.load` gives, in the input's own format."""

from __future__ import annotations

import io
import json
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from clips import encode, turned

import relume
from relume.archs import build_network
from relume.core.cli import main
from relume.core.imaging.float_formats import decode_exr
from relume.core.imaging.image_io import imwrite
from relume.core.inference import memory
from relume.core.options import check, description
from relume.core.runtime import checkpoint
from relume.core.use import enhancer, results

NETWORKS = {
    "x2": {"type": "MSRResNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2},
    "gray": {"type": "MSRResNet", "num_in_ch": 1, "num_out_ch": 1, "num_feat": 4, "num_block": 1, "upscale": 2},
    "gray_checked": {
        **{"type": "Restormer", "inp_channels": 1, "out_channels": 1, "dim": 8, "num_blocks": [1] * 4},
        **{"num_refinement_blocks": 1, "heads": [1] * 4},
    },
    "pools": {"type": "NAFNet", "width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]},
}


def weights(name: str, folder: Path) -> str:
    torch.manual_seed(0)
    block = NETWORKS[name]
    opt = {
        "name": name,
        "model_type": "SRModel",
        "scale": block.get("upscale", 1),
        "network_g": block,
        "datasets": {"test": {"type": "SingleImageDataset", "dataroot_lq": "x"}},
    }
    path = folder / f"{name}.pth"
    checkpoint.save(
        path, {"params": build_network(block).state_dict(), "relume": description.weights_description(check(opt))}
    )
    return str(path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights("x2", tmp_path)
    return tmp_path


@pytest.fixture
def infer(here, capfd):
    def call(*arguments: str, net: str = "x2.pth") -> tuple[int, str]:
        code = main(["infer", *arguments, "--weights", net, "--device", "cpu"])
        printed = capfd.readouterr()
        return code, printed.out + printed.err

    return call


def picture(height: int = 10, width: int = 14, channels: int = 3, kind: type = np.uint8) -> np.ndarray:
    values = np.random.RandomState(height * width * channels).randint(0, np.iinfo(kind).max, (height, width, channels))
    return values.astype(kind)


def raw(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_every_kind_of_picture_keeps_its_own_kind(infer, here):
    colour, deep = picture(), picture(kind=np.uint16)
    files = {
        "rgb.png": colour,
        "deep.png": deep,
        "deep.tif": deep,
        "gray.png": colour[..., 0],
        "deep_gray.png": deep[..., 0],
        "rgba.png": picture(channels=4),
        "photo.jpg": colour,
        "gray.jpg": colour[..., 0],
        "web.webp": colour,
        "map.bmp": colour,
        "night/rgb.ppm": colour,
    }
    for name, image in files.items():
        (here / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(here / "in" / name), image)
    imwrite(here / "in/float.exr", colour.astype(np.float32) / 100, 32)
    (here / "in/damaged.png").write_bytes((here / "in/rgb.png").read_bytes()[:100])
    (here / "in/notes.txt").write_text("no picture")
    code, said = infer("-i", "in", "-o", "out")
    assert code == 2 and said.splitlines()[-1] == "1 of 13 inputs could not be used: in/damaged.png"
    assert sum("params" in line for line in said.splitlines()) == 1
    assert "x2.pth: MSRResNet, 1,259 parameters, scale 2, params\n" in said
    made = sorted(str(p.relative_to(here / "out")) for p in (here / "out").rglob("*") if p.is_file())
    assert made == sorted([*files, "float.exr"])
    net = relume.load("x2.pth", device="cpu")
    for name, image in files.items():
        result = raw(here / "out" / name)
        want = (20, 28, *image.shape[2:]) if image.ndim == 3 else (20, 28)
        assert result.dtype == image.dtype and result.shape == want, name
        if not name.endswith(".jpg") and image.ndim == 3:
            expected = net(np.ascontiguousarray(image[..., 2::-1]))[..., ::-1]
            np.testing.assert_array_equal(result[..., :3], expected, err_msg=name)
    jpeg = (here / "out/gray.jpg").read_bytes()
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_UNCHANGED).ndim == 2
    floats = decode_exr((here / "out/float.exr").read_bytes(), "")
    assert floats.shape == (20, 28, 3) and floats.max() > 1


def test_opacity_is_kept_as_it_is_and_enlarged_with_the_picture(infer, here):
    image = picture(channels=4, kind=np.uint16)
    image[..., 3] = np.linspace(0, 65535, 14).astype(np.uint16)
    cv2.imwrite("a.png", image)
    weights("pools", here)
    assert infer("-i", "a.png", "-o", "same.png", net="pools.pth")[0] == 0
    np.testing.assert_array_equal(raw(here / "same.png")[..., 3], image[..., 3])
    assert infer("-i", "a.png", "-o", "twice.png")[0] == 0
    wide = raw(here / "twice.png")[..., 3].astype(float)
    assert wide.shape == (20, 28) and np.abs(np.diff(wide[5])).max() < 2800 and wide[:, -1].min() > 63000
    code, said = infer("-i", "a.png", "-o", "flat.jpg")
    assert code == 0 and raw(here / "flat.jpg").shape == (20, 28, 3)
    assert "flat.jpg: its opacity is dropped, which .jpg does not hold" in said


def test_opacity_of_gray_tiff_and_of_jpeg_2000(infer, here):
    """OpenCV leaves out the former when it reads."""
    from PIL import Image

    image = picture(40, 48, channels=4)
    Image.fromarray(image[..., [0, 3]]).save("gray.tif", compression="tiff_lzw")
    imwrite(here / "a.jp2", image[..., [2, 1, 0, 3]])
    weights("pools", here)
    for name in ("gray.tif", "a.jp2"):
        assert infer("-i", name, "-o", f"out_{name}", net="pools.pth")[0] == 0
        made = raw(here / f"out_{name}")
        assert made.shape == (40, 48, 4)
        np.testing.assert_array_equal(made[..., 3], image[..., 3])
    assert (np.ptp(raw(here / "out_gray.tif")[..., :3], axis=2) == 0).all()


def test_opacity_of_floats_is_kept_in_files_of_floats(infer, here):
    alpha = np.repeat(np.linspace(0, 1, 14, dtype=np.float32)[None], 10, axis=0)
    colour = picture().astype(np.float32) / 100
    weights("pools", here)
    for name in ("rgb.exr", "gray.exr", "rgb.tif"):
        planes = colour[..., :1] if name == "gray.exr" else colour
        imwrite(here / name, np.dstack([planes, alpha]), 32)
        for net, size in (("pools.pth", (10, 14)), ("x2.pth", (20, 28))):
            code, said = infer("-i", name, "-o", f"out_{name}", "--force", net=net)
            assert code == 0, said
            data = (here / f"out_{name}").read_bytes()
            made = decode_exr(data, "", opacity=True) if name.endswith("exr") else raw(here / f"out_{name}")
            assert made.shape == (*size, planes.shape[2] + 1) and made.dtype == np.float32, name
            if net == "pools.pth":
                np.testing.assert_array_equal(made[..., -1], alpha, err_msg=name)
            else:
                assert np.abs(made[..., -1].mean() - 0.5) < 0.01 and np.diff(made[5, :, -1]).min() > -0.01
    assert infer("-i", "rgb.exr", "-o", "out.hdr", net="pools.pth")[0] == 0
    assert infer("-i", "rgb.exr", "-o", "whole.png", net="pools.pth")[0] == 0
    assert np.abs(raw(here / "whole.png")[..., 3] / 65535 - alpha).max() < 1e-4


def test_exif_orientation_is_followed(infer, here):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("turned.jpg", "turned.png"):
        Image.fromarray(picture(8, 12)).save(name, exif=exif)
        assert infer("-i", name, "-o", "out")[0] == 0
        with Image.open(here / "out" / name) as result:
            assert result.size == (16, 24) and result.getexif().get(0x0112, 1) == 1


def test_tiles_give_what_the_whole_gives_and_say_where_they_cannot(infer, here):
    cv2.imwrite("a.png", picture(150, 203))
    for name, flags in (("whole", ("--tile", "0")), ("tiles", ("--tile", "48"))):
        code, said = infer("-i", "a.png", "-o", f"{name}.png", *flags)
        assert code == 0 and "tiles do not" not in said
    assert np.abs(raw(here / "whole.png").astype(int) - raw(here / "tiles.png")).max() <= 1
    weights("pools", here)
    code, said = infer("-i", "a.png", "-o", "pooled.png", "--tile", "48", net="pools.pth")
    assert code == 0 and "NAFNet: tiles do not give what the whole picture gives (global pooling)" in said


def test_what_memory_holds_is_found_and_halved_when_that_was_wrong(infer, here, monkeypatch):
    cv2.imwrite("a.png", picture(150, 203))
    assert infer("-i", "a.png", "-o", "whole.png")[0] == 0
    sizes: list[int] = []
    before = enhancer.Enhancer._call

    def small_machine(self, batch, tile, overlap):
        side = min(tile or 10**6, max(batch.shape[-2:]))
        if side > 130:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        sizes.append(side)
        return before(self, batch, tile, overlap)

    monkeypatch.setattr(enhancer.Enhancer, "_call", small_machine)
    code, said = infer("-i", "a.png", "-o", "halved.png")
    assert code == 0 and "memory was not enough for a picture of 203 x 150; in tiles of 101 from here on" in said
    assert np.abs(raw(here / "whole.png").astype(int) - raw(here / "halved.png")).max() <= 1
    monkeypatch.setattr(enhancer.Enhancer, "_call", before)
    monkeypatch.setattr(memory, "free", lambda device: 2_000_000)
    code, said = infer("-i", "a.png", "-o", "budget.png")
    assert code == 0 and np.abs(raw(here / "whole.png").astype(int) - raw(here / "budget.png")).max() <= 1
    code, said = infer("-i", "a.png", "-o", "asked.png", "--tile", "0")
    assert code == 0 and "a picture of 203 x 150 as a whole would need about" in said
    monkeypatch.setattr(memory, "free", lambda device: 10)
    code, said = infer("-i", "a.png", "-o", "none.png", "--tile", "0")
    assert code == 2 and "memory is not enough even for tiles of" in said and not Path("none.png").exists()


def test_nothing_is_overwritten_and_an_interrupted_run_goes_on(infer, here, monkeypatch):
    for name in "abc":
        cv2.imwrite(f"{name}.png", picture(8, 8 + ord(name) % 5))
    Path("list.txt").write_text("a.png\n# a comment\nb.png\nc.png\n")
    write = results.write_bytes

    def interrupted(path, data):
        if Path(path).name == "c.png":
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(results, "write_bytes", interrupted)
    assert infer("-i", "list.txt", "-o", "out")[0] != 0
    monkeypatch.setattr(results, "write_bytes", write)
    times = {p.name: p.stat().st_mtime_ns for p in Path("out").iterdir()}
    assert sorted(times) == ["a.png", "b.png"]
    code, said = infer("-i", "list.txt", "-o", "out")
    assert code == 0 and "2 of 3 results are there from an earlier run" in said and "1 of 3 made" in said
    assert all((here / "out" / n).stat().st_mtime_ns == t for n, t in times.items())
    code, said = infer("-i", "list.txt", "-o", "out")
    assert code == 2 and "all 3 results are there already; --force makes them again" in said
    code, said = infer("-i", "list.txt", "-o", "out", "--tile", "0")
    assert code == 2 and "a.png and 2 more: there already; --force overwrites" in said
    assert (
        infer("-i", "list.txt", "-o", "out", "--force", "--outscale", "1")[0] == 0
        and raw(here / "out/a.png").shape[0] == 8
    )
    cv2.imwrite("d.png", picture(8, 8))
    assert infer("-i", "?.png", "-o", "other")[0] == 0
    cv2.imwrite("e.png", picture(8, 8))
    code, said = infer("-i", "?.png", "-o", "other")
    assert code == 0 and "1 of 5 made" in said
    assert sorted(p.name for p in Path("out").iterdir()) == ["a.png", "b.png", "c.png"]


def test_results_beside_or_inside_the_inputs(infer, here):
    cv2.imwrite("in.png", picture())
    Path("in").mkdir()
    Path("in.png").rename("in/a.png")
    code, said = infer("-i", "in", "-o", "in", "--force")
    assert code == 2 and "would replace the input itself" in said
    assert infer("-i", "in", "-o", "in/out")[0] == 0
    cv2.imwrite("in/b.png", picture())
    assert infer("-i", "in", "-o", "in/out")[0] == 0
    assert sorted(p.name for p in Path("in").rglob("*.png")) == ["a.png", "a.png", "b.png", "b.png"]
    assert infer("-i", "in/a.png", "-o", "in", "--suffix", "_x2", "--format", "tiff")[0] == 0
    assert raw(here / "in/a_x2.tiff").shape == (20, 28, 3)


def test_a_batch_an_ensemble_and_one_channel(infer, here):
    for name in "abc":
        cv2.imwrite(f"in_{name}.png", picture(8, 12) // (ord(name) - 96))
    assert infer("-i", "in_*.png", "-o", "one")[0] == 0
    assert infer("-i", "in_*.png", "-o", "two", "--batch", "2")[0] == 0
    for name in "abc":
        apart = raw(here / f"one/in_{name}.png").astype(int) - raw(here / f"two/in_{name}.png")
        assert np.abs(apart).max() <= 1
    code, _ = infer("-i", "in_a.png", "-o", "e.png", "--self-ensemble")
    x = torch.from_numpy(raw(here / "in_a.png")[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
    net = relume.load("x2.pth", device="cpu")
    turned = [net(torch.rot90(v, k, (2, 3))) for v in (x, x.flip(3)) for k in range(4)]
    back = [torch.rot90(y, -(k % 4), (2, 3)) for k, y in enumerate(turned)]
    mean = (sum(back[:4]) + sum(y.flip(3) for y in back[4:])) / 8
    expected = (mean[0].permute(1, 2, 0).numpy() * 255).clip(0, 255).round()
    assert code == 0 and np.abs(raw(here / "e.png")[..., ::-1] - expected).max() <= 1
    for gray in ("gray", "gray_checked"):  # torch refuses three channels, or the network itself does
        weights(gray, here)
        assert infer("-i", "in_a.png", "-o", f"{gray}.png", net=f"{gray}.pth")[0] == 0
        plane = relume.load(f"{gray}.pth", device="cpu")(x[0, 1:2])[0].numpy()
        assert np.abs(raw(here / f"{gray}.png")[..., 1] - (plane * 255).clip(0, 255).round()).max() <= 1
    assert infer("-i", "in_a.png", "-o", "half.png", "--dtype", "bf16")[0] == 0


def test_a_pipe(here, monkeypatch, capsys):
    image = picture(kind=np.uint16)
    out = io.BytesIO()
    sent = cv2.imencode(".png", image)[1].tobytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False, buffer=io.BytesIO(sent)))
    monkeypatch.setattr(
        sys, "stdout", SimpleNamespace(isatty=lambda: False, buffer=out, write=lambda s: None, flush=lambda: None)
    )
    assert main(["infer", "-i", "-", "-o", "-", "--weights", "x2.pth", "--device", "cpu"]) == 0
    result = cv2.imdecode(np.frombuffer(out.getvalue(), np.uint8), cv2.IMREAD_UNCHANGED)
    expected = relume.load("x2.pth", device="cpu")(np.ascontiguousarray(image[..., ::-1]))
    np.testing.assert_array_equal(result[..., ::-1], expected)
    assert "MSRResNet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-i", "none.png", "-o", "o"), "none.png: there is no such file or folder."),
        (("-i", "*.gif", "-o", "o"), "*.gif: no file matches"),
        (("-i", "empty", "-o", "o"), "empty: has no pictures or clips"),
        (("-i", "a.png", "-o", "o", "--tile", "-1"), "--tile: must be at least 0, not -1"),
        (("-i", "a.png", "-o", "o", "--batch", "0"), "--batch: must be at least 1"),
        (("-i", "a.png", "-o", "o", "--outscale", "0"), "--outscale: must be above 0"),
        (("-i", "a.png", "-o", "o", "--format", "gif"), "--format: 'gif' is not written here"),
        (("-i", "a.png", "-o", "o", "--format", "mp4"), "--format: mp4 is for clips, and a.png is a picture"),
        (("-i", "a.png", "-o", "o", "--depth", "32", "--format", "png"), "--depth 32: png holds no floats"),
        (("-i", "bad.png", "-o", "o"), "bad.png: cannot be decoded"),
        (("-i", "a.png", "-o", "o", "--depth", "10"), "--depth 10: pictures have 8 or 16 bits, or floats of 32"),
        (("-i", "a.png", "-o", "o", "--crf", "10"), "--crf: is for clips, and the input has none"),
        (("-i", "a.mp4", "-o", "o", "--depth", "16"), "--depth 16: clips have 8, 10 or 12 bits"),
        (("-i", "a.mp4", "-o", "o", "--codec", "h263"), "--codec: .mp4 files are written with h264, hevc, "),
        (("-i", "a.mp4", "-o", "o", "--crf", "99"), "--crf: must be from 0 to 51 for h264, not 99"),
        (("-i", "a.png", "-o", "bad.png/o"), "bad.png is a file, not a folder"),
        (("-i", "a.png", "-o", "/proc/o/a.png"), "/proc/o/a.png: cannot be written: "),
        (
            ("-i", "*.png", "-o", "o.png"),
            "-o: o.png is the name of a file; for results that are pictures, give a folder",
        ),
        (
            ("-i", "a.png", "-o", "o.mp4"),
            "-o: o.mp4 is the name of a file; for results that are pictures, give a folder",
        ),
    ],
)
def test_mistakes_are_one_line(infer, here, arguments, message):
    cv2.imwrite("a.png", picture())
    Path("bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Path("empty").mkdir()
    Path("a.mp4").touch()
    code, said = infer(*arguments)
    assert code == 2 and message in said.splitlines()[-1] and not Path("o").exists()


def test_a_clip_keeps_its_frames_rate_and_sound(infer, here):
    av = pytest.importorskip("av")
    with av.open("in.mp4", "w") as made:
        video = made.add_stream("mpeg4", rate=Fraction(24000, 1001))
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        sound = made.add_stream("aac", rate=16000)
        for i in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 20 * i, np.uint8), format="rgb24")
            made.mux(video.encode(frame))
            wave = (np.sin(np.arange(667) * (0.05 + i / 100)) * 0.5).astype(np.float32)[None]
            heard = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            heard.sample_rate, heard.pts = 16000, i * 667
            made.mux(sound.encode(heard))
        made.mux(video.encode(None))
        made.mux(sound.encode(None))
    code, said = infer("-i", "in.mp4", "-o", "out", "--batch", "5")
    assert code == 0 and "1 of 1 made" in said
    heard = []
    for name in ("in.mp4", "out/in.mp4"):
        with av.open(name) as clip:
            frames = [f.to_ndarray(format="rgb24") for f in clip.decode(video=0)]
            rate = clip.streams.video[0].average_rate
        with av.open(name) as clip:
            heard.append(np.concatenate([f.to_ndarray() for f in clip.decode(audio=0)], axis=1))
        assert len(frames) == 12 and rate == Fraction(24000, 1001), name
    assert frames[0].shape == (48, 64, 3)
    np.testing.assert_array_equal(heard[0], heard[1])
    expected = relume.load("x2.pth", device="cpu")(np.full((24, 32, 3), 200, np.uint8))
    assert abs(frames[10].mean() - expected.mean()) < 6
    code, said = infer("-i", "in.mp4", "-o", "out.webm")
    assert code == 0
    with av.open("out.webm") as clip:
        assert len(list(clip.decode(video=0))) == 12 and len(clip.streams.audio) == 1
    turned(encode(Path("turned.mp4"), 12, "mpeg4", rate=Fraction(24000, 1001)))
    code, said = infer("-i", "turned.mp4", "-o", "out.mkv", "--codec", "hevc", "--depth", "10", "--crf", "12")
    assert code == 0, said
    with av.open("out.mkv") as clip:
        stream = clip.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("hevc", "yuv420p10le")
        assert (stream.height, stream.width, stream.average_rate) == (256, 64, Fraction(24000, 1001))
        assert [f.rotation for f in clip.decode(video=0)] == [0] * 12


def clip_weights(folder: Path, block: dict[str, Any]) -> str:
    values = {
        **{"name": "clips", "model_type": "VideoModel", "scale": 4, "network_g": block},
        "datasets": {"test": {"type": "SingleImageDataset", "dataroot_lq": "x"}},
    }
    torch.manual_seed(0)
    path = folder / f"{block['type']}.pth"
    checkpoint.save(
        path, {"params": build_network(block).state_dict(), "relume": description.weights_description(check(values))}
    )
    return str(path)


EDVR = {"type": "EDVR", "num_feat": 4, "deformable_groups": 2, "num_frame": 3, "num_extract_block": 0}


@pytest.mark.parametrize(
    "block",
    [{"type": "BasicVSR", "num_feat": 2, "num_block": 0, "flow_levels": 1}, {**EDVR, "num_reconstruct_block": 0}],
    ids=str,
)
def test_a_network_of_clips_sees_the_frames_around_but_not_across_cuts(infer, here, monkeypatch, block):
    from relume.core.use.pictures import Picture

    path = clip_weights(here, block)
    net = relume.load(path, device="cpu")
    made = enhancer.Enhancer(net)
    rng = np.random.default_rng(0)
    scenes = [
        np.clip(rng.integers(0, 60, (n, 8, 12, 3)) + base, 0, 255).astype(np.uint8) for n, base in ((5, 0), (2, 190))
    ]
    pictures = [Picture(frame, None, False, ".png", 8) for scene in scenes for frame in scene]
    results = np.stack(list(made.clip(iter(pictures))))
    expected = []
    for scene in scenes:
        clip = torch.from_numpy(scene).permute(0, 3, 1, 2)[None].float() / 255
        with torch.no_grad():
            if made.takes == 0:
                expected += list(net.model.networks["g"](clip)[0])
                continue
            last = len(scene) - 1
            for i in range(len(scene)):  # beyond an end, the frame beyond the other end of the window
                around = [i - 1 if i else min(2, last), i, i + 1 if i < last else max(i - 2, 0)]
                around = around if last >= 2 else [max(i - 1, 0), i, min(i + 1, last)]
                expected.append(net.model.networks["g"](clip[:, around])[0])
    np.testing.assert_allclose(results, torch.stack(expected).permute(0, 2, 3, 1).numpy(), atol=1e-5)
    monkeypatch.setattr(enhancer, "WINDOW", 3)  # each frame of EDVR has its neighbours all the same
    again = np.stack(list(made.clip(iter(pictures))))
    assert again.shape == results.shape and (made.takes == 0 or np.allclose(again, results, atol=1e-5))
    still = net(scenes[0][0])
    assert still.shape == (32, 48, 3)
    if made.takes == 0:
        writer = cv2.VideoWriter("in.avi", cv2.VideoWriter_fourcc(*"MJPG"), 25, (16, 16))
        for level in range(7):
            writer.write(np.full((16, 16, 3), 20 * level, np.uint8))
        writer.release()
        code, said = infer("-i", "in.avi", "-o", "out", net=path)
        assert code == 0 and "1 of 1 made" in said
        (result,) = (here / "out").iterdir()
        capture = cv2.VideoCapture(str(result))
        frames = [capture.read()[1] for _ in range(7)]
        assert all(frame is not None and frame.shape == (64, 64, 3) for frame in frames)
        assert not capture.read()[0]


def test_a_folder_of_frames_is_a_clip_to_a_network_of_clips(infer, here):
    path = clip_weights(here, {"type": "BasicVSR", "num_feat": 2, "num_block": 0, "flow_levels": 1})
    frames = np.random.default_rng(0).integers(0, 200, (5, 8, 12, 3)).astype(np.uint8)
    names = [f"f_{n}.png" for n in (1, 2, 3, 10, 11)]
    for name, frame in zip(names, frames, strict=True):
        imwrite(here / "in" / name, frame)
    imwrite(here / "in/other/0.png", frames[0][:6])
    (here / "in/f_4.png").write_bytes(b"no picture")
    code, said = infer("-i", "in", "-o", "out", net=path)
    assert code == 2 and "1 of 7 inputs could not be used: in/f_4.png" in said and "6 of 7 made" in said
    net = relume.load(path, device="cpu").model.networks["g"]
    with torch.no_grad():
        expected = net(torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float() / 255)[0]
    whole = (expected.clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()
    for name, image in zip(names, whole, strict=True):
        assert np.abs(raw(here / "out" / name)[..., ::-1] - image).max() <= 0.51
    assert raw(here / "out/other/0.png").shape == (24, 48, 3)
    (here / "in/f_4.png").unlink()
    first = raw(here / "out/f_2.png")
    (here / "out/f_2.png").unlink()
    code, said = infer("-i", "in", "-o", "out", net=path)  # goes on, and f_2 has its neighbours
    assert code == 0 and "5 of 6 results are there" in said
    np.testing.assert_array_equal(raw(here / "out/f_2.png"), first)


def test_an_adapted_entry_is_said(infer, here):
    """What was loaded is one line, with the average where there is one."""
    net = build_network(NETWORKS["x2"])
    checkpoint.save(Path("foreign.pth"), {"params": net.state_dict(), "params_ema": net.state_dict()})
    cv2.imwrite("a.png", picture())
    Path("o.yml").write_text(
        json.dumps({"name": "x", "model_type": "SRModel", "scale": 2, "network_g": NETWORKS["x2"]})
    )
    code, said = infer("-i", "a.png", "-o", "o", "-opt", "o.yml", net="foreign.pth")
    assert code == 0 and "foreign.pth: MSRResNet, 1,259 parameters, scale 2, params_ema\n" in said
