"""Cutting, packing and listing image folders."""

from __future__ import annotations

import numpy as np
import pytest

from relume.core.errors import UserError
from relume.core.image_io import imwrite, read_pixels
from relume.datasets.sources import Lmdb
from relume.tools.prepare_data import crop, main, pack, windows


@pytest.fixture
def folder(tmp_path):
    rng = np.random.RandomState(0)
    for name, size in (("a", (50, 70)), ("s/b", (48, 48))):
        imwrite(tmp_path / "in" / f"{name}.png", rng.rand(*size, 3), 16)
    return tmp_path


def test_windows_cover_the_side():
    assert windows(1000, 480, 240, 0) == [0, 240, 480, 520]
    assert windows(964, 480, 240, 10) == [0, 240, 480]
    assert windows(480, 480, 240, 0) == [0]


def test_sub_images_are_exact_windows(folder):
    assert crop(str(folder / "in"), str(folder / "out"), size=32, step=16, workers=2) == 3 * 4 + 2 * 2
    image = read_pixels(folder / "in" / "a.png")
    assert np.array_equal(read_pixels(folder / "out" / "a_s001.png"), image[:32, :32])
    assert np.array_equal(read_pixels(folder / "out" / "a_s012.png"), image[-32:, -32:])
    assert (folder / "out" / "s" / "b_s004.png").is_file()
    with pytest.raises(UserError, match=r"b\.png: is 48x48, smaller than --size 49"):
        crop(str(folder / "in"), str(folder / "out"), size=49)


def test_a_database_is_whole_or_not_there(folder):
    out = str(folder / "out.lmdb")
    assert pack(str(folder / "in"), out, batch=1) == 2
    assert (folder / "out.lmdb" / "meta_info.txt").read_text() == "a.png (50,70,3) 1\ns/b.png (48,48,3) 1\n"
    assert np.array_equal(Lmdb(out).pixels("s/b.png"), read_pixels(folder / "in" / "s" / "b.png"))
    for wrong, message in ((out, "is there already"), (str(folder / "out"), r"ends in \.lmdb")):
        with pytest.raises(UserError, match=message):
            pack(str(folder / "in"), wrong)
    (folder / "in" / "c.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"c\.png"):
        pack(str(folder / "in"), str(folder / "new.lmdb"))
    assert not (folder / "new.lmdb").exists()


def test_the_command_line(folder, capsys):
    assert main(["meta", str(folder / "in"), str(folder / "meta.txt")]) == 0
    assert (folder / "meta.txt").read_text() == "a.png (50,70,3)\ns/b.png (48,48,3)\n"
    assert main(["lmdb", str(folder / "in"), str(folder / "x.lmdb")]) == 0
    assert main(["crop", str(folder / "in"), str(folder / "out"), "--size", "48", "--workers", "1"]) == 0
    assert "5 images" in capsys.readouterr().out
    assert main(["meta", str(folder / "gone"), str(folder / "meta.txt")]) == 2
    assert "gone: there is no such folder" in capsys.readouterr().err
