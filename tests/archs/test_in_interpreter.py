"""Whole networks with every kernel of ours, in Triton's interpreter: the originals' numbers, within the same tolerances."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SLOW = "RELUME_SLOW_TESTS" in os.environ
FEW = [
    "test_diffir.py::test_golden_component[block]",
    "test_mamba2.py::test_original",
    "test_agssf.py::test_blocks_equal_the_originals[mod_agssf1_upsample_reduce]",
    "test_phaseformer.py::test_equal_to_the_original[mod_phase_mdta]",
    "test_spectroformer.py::test_equal_to_the_original_in_value_and_gradient[mod_paper_fdfp]",
    "vfi/test_hybrid.py::test_warp_of_the_original",
]
"""What takes seconds there."""
ALL = [
    *[f"test_{name}.py" for name in ("agssf", "diffir", "mamba2", "phaseformer", "restormer", "spectroformer")],
    "vfi/test_hybrid.py",
]
NOT_OF_NETWORKS = "(golden or original) and not full_size and not seed and not parameter"
PLUGIN = """
import json, sys

def pytest_sessionfinish():
    launched = sys.modules["relume.core.ops.launching"].LAUNCHED
    print("LAUNCHED " + json.dumps(launched))
"""


def run(tests: list[str], folder: Path, *more: str) -> set[str]:
    """The kernels that these tests launched; all must pass."""
    (folder / "launches.py").write_text(PLUGIN)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "RELUME_KERNELS": "on"}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), environment.get("PYTHONPATH", "")])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "-p",
        "launches",
        *more,
        *tests,
    ]
    result = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    line = next(part for part in result.stdout.splitlines() if "LAUNCHED {" in part)
    return set(json.loads(line.partition("LAUNCHED ")[2]))


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs Triton")
def test_originals_with_all_kernels(golden, tmp_path) -> None:
    golden("hdr/block.pt")
    launched = run(ALL, tmp_path, "-k", NOT_OF_NETWORKS) if SLOW else run(FEW, tmp_path)
    assert len(launched) >= 18, launched
    ops = {
        "layer_norm",
        "rms_norm",
        "causal_conv1d",
        "ssd",
        "gdfn",
        "mdta",
        "spectral_mixing",
        "phase",
        "polar",
        "flow_warp",
    }
    ops |= {"window_attention"} if SLOW else set()
    assert {name.partition("_triton.")[0] for name in launched} >= ops
