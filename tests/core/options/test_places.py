"""Files and folders that options name and that are not there: a line for each, with its key, and nothing a terminal acts on."""

from __future__ import annotations

from relume.core.options import check
from relume.core.options.places import missing


def test_names_that_no_file_can_have_are_said_with_their_keys() -> None:
    names = {"dataroot_lq": "~nosuchuser/x", "dataroot_gt": "y\u202e" + "/z" * 3000, "meta_info_file": ""}
    opt = {
        "name": "toy",
        "model_type": "RestorationModel",
        "datasets": {"val": {"type": "PairedImageDataset", **names}},
        "network_g": {"type": "NAFNet", "width": 4},
    }
    lines = missing(check(opt))
    assert len(lines) == 3
    for (key, _), line in zip(names.items(), lines, strict=True):
        assert line.endswith(f"(datasets.val.{key})") and line.isprintable() and len(line) < 400, line
    assert "no user 'nosuchuser'" in lines[0] and "too long" in lines[1] and "not a file" in lines[2]
    opt["datasets"]["val"] |= {"dataroot_lq": "l\u202eq", "dataroot_gt": "gt"}
    assert "l\\u202eq: no such file or folder" in missing(check(opt))[0]
