#!/usr/bin/env python
"""Compile every kernel of ours for GPUs that need not be here, and print what each takes of them, as a table in Markdown.

The kernels are those of a forward and a backward call of every op at widths of published networks; nothing is run. A row has
registers of a thread, shared memory of a program, bytes of a thread's stack (spills: 0 is wanted), and how many of a
multiprocessor's warps fit at once by these alone. A kernel has more rows where other widths ask for other tiles.

``--widths`` goes through widths of many more networks and prints kernels that spill there, with what they were called on.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
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
"""Warps and registers of a multiprocessor of compute capability 8.0 and 9.0."""
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
"""Sides and widths that an operator's registered case is called with (`core.ops.self_test`)."""
ALSO = {"window_attention": [((1, 8, 8, 18 * 30), (1, 8, 8, 6))]}
"""Further shapes for an operator. Heads of 30 channels, of which two are read at once, take the most registers."""
WIDTHS = (
    *(1, 3, 16, 24, 30, 32, 36, 42, 48, 60, 64, 85, 90, 96, 127),
    *(128, 144, 174, 180, 192, 240, 255, 256, 360, 384, 510, 512, 768, 1021),
)
"""Channels of published networks, and some that no power of 2 divides: for ``--widths``."""
HEADS = (4, 8, 15, 16, 24, 29, 30, 32, 36, 48, 60, 64, 96, 128)
"""Channels of a head, for the same purpose."""
STATES = ((32, 16), (30, 16), (48, 32), (64, 16), (64, 64), (64, 128), (128, 64), (128, 128), (60, 30))
"""Channels of a head and of its state."""
SHAPES: dict[str, list[tuple[tuple[int, ...], ...]]] = {
    "window_attention": [
        ((1, side, side, 18 * c), (1, side, side, 6))
        for side, widths in ((8, HEADS), (7, (30, 32)), (4, (30,)))
        for c in widths
    ],
    "mdta": [((1, 32, 32, 12 * c), (4,), (4 * c, 4 * c)) for c in HEADS if c <= 64],
    "ssd": [
        ((1, 512, h, p), (1, 512, h), (h,), *[(1, 512, 1, n)] * 2, (h,))
        for h, p, n in ((1, 64, 64), *((4, p, n) for p, n in STATES))
    ],
    "selective_scan": [
        (*[(1, 64, length)] * 2, (64, n), *[(1, 1, n, length)] * 2, (64,))
        for n in (1, 8, 10, 16, 32, 64)
        for length in (256, 257)
    ],
    "causal_conv1d": [((1, c, 1024), (c, k), (c,)) for c in WIDTHS for k in (3, 4)],
}
"""Shapes for ``--widths``, of operators whose kernels depend on more than a width."""
PLANES = {"census", "charbonnier", "gradient", "laplacian", "ms_ssim", "ssim"}
"""Operators that work on images of any width by the same kernels."""


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


def shapes_of(op: str, many: bool) -> list[tuple[tuple[int, ...], ...]]:
    """Shapes of the tensors that the op's case is called with: a few, or for ``--widths`` many."""
    from relume.core.ops import self_test

    if many and op in SHAPES:
        return SHAPES[op]
    sizes = [(32, width) for width in WIDTHS] if many and op not in PLANES else SIZES.get(op, [(32, 64)])
    return [*(self_test.SIZED[op](side, width) for side, width in sizes), *ALSO.get(op, [])]


def call(op: str, dtype: torch.dtype, shapes: tuple[tuple[int, ...], ...]) -> None:
    """A forward and a backward call of the op's case; of an op that refuses the dtype or the width, none."""
    from relume.core.ops import self_test

    function, _ = self_test.CASES[op]
    given = self_test.drawn(shapes, torch.device("cpu"), dtype)
    try:
        self_test.called(op, "on", function, given)
    except UserError as e:
        if "it computes in float32" not in str(e) and "it takes" not in str(e):
            raise


def rows(launched: list[Launch], word: str) -> dict[str, Launch]:
    """Those with the word in their names: one of each kernel and tile, by name, and by what is other than in the first."""
    found: dict[str, Launch] = {}
    for this in (of for of in launched if word in of.name):
        first = found.setdefault(this.name, this)
        other = [f"{name} {value}" for name, value in this.constants.items() if first.constants[name] != value]
        found.setdefault(", ".join([this.name, *other]), this)
    return dict(sorted(found.items()))


