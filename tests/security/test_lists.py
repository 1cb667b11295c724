"""Lists that come with a data set name files below its folder, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from relume.core.errors import UserError
from relume.datasets.triplets import read_list


@pytest.mark.parametrize("line", ["/etc/passwd", "../x 1 2", "a/../../x", "a/1.png ~/x.png a/3.png", "s3://b/x"])
def test_paths_that_lead_out_are_refused_with_their_line(line: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"00001/0001\n{line}\n")
    with pytest.raises(UserError, match=r"list\.txt:2: '.*' leads out of the data set's folder"):
        read_list(tmp_path / "list.txt", "00001/0001")


def test_usual_lists_pass(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("data/a..b/1.png x/...\n00001/0001 7 (256,448,3)\n")
    assert len(read_list(tmp_path / "list.txt", "")) == 2
