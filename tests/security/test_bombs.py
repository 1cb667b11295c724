"""Files that ask for more than they hold: each is refused by its header, or by what is counted, in one line."""

from __future__ import annotations

import io
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from runs import options
from torch import nn

from relume.core.errors import UserError
from relume.core.files.ceilings import VARIABLE
from relume.core.imaging import ceilings
from relume.core.imaging.float_formats import FLOAT_READERS, load_array
from relume.core.imaging.image_io import read_pixels
from relume.core.imaging.storage import UnreadableFile
from relume.core.options import OptionError, check, load
from relume.core.runtime import pickles
from relume.core.runtime.optimizers import build_optimizer
from relume.datasets.archives import Zip


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(VARIABLE, "")
    yield


def png(height: int, width: int, depth: int = 8) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def exr(height: int, width: int) -> bytes:
    box = struct.pack("<iiii", 0, 0, width - 1, height - 1)
    return b"\x76\x2f\x31\x01\x02\0\0\0dataWindow\0box2i\0" + struct.pack("<i", 16) + box + b"\0"


def tiff(height: int, width: int) -> bytes:
    entries = [(256, width), (257, height)]
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", 2)
        + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in entries)
        + bytes(4)
    )


def webp(height: int, width: int) -> bytes:
    body = (
        b"VP8X"
        + struct.pack("<I", 10)
        + bytes(4)
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little")
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def jpeg2000(height: int, width: int) -> bytes:
    return b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I", 22) + b"ihdr" + struct.pack(">II", height, width) + bytes(6)


HUGE = (40_000, 50_000)
HEADERS = {
    ".png": png(*HUGE, 16),
    ".bmp": b"BM" + bytes(16) + struct.pack("<ii", HUGE[1], HUGE[0]) + bytes(30),
    ".jpg": b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", *HUGE) + bytes(20) + b"\xff\xd9",
    ".tif": tiff(*HUGE),
    ".webp": webp(*HUGE),
    ".jp2": jpeg2000(*HUGE),
    ".ppm": b"P6\n# a comment\n50000 40000\n255\n",
    ".pgm": b"P2 50000 40000 255 ",
    ".pfm": b"PF\n50000 40000\n-1.0\n",
    ".hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 40000 +X 50000\n",
    ".exr": exr(*HUGE),
}


@pytest.mark.parametrize("suffix", HEADERS)
def test_pictures_are_refused_by_their_headers(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    reader = FLOAT_READERS.get(suffix)
    with pytest.raises(
        UnreadableFile, match=r"x\.\w+: its header says 40,000 x 50,000 pixels, and data.max_pixels is 268,435"
    ):
        if reader is not None:
            reader(HEADERS[suffix], f"x{suffix}")
        else:
            read_pixels(HEADERS[suffix], f"x{suffix}")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp", ".ppm", ".pgm", ".pfm", ".hdr"])
def test_real_files_say_their_sizes(suffix: str) -> None:
    if not cv2.haveImageWriter(f"x{suffix}"):
        pytest.skip(f"this OpenCV writes no {suffix}")
    image = np.full((17, 23, 3), 80, np.uint8)
    values = image.astype(np.float32) if suffix in (".pfm", ".hdr") else image[..., 0] if suffix == ".pgm" else image
    data = cv2.imencode(suffix, values)[1].tobytes()
    assert ceilings.announced(data) == (17, 23)
    lossy = [cv2.IMWRITE_WEBP_QUALITY, 50]
    assert suffix != ".webp" or ceilings.announced(cv2.imencode(suffix, image, lossy)[1].tobytes()) == (17, 23)


def test_the_ceiling_is_an_option(tmp_path: Path) -> None:
    data = cv2.imencode(".png", np.zeros((20, 20, 3), np.uint8))[1].tobytes()
    check(options(data={"max_pixels": 399}))
    with pytest.raises(UnreadableFile, match=r"data\.max_pixels is 399"):
        read_pixels(data, "x.png")
    check(options(data={"max_pixels": 400}))
    assert read_pixels(data, "x.png").shape == (20, 20, 3)
    with pytest.raises(OptionError, match=r"data\.max_pixels"):
        check(options(data={"max_pixels": 0}))


OTHERS = {
    "gif": b"GIF89a" + struct.pack("<HH", *HUGE[::-1]) + bytes(10),
    "sun": b"\x59\xa6\x6a\x95" + struct.pack(">II", *HUGE[::-1]) + bytes(24),
    "pam": b"P7\nWIDTH 50000\nHEIGHT 40000\nDEPTH 3\nMAXVAL 255\nENDHDR\n",
    "avif": b"\0\0\0\x1cftypavif" + bytes(20) + b"\0\0\0\x14ispe\0\0\0\0" + struct.pack(">II", *HUGE[::-1]) + bytes(9),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_opencv_knows_by_its_content_is_refused_whatever_it_is_called(kind: str) -> None:
    assert ceilings.announced(OTHERS[kind]) == HUGE
    with pytest.raises(UnreadableFile, match=r"pixels, and data\.max_pixels"):
        read_pixels(OTHERS[kind], "x.png")


def test_small_ones_say_their_sizes() -> None:
    for suffix in (".gif", ".avif", ".ras"):
        if cv2.haveImageWriter(f"x{suffix}"):
            data = cv2.imencode(suffix, np.full((64, 96, 3), 80, np.uint8))[1].tobytes()
            assert ceilings.announced(data) == (64, 96)


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_cut_headers_trip_nobody(cut: int) -> None:
    for data in (*HEADERS.values(), *OTHERS.values()):
        ceilings.announced(data[:cut])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("place", [2**40, 2**63, 2**64 - 1])
def test_a_bigtiff_that_points_beyond_all_memory_is_damaged(order: str, place: int) -> None:
    data = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HHHQ", 43, 8, 0, place)
    with pytest.raises(UnreadableFile, match=r"^x\.tif: cannot be decoded"):
        read_pixels(data, "x.tif")


def test_entries_of_archives_are_read_up_to_a_ceiling(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(5000))
    check(options(data={"max_unpacked_bytes": 4999}))
    with pytest.raises(
        UnreadableFile, match=r"a\.png: unpacks to 5,000 bytes or more, and data.max_unpacked_bytes is 4,999"
    ):
        Zip(str(tmp_path / "x.zip")).read("a.png")
    with pytest.raises(UnreadableFile, match="unpacks to"):  # whatever it announces
        ceilings.unpacked(lambda: io.BytesIO(bytes(5000)), 10, "x")
    check(options())
    assert Zip(str(tmp_path / "x.zip")).read("a.png") == bytes(5000)


@pytest.mark.parametrize(
    "shape", ["(1000000000000,)", "(10**12,)", "(-1,)", "(" * 500, "(1" * 200, "(99999999999999999999,)"]
)
def test_headers_of_arrays_are_one_line(shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    with pytest.raises(UnreadableFile, match=r"x\.npy: not a readable \.npy array") as caught:
        load_array(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header, "x.npy")
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ option files
def refused(path: Path, seconds: float = 30) -> str:
    began = time.process_time()
    with pytest.raises(OptionError) as caught:
        load(path)
    assert time.process_time() - began < seconds
    return str(caught.value)


def test_aliases_that_multiply(tmp_path: Path) -> None:
    lines = [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]",
        *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)),
    ]
    (tmp_path / "o.yml").write_text("\n".join(lines))
    assert "aliases" in refused(tmp_path / "o.yml")
    merges = ["a0: &a0 {k: 1}", *(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12))]
    (tmp_path / "o.yml").write_text("\n".join(merges))
    assert "aliases" in refused(tmp_path / "o.yml")


