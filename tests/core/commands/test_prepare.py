"""Cutting, packing and listing image folders."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from relume.core.cli import main
from relume.core.commands.prepare import crop, pack, windows
from relume.core.errors import UserError
from relume.core.imaging.image_io import imwrite, read_pixels
from relume.datasets.hdr import LdrHdrDataset
from relume.datasets.hdr_scenes import SyntheticHDRDataset
from relume.datasets.sources import Lmdb


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
    assert main(["prepare", "meta", str(folder / "in"), str(folder / "meta.txt")]) == 0
    assert (folder / "meta.txt").read_text() == "a.png (50,70,3)\ns/b.png (48,48,3)\n"
    assert main(["prepare", "lmdb", str(folder / "in"), str(folder / "x.lmdb")]) == 0
    assert main(["prepare", "crop", str(folder / "in"), str(folder / "out"), "--size", "48", "--workers", "1"]) == 0
    assert "5 images" in capsys.readouterr().out
    assert main(["prepare", "meta", str(folder / "gone"), str(folder / "meta.txt")]) == 2
    assert "gone: there is no such folder" in capsys.readouterr().err


def test_hdr_scenes_become_folders_that_the_dataset_reads(folder, capsys):
    out = folder / "scenes"
    assert main(["prepare", "hdr", str(folder / "in"), str(out), "--renditions", "2", "--side", "32"]) == 0
    assert "4 images" in capsys.readouterr().out
    made = SyntheticHDRDataset(dataroot_gt=str(folder / "in"), phase="val", shorter_side=32, renditions=2)
    read = LdrHdrDataset(*(str(out / k) for k in ("lq", "gt", "dgain")), phase="val")
    assert [s.lq_name for s in read.samples] == ["a_0.png", "a_1.png", "s/b_0.png", "s/b_1.png"]
    for i, j in enumerate((0, 2, 1, 3)):
        assert torch.equal(read[i]["lq"], made[j]["lq"])
        stored, exact = (read.transfer.decode(item["gt"]) for item in (read[i], made[j]))
        assert ((stored - exact).abs() <= exact.amax(0) / 127).all(), "as far as .hdr goes"


def test_hdr_of_shipped_photographs(tmp_path, capsys):
    assert main(["prepare", "hdr", "skimage:val", str(tmp_path / "out"), "--side", "24"]) == 0
    assert sorted(p.name for p in (tmp_path / "out" / "gt").iterdir()) == ["chelsea.hdr", "coffee.hdr"]
    assert main(["prepare", "hdr", "skimage:test", str(tmp_path / "out")]) == 2
    assert "skimage:train and skimage:val" in capsys.readouterr().err


def test_damaged_prompts_and_radiance_are_found_when_they_are_packed(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.txt").write_text("dgain: 1\n")
    with pytest.raises(UserError, match=r"a\.txt: has no line 'gamma"):
        pack(str(tmp_path / "p"), str(tmp_path / "p.lmdb"), kind="prompts")
    imwrite(tmp_path / "r" / "a.png", np.zeros((4, 5, 3)))
    with pytest.raises(UserError, match=r"a\.png: is an 8-bit picture"):
        pack(str(tmp_path / "r"), str(tmp_path / "r.lmdb"), kind="radiance")


def test_check_names_every_problem(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    from skimage import data

    photographs = [data.chelsea(), data.coffee(), data.astronaut()]
    for i, image in enumerate(photographs):
        imwrite(f"gt/{i}.png", image[:160, :200])
        imwrite(f"lq/{i}.png", image[:160:2, :200:2])
    assert main(["prepare", "check", "lq", "gt", "--scale", "2"]) == 0
    assert "3 pairs, nothing is wrong" in capsys.readouterr().out
    imwrite("val_gt/a.png", photographs[0][:160, :200])
    imwrite("val_gt/b.jpg", photographs[1][:160, :200])  # lossy: other pixels, the same picture
    imwrite("val_gt/c.png", data.rocket()[:160, :200])
    for name in "abc":
        imwrite(f"val_lq/{name}.png", photographs[0][:80, :100])
    imwrite("lq/alone.png", photographs[0])
    imwrite("lq/2.png", photographs[2][:81, :100])
    (tmp_path / "gt" / "1.png").write_bytes(b"torn")
    assert main(["prepare", "check", "lq", "gt", "--scale", "2", "--val", "val_lq", "val_gt"]) == 2
    out, err = capsys.readouterr()
    assert "lq: 1 without a partner in gt: alone.png" in out
    assert "lq/2.png: 81x100, its target 160x200, which is not 2 times as large" in out
    assert "gt/1.png" in out and "gt/0.png and val_gt/a.png: identical pictures" in out
    assert "val_gt/c.png" not in out and "3 pairs, 4 problems" in err
    imwrite("gt/1.png", photographs[1][:160, :200])
    assert main(["prepare", "check", "lq", "gt", "--scale", "2", "--val", "val_lq", "val_gt"]) == 2
    assert "gt/1.png and val_gt/b.jpg: near-duplicate pictures" in capsys.readouterr().out
