"""docs/metrics.md says how files are read: of every suffix, by a function that exists, and tried by a test that does."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

import relume
from relume.core.errors import UserError
from relume.core.imaging.float_formats import FLOAT_READERS, FLOATS_ONLY
from relume.core.imaging.image_io import READERS, encoded, imread, imwrite, read_pixels
from relume.datasets.radiance import RADIANCE_READERS
from relume.datasets.videos import VIDEOS

PAGE = (Path(relume.__file__).parent / "docs/metrics.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.split("## How files are read")[1].splitlines()
    if line.startswith("|") and line.count("|") == 9 and "---" not in line
][1:]


def test_every_suffix_is_in_one_row() -> None:
    listed = [suffix for row in ROWS for suffix in re.findall(r"`(\.\w+)`", row[0])]
    assert sorted(listed) == sorted({*READERS, *FLOAT_READERS, *RADIANCE_READERS, *VIDEOS})


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:30])
def test_rules_and_tests_that_are_named_exist(row: list[str]) -> None:
    module, _, function = row[6].strip("`").rpartition(".")
    assert hasattr(importlib.import_module(f"relume.{module}"), function)
    file, _, test = row[7].strip("`").partition(".")
    tree = ast.parse((Path(__file__).parent / f"{file}.py").read_text(encoding="utf-8"))
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("suffix", sorted({*READERS, *FLOAT_READERS} - {".pic"}))
def test_samples_are_rgb_in_their_range(suffix: str) -> None:
    picture = np.zeros((64, 48, 3), np.float32)
    picture[:] = 0.75, 0.5, 0.25
    picture[32:] = 0.25, 0.5, 0.75
    data = encoded(f"a{suffix}", picture)
    of_floats = suffix in FLOATS_ONLY
    seen = read_pixels(data, f"a{suffix}", readers=RADIANCE_READERS) if of_floats else imread(data, f"a{suffix}")
    lossy = suffix in (".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".jp2")
    for place in (slice(8, 24), slice(40, 56)):
        assert np.abs(seen - picture)[place].max() < (0.02 if lossy else 0.003)


def test_an_encoder_that_fails_is_no_empty_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.jp2: this image .+ cannot be written"):
        imwrite(tmp_path / "a.jp2", np.zeros((8, 8, 3), np.uint8))
    assert not list(tmp_path.iterdir())
