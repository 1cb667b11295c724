"""Pictures whose files say what their samples mean, by convention and format."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import openexr_files as openexr
import pytest
from PIL import Image

from relume.core.imaging.conventions import shown_size
from relume.core.imaging.float_formats import REC_709, luminance_weights
from relume.core.imaging.image_io import imread, read_pixels
from relume.core.imaging.storage import UnreadableFile
from relume.datasets.radiance import RADIANCE_READERS

ORIENTATION = 0x0112
RNG = np.random.default_rng(14)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
SHOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
"""What a viewer shows of an image with an orientation (Exif 2.32, table 6)."""


def rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3]


def pil(image: np.ndarray, kind: str, orientation: int) -> bytes:
    buffer = io.BytesIO()
    if kind == "TIFF":
        Image.fromarray(image).save(buffer, kind, tiffinfo={ORIENTATION: orientation})
    else:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        lossless = {"lossless": True} if kind == "WEBP" else {}
        Image.fromarray(image).save(buffer, kind, exif=exif.tobytes(), **lossless)
    return buffer.getvalue()


ALPHA = np.dstack([COLOUR, np.full((5, 7), 255, np.uint8)])
KINDS = [
    *[(kind, image) for kind in ("PNG", "TIFF") for image in (COLOUR, GRAY, DEEP)],
    ("PNG", ALPHA),
    ("WEBP", COLOUR),
    ("WEBP", ALPHA),
]


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize(("kind", "image"), KINDS, ids=[f"{k}-{i.dtype}-{i.ndim}" for k, i in KINDS])
def test_pictures_are_upright(kind: str, image: np.ndarray, orientation: int) -> None:
    data = pil(image, kind, orientation)
    found = read_pixels(data, f"x.{kind.lower()}")
    assert np.array_equal(found, rgb(SHOWN[orientation](image)))
    assert shown_size(data[:4096]) in (None, found.shape[:2])


@pytest.mark.parametrize("orientation", SHOWN)
def test_a_jpeg_and_a_png_of_the_same_orientation_fit(orientation: int) -> None:
    smooth = np.linspace(0, 255, 16 * 24 * 3).reshape(16, 24, 3).astype(np.uint8)
    files = [pil(smooth, kind, orientation) for kind in ("JPEG", "PNG")]
    lossy, exact = (read_pixels(data, "x.png").astype(int) for data in files)
    assert lossy.shape == exact.shape
    assert {shown_size(data) for data in files} == {exact.shape[:2]}  # what headers say before a training
    assert np.abs(lossy - exact).mean() < 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_turns_nothing(orientation: int) -> None:
    assert np.array_equal(read_pixels(pil(COLOUR, "PNG", orientation), "x.png"), COLOUR)


@pytest.mark.parametrize("cut", [1, 4, 9, 17])
def test_a_cut_exif_block_turns_nothing(cut: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, "PNG", exif=exif.tobytes()[: 6 + cut])
    assert np.array_equal(read_pixels(buffer.getvalue(), "x.png"), COLOUR)


# ------------------------------------------------------------------ Netpbm
def netpbm(image: np.ndarray, maxval: int, plain: bool, comment: bytes = b"") -> bytes:
    kind = {(False, 2): b"P5", (False, 3): b"P6", (True, 2): b"P2", (True, 3): b"P3"}[plain, image.ndim]
    head = kind + b"\n" + comment + f"{image.shape[1]} {image.shape[0]}\n{maxval}\n".encode()
    if plain:
        return head + b"\n".join(b" ".join(str(v).encode() for v in row.ravel()) for row in image) + b"\n"
    return head + image.astype(">u2" if maxval > 255 else np.uint8).tobytes()


@pytest.mark.parametrize("plain", [False, True], ids=["raw", "plain"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)], ids=["gray", "colour"])
@pytest.mark.parametrize("maxval", [1, 15, 100, 254, 255, 256, 1023, 4095, 65534, 65535])
def test_maxval_is_white(maxval: int, shape: tuple[int, ...], plain: bool) -> None:
    image = RNG.integers(0, maxval + 1, shape)
    image.flat[0] = maxval
    found = imread(netpbm(image, maxval, plain, b"# a camera's\n"), "x.ppm")
    assert np.allclose(found, rgb(image) / maxval, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"P5 7 5 1023\n" + bytes(69), "truncated"),
        (b"P2 7 5 1023\n" + b"1 " * 34, "truncated"),
        (b"P5 7", "not in its header"),
        (b"P5 0 5 255\n", "0x5"),
        (b"P5 1 1 65536\n\0\0\0\0", "maxval 65536"),
        (b"P5 1 1 100\n\xff", "255"),
        (b"P2 2 1 100\n1 x", "not all numbers"),
    ],
    ids=["raw", "plain", "header", "empty", "maxval", "above", "words"],
)
def test_a_damaged_netpbm_file_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableFile, match=rf"x\.pgm: .*{reason}"):
        read_pixels(data, "x.pgm")


def pam(image: np.ndarray, maxval: int, kind: str) -> bytes:
    height, width, depth = image.shape
    sizes = f"WIDTH {width}\nHEIGHT {height}\nDEPTH {depth}\nMAXVAL {maxval}\nTUPLTYPE {kind}"
    return f"P7\n# made here\n{sizes}\nENDHDR\n".encode() + image.astype(">u2" if maxval > 255 else np.uint8).tobytes()


@pytest.mark.parametrize("maxval", [1, 100, 255, 1023, 65535])
@pytest.mark.parametrize(("channels", "kind"), [(1, "GRAYSCALE"), (2, "GRAYSCALE_ALPHA"), (3, "RGB"), (4, "RGB_ALPHA")])
def test_the_same_holds_for_pam(maxval: int, channels: int, kind: str) -> None:
    image = RNG.integers(0, maxval + 1, (5, 7, channels))
    seen = imread(pam(image, maxval, kind), "a.pnm")
    colours = image[..., :3] if channels > 2 else image[..., [0, 0, 0]]
    assert np.abs(seen - colours / maxval).max() < 1e-6
    for damaged in (pam(image, maxval, kind)[:-1], pam(image, 70000, kind), b"P7\nWIDTH 3\nENDHDR\n" + bytes(99)):
        with pytest.raises(UnreadableFile, match=r"a\.pnm: "):
            read_pixels(damaged, "a.pnm")


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_the_precision_of_jpeg_2000_is_white(bits: int) -> None:
    """A lossless file, whose samples are shifted as another precision shifts them, and which is then said to have that."""
    image = RNG.integers(0, 2**bits, (32, 40))
    whole = 8 if bits == 8 else 16
    stored = (image + 2 ** (whole - 1) - 2 ** (bits - 1)).astype(np.uint8 if whole == 8 else np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "JPEG2000", irreversible=False)
    data = bytearray(buffer.getvalue())
    data[data.find(b"ihdr") + 14] = bits - 1
    size = data.find(b"\xff\x4f\xff\x51") + 42
    data[size] = bits - 1
    assert np.abs(imread(bytes(data), "a.jp2") - image[..., None] / (2**bits - 1)).max() < 1e-6
    data[size] = 128 + bits - 1
    with pytest.raises(UnreadableFile, match=r"a\.jp2: "):
        read_pixels(bytes(data), "a.jp2")


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
def test_of_several_pictures_the_first_is_read_and_that_is_said(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    first, *others = [Image.fromarray(np.full((4, 8, 3), value, np.uint8)) for value in (10, 20, 30)]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    for more in ({}, {"save_all": True, "append_images": others}):
        buffer = io.BytesIO()
        first.save(buffer, kind, **more, **lossless)
        assert (read_pixels(buffer.getvalue(), f"{kind}{len(more)}/a.{kind.lower()}") == 10).all()
    (line,) = [r.message for r in caplog.records]
    assert line.startswith(f"{kind}2: has files of several pictures")


# ------------------------------------------------------------------ TIFF
def tiff(image: np.ndarray, photometric: int, order: str = "<") -> bytes:
    """One strip, not compressed."""
    samples = image.astype(image.dtype.newbyteorder(order)).tobytes()
    height, width = image.shape[:2]
    kind = 3 if image.dtype.kind == "f" else 1
    channels = image.shape[2] if image.ndim == 3 else 1
    bits = 8 * image.dtype.itemsize
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, channels)]
    entries += [(278, height), (279, len(samples)), (339, kind)]
    out = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8 + len(samples)) + samples
    out += struct.pack(order + "H", len(entries))
    for tag, value in entries:
        count = channels if tag in (258, 339) else 1
        if count > 2:
            value = 8 + len(samples) + 2 + 12 * len(entries) + 4 + (0 if tag == 258 else 2 * channels)
        packed = (
            struct.pack(order + "I", value) if count > 2 or tag in (273, 279) else struct.pack(order + "HH", value, 0)
        )
        out += struct.pack(order + "HHI", tag, 4 if tag in (273, 279) else 3, count) + packed
    return (
        out
        + bytes(4)
        + struct.pack(order + f"{channels}H", *[bits] * channels)
        + struct.pack(order + f"{channels}H", *[kind] * channels)
    )


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("photometric", [0, 1], ids=["white_is_zero", "black_is_zero"])
@pytest.mark.parametrize("image", [GRAY, DEEP], ids=["8", "16"])
@pytest.mark.parametrize("reader", ["pictures", "radiance"])
def test_white_is_zero_is_no_negative(image: np.ndarray, photometric: int, order: str, reader: str) -> None:
    readers = {"readers": RADIANCE_READERS} if reader == "radiance" else {}
    found = read_pixels(tiff(image, photometric, order), "x.tif", **readers)
    assert np.array_equal(found[..., 0], image if photometric else np.iinfo(image.dtype).max - image)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("photometric", [0, 1])
def test_tiff_of_fewer_bits_spans_them(bits: int, photometric: int) -> None:
    image = RNG.integers(0, 2**bits, (4, 8))
    image[0, 0] = 2**bits - 1
    packed = int("".join(f"{v:0{bits}b}" for v in image.ravel()), 2).to_bytes(4 * bits, "big")
    data = tiff(np.frombuffer(packed, np.uint8).reshape(4, bits), photometric)
    for number, old, new in ((256, bits, 8), (258, 8, bits)):  # width, bits
        before, after = (struct.pack("<HHIH", number, 3, 1, value) for value in (old, new))
        assert data.count(before) == 1
        data = data.replace(before, after)
    shown = image if photometric else 2**bits - 1 - image
    assert np.abs(imread(data, "a.tif") - shown[..., None] / (2**bits - 1)).max() < 1e-6


def test_kinds_of_tiff_that_are_not_read_are_named() -> None:
    with pytest.raises(
        UnreadableFile, match=r"of a kind that is not read: 2 samples of 8 bits, PhotometricInterpretation 1$"
    ):
        read_pixels(tiff(np.dstack([GRAY, GRAY]), 1), "a.tif")


def test_samples_that_are_not_gray_or_rgb_are_refused() -> None:
    with pytest.raises(UnreadableFile, match=r"x\.tif: "):
        read_pixels(tiff(RNG.integers(0, 65536, (5, 7, 4)).astype(np.uint16), 5), "x.tif")


# ------------------------------------------------------------------ Radiance
SCENE = (RNG.random((12, 16, 3)) * 4).astype(np.float32)


def radiance(scene: np.ndarray, lines: str = "", order: str = "-Y 12 +X 16") -> bytes:
    """A Radiance file of (H, W, 3) RGB, whose scan lines are what OpenCV writes of `scene`."""
    data = cv2.imencode(".hdr", np.ascontiguousarray(scene[..., ::-1]))[1].tobytes()
    head, _, pixels = data.partition(f"-Y {scene.shape[0]} +X {scene.shape[1]}\n".encode())
    return head.replace(b"\n\n", b"\n" + lines.encode() + b"\n") + order.encode() + b"\n" + pixels


def seen(data: bytes) -> np.ndarray:
    return read_pixels(data, "x.hdr", readers=RADIANCE_READERS)


@pytest.mark.parametrize(
    ("lines", "divisor"),
    [
        ("", 1),
        ("EXPOSURE=4.0\n", 4),
        ("EXPOSURE= 2\nVIEW= -vtv\nEXPOSURE=0.25\n", 0.5),
        ("COLORCORR=1 2 4\n", [1, 2, 4]),
        ("COLORCORR=1 2 4\nEXPOSURE=3e0\nCOLORCORR=.5 1 1\n", [1.5, 6, 12]),
    ],
)
def test_exposures_are_undone(lines: str, divisor: object) -> None:
    assert np.allclose(seen(radiance(SCENE, lines)), seen(radiance(SCENE)) / np.asarray(divisor), rtol=1e-6)


@pytest.mark.parametrize("lines", ["EXPOSURE=0\n", "EXPOSURE=nan\n", "EXPOSURE=x\n", "COLORCORR=1\n", "EXPOSURE=-1\n"])
def test_impossible_exposures_are_refused(lines: str) -> None:
    with pytest.raises(UnreadableFile, match=r"x\.hdr: .*positive number"):
        seen(radiance(SCENE, lines))


ORDERS = ["-Y +X", "+Y +X", "-Y -X", "+Y -X", "+X -Y", "+X +Y", "-X -Y", "-X +Y"]


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_scan_lines_is_upright(order: str) -> None:
    slow, fast = order.split()
    columns_first = slow[1] == "X"
    scanned = SCENE
    if "+Y" in order:
        scanned = scanned[::-1]
    if "-X" in order:
        scanned = scanned[:, ::-1]
    if columns_first:
        scanned = scanned.swapaxes(0, 1)
    sizes = {"Y": 12, "X": 16}
    data = radiance(np.ascontiguousarray(scanned), "", f"{slow} {sizes[slow[1]]} {fast} {sizes[fast[1]]}")
    assert np.array_equal(seen(data), seen(radiance(SCENE)))


@pytest.mark.parametrize(
    "change",
    [(b"32-bit_rle_rgbe", b"32-bit_rle_xyze"), (b"-Y 12 +X 16", b"-Y 12 +Y 16"), (b"-Y 12 +X 16", b"-Y twelve")],
)
def test_other_radiance_is_refused(change: tuple[bytes, bytes]) -> None:
    with pytest.raises(UnreadableFile, match=r"x\.hdr: "):
        seen(radiance(SCENE).replace(*change))


# ------------------------------------------------------------------ OpenEXR
def luminance_chroma(scene: np.ndarray, weights: np.ndarray, more: bytes = b"", step: int = 2) -> bytes:
    y = scene @ weights
    chroma = [scene[..., c] / y - 1 for c in (0, 2)]
    planes = {"Y": (y, 1), **{k: (c[::step, ::step], step) for k, c in zip(("RY", "BY"), chroma, strict=True)}}
    return openexr.encode(planes, more)


ACES = (0.713, 0.293, 0.165, 0.830, 0.128, 0.044, 0.32168, 0.33767)


@pytest.mark.parametrize("chromaticities", [None, ACES], ids=["rec709", "acescg"])
@pytest.mark.parametrize("shape", [(12, 16), (2, 4)])  # the format wants even sides where chroma is at half size
def test_luminance_and_chroma_are_rgb(chromaticities: tuple[float, ...] | None, shape: tuple[int, int]) -> None:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    bright = (0.5 + rows + 0.3 * np.sin(columns))[..., None]
    scene = bright * np.array([1.0, 0.6, 0.3])  # of one colour: what chroma says of the pixels between is known
    more = b""
    if chromaticities:
        more = openexr.attribute("chromaticities", "chromaticities", struct.pack("<8f", *chromaticities))
    data = luminance_chroma(scene, luminance_weights(chromaticities or REC_709), more)
    assert np.allclose(read_pixels(data, "x.exr", readers=RADIANCE_READERS), scene, rtol=1e-4)


def test_chroma_between_its_samples_is_interpolated() -> None:
    rows, columns = np.mgrid[:12, :16]
    scene = np.stack([1 + 0.05 * columns, np.ones((12, 16)), 1 + 0.04 * rows], axis=-1)
    found = read_pixels(luminance_chroma(scene, luminance_weights(REC_709)), "x.exr", readers=RADIANCE_READERS)
    assert np.abs(found - scene)[:-1, :-1].max() < 2e-3


def test_the_weights_of_rec_709() -> None:
    assert luminance_weights(REC_709) == pytest.approx([0.2126, 0.7152, 0.0722], abs=5e-5)


@pytest.mark.parametrize(
    "channels", [("R", "Y"), ("Y", "RY"), ("Y", "BY"), ("RY", "BY"), ("Z",), ("left.R", "left.G", "left.B")]
)
def test_a_part_of_the_colours_is_no_picture(channels: tuple[str, ...]) -> None:
    plane = np.ones((4, 4), np.float32)
    with pytest.raises(UnreadableFile, match="R, G, B or Y are needed"):
        read_pixels(openexr.encode(dict.fromkeys(channels, (plane, 1))), "x.exr", readers=RADIANCE_READERS)