class Source(NamedTuple):
    """What Triton compiles of a launch."""

    signature: dict[str, str]
    constants: dict[str, Any]
    aligned: tuple[int, ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for launches that one compilation is for."""
        return tuple(self.signature.items()), tuple(self.constants.items()), self.aligned


def source(of: Launch) -> Source:
    """As at a launch: pointers are those of PyTorch's allocator, multiples of 16 bytes; a number 1 is a constant, and of others
    it is known whether 16 divides them."""
    names = of.kernel.arg_names
    fixed = dict(of.constants) | {n: 1 for n, a in zip(names, of.args, strict=False) if type(a) is int and a == 1}
    kinds = [TYPES[a.dtype] if isinstance(a, Tensor) else "fp32" if isinstance(a, float) else "i32" for a in of.args]
    signature = dict(zip(names, kinds, strict=False)) | dict.fromkeys(fixed, "constexpr")
    even = [isinstance(a, Tensor) or (type(a) is int and a % 16 == 0) for a in of.args]
    return Source(signature, fixed, tuple(i for i, known in enumerate(even) if known))


def compiled(of: Launch, capability: int) -> tuple[int, int, int]:
    """Registers, shared memory and stack of a kernel.

    Raises:
        Exception: of whatever kind where Triton or ptxas refuses it.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, fixed, aligned = source(of)
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned}
    code = ASTSource(fn=of.kernel, signature=signature, constexprs=fixed, attrs=attributes)
    options = {"num_warps": of.warps, "num_stages": of.stages, "enable_fp_fusion": True}
    result = triton.compile(code, target=GPUTarget("cuda", capability, 32), options=options)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as f:
        f.write(result.asm["cubin"])
        f.flush()
        command = [str(tool), "-res-usage", f.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # nosec B603
    return int(re.findall(r"REG:(\d+)", said)[0]), result.metadata.shared, int(re.findall(r"STACK:(\d+)", said)[0])


def measured(of: Launch, name: str, capabilities: Sequence[int]) -> list[tuple[int, int, int, int] | None]:
    """For each capability registers, shared memory, stack and fitting warps of a kernel, or None where it does not compile."""
    found: list[tuple[int, int, int, int] | None] = []
    for capability in capabilities:
        try:
            registers, shared, stack = compiled(of, capability)
        except Exception as e:  # Triton's and ptxas' errors have no common class
            print(f"{name} for {capability}: {type(e).__name__}: {e}", file=sys.stderr)
            found.append(None)
            continue
        found.append((registers, shared, stack, fitting(registers, shared, of.warps, capability)))
    return found


def fitting(registers: int, shared: int, warps: int, capability: int) -> int:
    """Warps of a multiprocessor that fit at once."""
    by_registers = REGISTERS // (-(-registers // 8) * 8 * 32 * warps)
    by_shared = SHARED[capability] // (shared + 1024)
    return min(by_registers * warps, by_shared * warps, WARPS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="dtype of the tensors"
    )
    parser.add_argument(
        "--capability",
        type=int,
        nargs="+",
        choices=sorted(SHARED),
        default=[80, 90],
        help="compute capabilities of the GPUs",
    )
    parser.add_argument("--only", default="", metavar="WORD", help="kernels whose names have this in them")
    parser.add_argument(
        "--widths", action="store_true", help="many widths; only what spills or does not fit is printed"
    )


def run(a: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: no kernel has that name, or some do not compile.
    """
    from relume.core.ops.modes import NAMES

    # Run every operator once, and keep what it launches.
    launched: list[Launch] = []
    record(launched)
    dtype = getattr(torch, a.dtype)
    chosen: dict[str, Launch] = {}
    for op in NAMES:
        launched.clear()
        for shapes in shapes_of(op, a.widths):
            begun = len(launched)
            call(op, dtype, shapes)
            if a.widths:
                launched[begun:] = [of._replace(name=f"{of.name}, on {_words(shapes)}") for of in launched[begun:]]
        chosen |= different(launched) if a.widths else rows(launched, "")
    known = list(chosen)
    chosen = {name: of for name, of in chosen.items() if a.only in name}
    if not chosen:
        raise UserError(f"--only: no kernel has '{a.only}' in its name; they are {', '.join(known)}")
    # Compile each launch for each GPU, and print what it needs.
    head = [f"{name} {c // 10}.{c % 10}" for c in a.capability for name in ("registers", "shared", "stack", "warps")]
    print("| kernel | " + " | ".join(head) + " |")
    print("|---|" + "---:|" * len(head))
    failed = []
    for name, of in chosen.items():
        found = measured(of, name, a.capability)
        failed += [name] * (None in found)
        if not a.widths or any(cells is None or cells[2] or not cells[3] for cells in found):
            cells = [f"{c[0]} | {c[1]} | {c[2]} | {c[3]}/{WARPS}" if c else " | ".join("-" * 4) for c in found]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    if a.widths:
        print(f"\n{len(chosen)} kernels compiled.")
    if failed:
        raise UserError(f"{len(failed)} kernels do not compile: {', '.join(failed)}")


def different(launched: list[Launch]) -> dict[str, Launch]:
    """One launch of each that is compiled for itself, by name."""
    by_key = {(of.kernel, source(of).key, of.warps, of.stages): of for of in reversed(launched)}
    return {f"{of.name} ({i})": of for i, of in enumerate(reversed(by_key.values()))}


def _words(shapes: tuple[tuple[int, ...], ...]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes[:2])


if __name__ == "__main__":
    script(__file__, sys.modules[__name__])
