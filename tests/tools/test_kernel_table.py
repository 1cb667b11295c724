"""What kernels take of GPUs that are not here."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "kernel_table.py"
SLOW = "RELUME_SLOW_TESTS" in os.environ
pytestmark = pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs Triton")


def table(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True, check=False)


def test_a_word_that_is_in_no_name_is_one_line() -> None:
    said = table("--only", "layer_nrom")
    assert said.returncode == 2 and not said.stdout
    assert said.stderr.startswith("--only: no kernel has 'layer_nrom' in its name; they are causal_conv1d._conv_back, ")
    assert said.stderr.count("\n") == 1


@pytest.mark.skipif(not SLOW, reason="a minute for each dtype; set RELUME_SLOW_TESTS=1")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_kernel_compiles_and_none_spills(dtype: str) -> None:
    said = table("--dtype", dtype)
    assert said.returncode == 0, said.stderr
    rows = [re.findall(r"[^|]+", line) for line in said.stdout.splitlines()[2:]]
    assert rows and all(len(row) == 9 for row in rows)
    assert [row[0].strip() for row in rows if int(row[3]) or int(row[7])] == []
