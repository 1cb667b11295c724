"""What the compiler makes of every kernel, at published widths, for compute capability 8.0: a script that prints JSON.

Of offsets that come from the grid's first axis: those of 32 bits. Of arithmetic: what is in a half precision. And atomic
additions of floating-point numbers, whose order is chance.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))

import kernel_table
import torch

from relume.core.ops.modes import NAMES

ARITHMETIC = re.compile(r"(arith\.(add|mul|sub|div)f|math\.|tt\.dot|\"tt\.reduce)")
HALF = re.compile(r"(xbf16|xf16|: f16|: bf16)>?\s*(loc|$)")


def code(of: kernel_table.Launch) -> str:
    """Triton's own representation, with every function inlined."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, fixed, aligned = kernel_table.source(of)
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned}
    source = ASTSource(fn=of.kernel, signature=signature, constexprs=fixed, attrs=attributes)
    options = {"num_warps": of.warps, "num_stages": of.stages, "enable_fp_fusion": True}
    text: str = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options).asm["ttir"]
    return text


def faults(text: str) -> list[str]:
    """Lines that break a rule. What is left over from a division by the programs of an image or a chunk stays small."""
    of_grid: set[str] = set()
    found = []
    for line in text.splitlines():
        if "tt.atomic_rmw fadd" in line:
            found.append(line)
        parts = re.match(r"\s*(%[\w:]+)(?:, %[\w:]+)* = (\S+)(.*)", line)
        if not parts:
            continue
        result, operation, rest = parts.groups()
        used = re.findall(r"%\w+", rest)
        if ARITHMETIC.match(operation) and HALF.search(line):
            found.append(line)
        if operation == "tt.addptr" and used[1] in of_grid:
            found.append(line)
        elif operation == "tt.get_program_id" and " x " in rest:
            of_grid.add(result)
        elif operation in ("arith.extsi", "arith.remsi", "arith.cmpi", "tt.load"):
            continue
        elif of_grid.intersection(used) and "i32" in rest:
            of_grid.add(result)
    return found


def main(dtypes: list[str]) -> None:
    launched: list[kernel_table.Launch] = []
    kernel_table.record(launched)
    found, count = {}, 0
    for dtype in dtypes:
        launched.clear()
        for op in NAMES:
            for shapes in kernel_table.shapes_of(op, False):
                kernel_table.call(op, getattr(torch, dtype), shapes)
        for name, of in kernel_table.rows(launched, "").items():
            count += 1
            if lines := faults(code(of)):
                found[f"{name}, {dtype}"] = [line.strip()[:120] for line in lines[:3]]
    print(json.dumps({"kernels": count, "faults": found}))


if __name__ == "__main__":
    main(sys.argv[1:])
