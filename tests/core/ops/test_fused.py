"""Every op with kernels of our own, found by its file, in Triton's interpreter."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from fused_cases import CASES, OTHER
from interpreting import interpreted

import relume.core.ops
from relume.core.ops.dispatch import NAMES

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 4e-3}
SLOW = pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="slow; set RELUME_SLOW_TESTS=1")
SYSTEMS = "DiffIRS1", "DiffIRS2", "HybridVFI", "Phaseformer", "Spectroformer", "SpectroformerAGSSF"
"""Those of the five systems that have operators with kernels."""
pytestmark = pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs Triton")


@functools.cache
def report() -> dict[str, Any]:
    result = interpreted("interpreted_ops.py")
    assert result.returncode == 0, result.stderr
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def test_every_file_of_kernels_has_a_name_and_cases() -> None:
    folder = Path(relume.core.ops.__file__).parent
    assert {p.name.removesuffix("_triton.py") for p in folder.glob("*_triton.py")} == set(NAMES) == set(CASES) | OTHER


@pytest.mark.parametrize("op", CASES)
def test_kernels_equal_the_plain_form_in_value_and_gradient(op: str) -> None:
    said = report()[op]
    assert {t: said[t] for t in TOLERANCE if said[t] > TOLERANCE[t]} == {}


@pytest.mark.parametrize("op", CASES)
def test_kernels_repeat_bit_for_bit_whatever_the_batch_and_the_layout(op: str) -> None:
    said = report()[op]
    assert said["repeats"] and said["alone"] and said["strided"] and said["empty"]


@pytest.mark.parametrize("op", CASES)
def test_every_kernel_takes_part(op: str) -> None:
    folder = Path(relume.core.ops.__file__).parent
    source = (folder / f"{op}_triton.py").read_text()
    launched = {f"{op}_triton.{name}" for name in re.findall(r"\blaunch\(\s*(\w+),", source)}
    assert set(report()[op]["kernels"]) == launched


@pytest.mark.parametrize("op", CASES)
def test_what_kernels_cannot_take_is_one_line(op: str) -> None:
    said = report()[op]["refused"]
    assert said.startswith(f"RELUME_KERNELS=on, but the fused {NAMES[op]} cannot run: it computes in float32, ")
    assert said.endswith(" is float64") and "\n" not in said


@pytest.mark.parametrize("op", CASES)
def test_a_second_derivative_is_refused_by_name(op: str) -> None:
    said = report()[op]["twice"]
    assert ("differentiated once" in said or "differentiate twice" in said) and "\n" not in said


@pytest.mark.parametrize("op", CASES)
def test_autocast_leaves_the_plain_forms_dtype_and_value(op: str) -> None:
    said = report()[op]
    plain, fused = said["dtypes"]
    assert said["autocast"] <= TOLERANCE["bfloat16"]
    assert fused == ("torch.bfloat16" if op == "layer_norm" else plain)  # which rounds at once what others round next


def test_losses_are_the_same_by_kernels() -> None:
    result = interpreted("interpreted_losses.py")
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert {name: error for name, (error, _) in said.items() if error > 2e-5} == {}
    scales = {"ms_ssim": 2 + 1 + 2, "scales": 3 + 1 + 3}
    stencils = dict.fromkeys(("laplacian", "sobel", "variation", "variations", "mean", "sum"), 2)
    pyramids = {"pyramid": 3 + 4 + 4, "edge": 4, "edges": 4}
    assert {name: count for name, (_, count) in said.items()} == {"ssim": 3, **scales, **stencils, **pyramids}


def test_offsets_have_64_bits_and_grids_their_limits() -> None:
    assert report()["far"] == dict.fromkeys(("rms_norm", "causal_conv1d", "ssd"), True)
    limits = "a GPU starts up to 2147483647 x 65535 x 65535 programs, this takes 1 x 70000; RELUME_KERNELS=off does without it"
    assert report()["grid"] == f"_forward: {limits}"


@SLOW
@pytest.mark.timeout(3600)
def test_networks_compile_as_one_graph_with_all_kernels() -> None:
    result = interpreted("interpreted_compiled.py")
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert set(said) >= {*SYSTEMS, "NAFNet", "Restormer", "MambaIR", "BasicVSR"}
    # The compiler resizes by other operations, and warps between pixels feel the last bit of a flow.
    assert {name: error for name, (error, _) in said.items() if error > 1e-3} == {}


@pytest.mark.parametrize("words", [["quick"], pytest.param([], marks=SLOW)])
def test_operators_pass_the_checks_of_pytorch(words: list[str]) -> None:
    result = interpreted("interpreted_opcheck.py", *words)
    assert result.stdout == "OK\n", result.stderr


def test_operations_are_counted_as_of_the_plain_forms() -> None:
    found = json.loads(interpreted("interpreted_operations.py").stdout)
    assert set(found) == set(NAMES)
    for op, ((forward, backward, unknown), (plain, plain_backward, _)) in found.items():
        assert not unknown, op
        if op == "ssd":  # whose plain form has larger chunks, and halves of them
            assert 0.4 < forward / plain < 1 and 0.4 < backward / plain_backward < 1
        elif op == "spectral_mixing":  # whose plain form corrects sums over half a spectrum by its edges
            assert forward == plain and 0.8 < backward / plain_backward < 1
        else:
            assert (forward, backward) == (plain, plain_backward), op
    assert sum(counts[0][0] > 0 for counts in found.values()) == 13
