#!/usr/bin/env python
"""Compile every kernel of ours for GPUs that need not be here, and print what each takes of them, as a table in Markdown.

The kernels are those of one forward and backward call of every op at widths of published networks; nothing is run. A row has
registers of a thread, shared memory of a program, bytes of a thread's stack (spills: 0 is wanted), and how many of a
multiprocessor's warps fit at once by these alone. Exit status 1 if any kernel does not compile.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
WARPS, REGISTERS = 64, 65_536
"""Of a multiprocessor of compute capability 8.0 and 9.0."""
SHARED = {80: 163_840, 90: 232_448}


def record(launched: dict[str, tuple[Any, ...]]) -> None:
    """Let every launch add itself to `launched` instead of running."""
    import importlib

    from relume.core.ops import dispatch, launching

    def launch(kernel: Any, grid: Any, *args: Any, warps: int = 4, stages: int = 2, **constants: Any) -> None:
        name = f"{kernel.fn.__module__.rsplit('.', 1)[-1].removesuffix('_triton')}.{kernel.fn.__name__}"
        launched.setdefault(name, (kernel, args, warps, stages, constants))

    os.environ["RELUME_KERNELS"] = "on"
    dispatch.interpreted = lambda: True
    dispatch._fault = lambda *_: None  # nothing is run, so that there is nothing to try
    launching.interpreted = lambda: False
    for path in Path(dispatch.__file__).parent.glob("*_triton.py"):
        module = importlib.import_module(f"relume.core.ops.{path.stem}")
        if hasattr(module, "launch"):
            module.launch = launch  # type: ignore[attr-defined]
        if hasattr(module, "interpreted"):
            module.interpreted = lambda: False  # type: ignore[attr-defined]


def call_every_op(dtype: torch.dtype) -> None:
    """One forward and backward call of each, at widths of published networks and few pixels."""
    from relume.core.ops.causal_conv1d import causal_conv1d
    from relume.core.ops.census import census_distance
    from relume.core.ops.channel_attention import self_attention
    from relume.core.ops.layer_norm import layer_norm
    from relume.core.ops.pixelwise import gated_feed_forward
    from relume.core.ops.rms_norm import rmsnorm_gated
    from relume.core.ops.selective_scan import selective_scan
    from relume.core.ops.sinkhorn import scale_to_marginals
    from relume.core.ops.ssd import ssd
    from relume.core.ops.window_attention import window_attention

    def drawn(*shape: int) -> Tensor:
        return torch.rand(shape, dtype=dtype).requires_grad_()

    results = [
        layer_norm(drawn(1, 8, 8, 48), drawn(48), drawn(48), 1e-5),
        rmsnorm_gated(drawn(1, 64, 64), drawn(64), drawn(1, 64, 64), norm_before_gate=False),
        causal_conv1d(drawn(1, 192, 256), drawn(192, 4), drawn(192), activation="silu"),
        ssd(drawn(1, 128, 2, 64), drawn(1, 128, 2), drawn(2), drawn(1, 128, 1, 64), drawn(1, 128, 1, 64), D=drawn(2)),
        gated_feed_forward(drawn(1, 8, 8, 48), drawn(254, 48), None, drawn(254, 1, 3, 3), None, drawn(48, 127), None),
        self_attention(drawn(1, 8, 8, 144), drawn(1), drawn(48, 48)),
        window_attention(drawn(1, 8, 8, 96), drawn(1, 8, 8, 2), 8, 4),
        selective_scan(
            drawn(1, 8, 256), drawn(1, 8, 256), drawn(8, 16), drawn(1, 1, 16, 256), drawn(1, 1, 16, 256), drawn(8)
        ),
    ]
    if dtype == torch.float32:
        results.append(census_distance(drawn(1, 16, 16), torch.rand(1, 16, 16)))
        for n, m in ((32, 1024), (64, 4096)):  # in one launch, and in two an iteration
            scale_to_marginals(*(torch.rand(s) for s in ((n, m), (n,), (m,), (n,), (m,))), iterations=1)
    sum(r.sum() for r in results).backward()  # type: ignore[union-attr]


def compiled(kernel: Any, args: Any, warps: int, stages: int, constants: Any, capability: int) -> tuple[int, int, int]:
    """Registers, shared memory and stack of a kernel.

    Raises:
        Exception: of whatever kind where Triton or ptxas refuses it.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kinds = [TYPES[a.dtype] if isinstance(a, Tensor) else "fp32" if isinstance(a, float) else "i32" for a in args]
    names = kernel.arg_names
    signature = dict(zip(names, kinds, strict=False)) | dict.fromkeys(constants, "constexpr")
    # Pointers are those of PyTorch's allocator: multiples of 16 bytes.
    aligned = {(i,): [["tt.divisibility", 16]] for i, a in enumerate(args) if isinstance(a, Tensor)}
    source = ASTSource(fn=kernel, signature=signature, constexprs=dict(constants), attrs=aligned)
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of the tensors")
    parser.add_argument(
        "--capability", type=int, nargs="+", choices=sorted(SHARED), default=[80, 90], help="of the GPUs"
    )
    parser.add_argument("--only", default="", metavar="WORD", help="kernels whose names have this in them")
    args = parser.parse_args()
    launched: dict[str, tuple[Any, ...]] = {}
    record(launched)
    call_every_op(getattr(torch, args.dtype))
    head = [f"{name} {c // 10}.{c % 10}" for c in args.capability for name in ("registers", "shared", "stack", "warps")]
    print("| kernel | " + " | ".join(head) + " |")
    print("|---|" + "---:|" * len(head))
    failed = 0
    for name, (kernel, given, warps, stages, constants) in sorted(launched.items()):
        if args.only not in name:
            continue
        cells: list[object] = []
        for capability in args.capability:
            try:
                registers, shared, stack = compiled(kernel, given, warps, stages, constants, capability)
            except Exception as e:  # Triton's and ptxas' errors have no common class
                print(f"{name} for {capability}: {type(e).__name__}: {e}", file=sys.stderr)
                failed = 1
                cells += ["-"] * 4
                continue
            cells += [registers, shared, stack, f"{fitting(registers, shared, warps, capability)}/{WARPS}"]
        print(f"| {name} | " + " | ".join(map(str, cells)) + " |", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
