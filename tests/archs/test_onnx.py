"""Every architecture of one image as ONNX: the file gives what torch gives, or a line says why there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_every_arch import NAMES, build, tiny

from relume.core.errors import UserError
from relume.core.use.export import to_onnx
from relume.core.use.functions import Function, Subject, called

ANY_SIZE = ("NAFNet", "Restormer")
"""Of which a file takes any batch, height and width."""
PLAIN = {"mean": None, "std": None}
IMAGES = [n for n in NAMES if len((tiny(n).inputs or tiny(n).training_inputs)(32, 32)) == 1 and tiny(n).any_size]


@pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="slow; set RELUME_SLOW_TESTS=1")
@pytest.mark.parametrize("name", IMAGES)
def test_a_file_gives_what_torch_gives(name: str, tmp_path: Path) -> None:
    """Prints a row: difference, opset, and what may have any size; or the reason. ``pytest -s`` shows the table."""
    pytest.importorskip("onnxruntime")
    network = build(name).eval()
    channels = (tiny(name).inputs or tiny(name).training_inputs)(32, 32)[0].shape[1]
    subject = Subject(network, PLAIN, channels, called(Function(network, PLAIN)))
    target = tmp_path / "x.onnx"
    try:
        report = to_onnx(subject, target, half=False, tolerance=1e-3)
    except UserError as e:
        assert name not in ANY_SIZE and not target.exists() and len(str(e).splitlines()) == 1
        print(f"| {name} | no: {e} | | | |")
        return
    assert target.exists() and report.difference < 1e-3
    assert name not in ANY_SIZE or report.dynamic == ("batch", "height", "width")
    print(f"| {name} | yes | {report.difference:.1g} | {report.opset} | {', '.join(report.dynamic) or 'one size'} |")
