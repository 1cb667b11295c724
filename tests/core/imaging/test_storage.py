"""Files by path and by URL."""

from __future__ import annotations

import os

import pytest

from relume.core.errors import UserError
from relume.core.imaging.storage import UnreadableFile, join, list_files, read_bytes, write_bytes


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_what_is_written_is_read_and_listed(kind, tmp_path):
    root = str(tmp_path / "data") if kind == "disk" else f"memory://{tmp_path.name}/data"
    for name in ("b.bin", "sub/deep/a.bin", ".hidden", "sub/.cache/x"):
        write_bytes(join(root, name), name.encode())
    assert list_files(root) == ["b.bin", "sub/deep/a.bin"]
    assert list_files(root + "/") == ["b.bin", "sub/deep/a.bin"]
    assert read_bytes(join(root, "sub/deep/a.bin")) == b"sub/deep/a.bin"


@pytest.mark.parametrize("root", ["{tmp}", "memory://nowhere-{name}"])
def test_missing_things_are_named(root, tmp_path):
    root = root.format(tmp=tmp_path, name=tmp_path.name)
    with pytest.raises(UnreadableFile, match=r"x\.png: cannot be read"):
        read_bytes(join(root, "x.png"))
    with pytest.raises(UserError, match=r"folder: there is no such folder"):
        list_files(join(root, "folder"))


def test_a_misspelt_folder_gets_a_suggestion_and_a_file_is_called_one(tmp_path):
    (tmp_path / "LSUI").mkdir()
    with pytest.raises(UserError, match="Did you mean 'LSUI'"):
        list_files(str(tmp_path / "LSIU"))
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(UserError, match="is a file, not a folder"):
        list_files(str(tmp_path / "f"))


def test_an_unknown_protocol_is_one_line(tmp_path):
    with pytest.raises(UserError, match="nonsense"):
        read_bytes("nonsense://bucket/x.png")


def test_links_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_bytes(b"1")
    (tmp_path / "root").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "root" / "link")
    os.symlink(tmp_path / "root", tmp_path / "real" / "up")
    assert list_files(str(tmp_path / "root")) == ["link/x"]


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    write_bytes(tmp_path / "x", b"old")

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
