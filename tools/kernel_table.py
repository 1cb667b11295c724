#!/usr/bin/env python
"""Compile every kernel of ours for GPUs that need not be here, and print what each takes of them, as a table in Markdown.

The kernels are those of a forward and a backward call of every op at widths of published networks; nothing is run. A row has
registers of a thread, shared memory of a program, bytes of a thread's stack (spills: 0 is wanted), and how many of a
multiprocessor's warps fit at once by these alone. A kernel has more rows where other widths ask for other tiles.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relume.core.cli import script
from relume.core.errors import UserError

TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int8: "*i8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
WARPS, REGISTERS = 64, 65_536
"""Of a multiprocessor of compute capability 8.0 and 9.0."""
SHARED = {80: 163_840, 90: 232_448}
SIZES = {
    "layer_norm": [(32, 48), (32, 384)],
    "rms_norm": [(32, 64), (32, 256)],
    "causal_conv1d": [(32, 192)],
    "gdfn": [(32, 127)],
    "mdta": [(32, 144), (32, 96)],
    "window_attention": [(32, 96)],
    "census": [(32, 16)],
    "sinkhorn": [(4, 1024), (8, 4096)],
    "selective_scan": [(16, 256)],
}
"""By op: sides and widths that its registered case is called with (`core.ops.self_test`)."""


class Launch(NamedTuple):
    """A launch of a kernel that did not take place."""

    name: str
    kernel: Any
    args: tuple[Any, ...]
    warps: int
    stages: int
    constants: dict[str, Any]


def record(launched: list[Launch]) -> None:
    """Let every launch add itself to `launched` instead of running."""
    from relume.core.ops import dispatch, launching

    def launch(kernel: Any, grid: Any, *args: Any, warps: int = 4, stages: int = 2, **constants: Any) -> None:
        name = f"{kernel.fn.__module__.rsplit('.', 1)[-1].removesuffix('_triton')}.{kernel.fn.__name__}"
        launched.append(Launch(name, kernel, args, warps, stages, constants))

    dispatch.interpreted = lambda: True
    launching.interpreted = lambda: False
    for path in sorted(Path(dispatch.__file__).parent.glob("*.py")):  # each op registers its case
        module = importlib.import_module(f"relume.core.ops.{path.stem}")
        if path.stem.endswith("_triton"):
            module.launch = launch  # type: ignore[attr-defined]
            module.interpreted = lambda: False  # type: ignore[attr-defined]


def call(op: str, dtype: torch.dtype) -> None:
    """A forward and a backward call of the op's case at each of its sizes; of an op that refuses the dtype, none."""
    from relume.core.ops import self_test

    function, _ = self_test.CASES[op]
    for side, width in SIZES.get(op, [(32, 64)]):
        given = self_test.drawn(self_test.SIZED[op](side, width), torch.device("cpu"), dtype)
        try:
            self_test.called(op, "on", function, given)
        except UserError as e:
            if "it computes in float32" not in str(e):
                raise


def rows(launched: list[Launch], word: str) -> dict[str, Launch]:
    """Those with the word in their names: one of each kernel and tile, by name, and by what is other than in the first."""
    found: dict[str, Launch] = {}
    for this in (of for of in launched if word in of.name):
        first = found.setdefault(this.name, this)
        other = [f"{name} {value}" for name, value in this.constants.items() if first.constants[name] != value]
        found.setdefault(", ".join([this.name, *other]), this)
    return dict(sorted(found.items()))


def compiled(of: Launch, capability: int) -> tuple[int, int, int]:
    """Registers, shared memory and stack of a kernel.

    Raises:
        Exception: of whatever kind where Triton or ptxas refuses it.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    # As at a launch: pointers are those of PyTorch's allocator, multiples of 16 bytes; a number 1 is a constant, and of others
    # it is known whether 16 divides them.
    names = of.kernel.arg_names
    fixed = dict(of.constants) | {n: 1 for n, a in zip(names, of.args, strict=False) if type(a) is int and a == 1}
    kinds = [TYPES[a.dtype] if isinstance(a, Tensor) else "fp32" if isinstance(a, float) else "i32" for a in of.args]
    signature = dict(zip(names, kinds, strict=False)) | dict.fromkeys(fixed, "constexpr")
    even = [isinstance(a, Tensor) or (type(a) is int and a % 16 == 0) for a in of.args]
    aligned = {(i,): [["tt.divisibility", 16]] for i, known in enumerate(even) if known}
    source = ASTSource(fn=of.kernel, signature=signature, constexprs=fixed, attrs=aligned)
    options = {"num_warps": of.warps, "num_stages": of.stages, "enable_fp_fusion": True}
    result = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as f:
        f.write(result.asm["cubin"])
        f.flush()
        command = [str(tool), "-res-usage", f.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # nosec B603
    return int(re.findall(r"REG:(\d+)", said)[0]), result.metadata.shared, int(re.findall(r"STACK:(\d+)", said)[0])


def fitting(registers: int, shared: int, warps: int, capability: int) -> int:
    """Warps of a multiprocessor that fit at once."""
    by_registers = REGISTERS // (-(-registers // 8) * 8 * 32 * warps)
    by_shared = SHARED[capability] // (shared + 1024)
    return min(by_registers * warps, by_shared * warps, WARPS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of the tensors")
    parser.add_argument(
        "--capability", type=int, nargs="+", choices=sorted(SHARED), default=[80, 90], help="of the GPUs"
    )
    parser.add_argument("--only", default="", metavar="WORD", help="kernels whose names have this in them")


def run(a: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: no kernel has that name, or some do not compile.
    """
    from relume.core.ops.modes import NAMES

    # Run every operator once, and keep what it launches.
    launched: list[Launch] = []
    record(launched)
    for op in NAMES:
        call(op, getattr(torch, a.dtype))
    chosen = rows(launched, a.only)
    if not chosen:
        raise UserError(f"--only: no kernel has '{a.only}' in its name; they are {', '.join(rows(launched, ''))}")
    # Compile each launch for each GPU, and print what it needs.
    head = [f"{name} {c // 10}.{c % 10}" for c in a.capability for name in ("registers", "shared", "stack", "warps")]
    print("| kernel | " + " | ".join(head) + " |")
    print("|---|" + "---:|" * len(head))
    failed = []
    for name, of in chosen.items():
        cells: list[object] = []
        for capability in a.capability:
            try:
                registers, shared, stack = compiled(of, capability)
            except Exception as e:  # Triton's and ptxas' errors have no common class
                print(f"{name} for {capability}: {type(e).__name__}: {e}", file=sys.stderr)
                failed.append(name)
                cells += ["-"] * 4
                continue
            cells += [registers, shared, stack, f"{fitting(registers, shared, of.warps, capability)}/{WARPS}"]
        print(f"| {name} | " + " | ".join(map(str, cells)) + " |", flush=True)
    if failed:
        raise UserError(f"{len(set(failed))} kernels do not compile: {', '.join(dict.fromkeys(failed))}")


if __name__ == "__main__":
    script(__file__, sys.modules[__name__])