def test_files_that_are_based_on_the_same_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "0.yml").write_text("name: x\n")
    for i in range(1, 40):
        (tmp_path / f"{i}.yml").write_text(f"_base_: [{i - 1}.yml, {i - 1}.yml]\n")
    assert "model_type" in refused(tmp_path / "39.yml")
    for i in range(600):
        (tmp_path / f"n{i}.yml").write_text(f"_base_: n{i + 1}.yml\n")
    assert "_base_" in refused(tmp_path / "n0.yml")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/stdin", "."])
def test_only_plain_files_are_read(device: str, tmp_path: Path) -> None:
    (tmp_path / "o.yml").write_text(f"_base_: {device}\n")
    assert "not a" in refused(tmp_path / "o.yml")


def test_regular_expressions_that_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relume.core.runtime.optimizers.MATCHING", 0.2)
    network = nn.Sequential(nn.Linear(1, 1))
    named = [("a" * 60 + "!", p) for p in network.parameters()]
    began = time.process_time()
    with pytest.raises(UserError, match="takes for ever to match"):
        build_optimizer(named, {"type": "Adam", "lr": 1e-3, "param_groups": [{"params": "(a+)+$"}]})
    assert time.process_time() - began < 30
    assert torch.is_tensor(named[0][1])


def test_numbers_that_are_repeated_by_strides_of_zero(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(1 << 30)}, tmp_path / "w.pth")
    with pytest.raises(
        UserError, match=r"w\.pth: refused: a tensor of 1,073,741,824 numbers that are only 1, repeated"
    ):
        pickles.read(tmp_path / "w.pth")
    torch.save({"w": torch.ones(1, 3).expand(4, 3)}, tmp_path / "w.pth")
    assert pickles.read(tmp_path / "w.pth")["w"].shape == (4, 3)
