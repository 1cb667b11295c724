"""Rules for all ops with kernels of our own: each holds for every name of the registry, or says why not."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compiled_code import faults
from fused_cases import OTHER
from interpreting import interpreted

import relume.core.ops
from relume.core.ops.modes import NAMES

SLOW = pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="a minute; set RELUME_SLOW_TESTS=1")
FILES = sorted(Path(relume.core.ops.__file__).parent.glob("*_triton.py"))
OF_SCALE = {"flow_warp": ["_largest"]}
"""Kernels whose results choose the scale of fixed-point numbers and no more: a larger one is right as well."""
pytestmark = pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs Triton")


@functools.cache
def report(*words: str) -> dict[str, Any]:
    result = interpreted("interpreted_rules.py", *words)
    assert result.returncode == 0, result.stderr
    said: dict[str, Any] = json.loads(result.stdout)
    assert set(said) == set(NAMES)
    return said


def of_all(what: str, *words: str) -> dict[str, Any]:
    found = {op: said[what] for op, said in report(*words).items() if what in said}
    assert set(found) >= set(NAMES) - OTHER
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_docstring_tells_launches_traffic_and_limit(file: Path) -> None:
    said = ast.get_docstring(ast.parse(file.read_text())) or ""
    assert "launch" in said and "Limit: " in said
    assert re.search(r"\bbytes|\bmaps?\b|\bfloats|\bC\b|\bpass(es)?\b", said)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_kernels_start_by_launch_alone_which_guards_the_device_and_the_grid(file: Path) -> None:
    tree = ast.parse(file.read_text())
    jitted = {
        f.name
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef) and "triton.jit" in map(ast.unparse, f.decorator_list)
    }
    assert jitted
    started = {n.value.id for n in ast.walk(tree) if isinstance(n, ast.Subscript) and isinstance(n.value, ast.Name)}
    assert not jitted & started


@pytest.mark.parametrize("words", [("quick",), pytest.param((), marks=SLOW)])
def test_wrong_arguments_are_refused_in_one_line_that_names_one(words: tuple[str, ...]) -> None:
    assert {op: bad for op, bad in of_all("badly refused", *words).items() if bad} == {}


def test_a_word_for_one_op_turns_its_kernels_on_or_off() -> None:
    counts = of_all("launches", "quick")
    assert [op for op, (on, off) in counts.items() if not on or off] == []


def test_what_grows_with_the_data_is_on_the_first_axis_of_a_grid() -> None:
    assert {op: kernels for op, kernels in of_all("growing", "quick").items() if kernels} == {}


@SLOW
def test_layouts_in_memory_do_not_matter() -> None:
    assert {op: error for op, error in of_all("layout").items() if error > 1e-6} == {}


@SLOW
def test_the_self_test_sees_a_fault_of_every_kernel() -> None:
    assert {op: said["unseen"] for op, said in report().items() if said["unseen"]} == OF_SCALE


def test_offsets_of_32_bits_half_sums_and_atomic_sums_are_recognised() -> None:
    grid = "%0 = tt.get_program_id x : i32\n"
    near = "%1 = arith.remsi %0, %n : i32\n%2 = tt.addptr %x, %1 : !tt.ptr<f32>, i32"
    far = "%1 = arith.muli %0, %n : i32\n%2 = tt.addptr %x, %1 : !tt.ptr<f32>, i32"
    wide = "%1 = arith.extsi %0 : i32 to i64\n%2 = arith.muli %1, %n : i64\n%3 = tt.addptr %x, %2 : !tt.ptr<f32>, i64"
    assert [len(faults(grid + rest)) for rest in (near, far, wide)] == [0, 1, 0]
    assert (
        len(faults("%1 = arith.addf %a, %b : tensor<4xbf16> loc(#1)\n%2 = arith.addf %a, %b : tensor<4xf32> loc(#1)"))
        == 1
    )
    assert (
        len(
            faults(
                "%1 = tt.atomic_rmw fadd, relaxed, gpu, %p, %v, %m : (tensor<4x!tt.ptr<f32>>, tensor<4xf32>, tensor<4xi1>)"
            )
        )
        == 1
    )


@SLOW
def test_kernels_have_offsets_of_64_bits_sums_in_float32_and_no_atomic_sums() -> None:
    command = [sys.executable, str(Path(__file__).parent / "compiled_code.py"), "float32", "bfloat16", "float16"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    said = json.loads(result.stdout)
    assert said["kernels"] > 150 and said["faults"] == {}
