"""Every op with kernels in Triton's interpreter on a CPU against its plain form in float64: a script that prints JSON.

By op: the largest relative errors (of norms) of results and of gradients in float32, bfloat16 and float16, the kernels that
ran, and what must hold besides: the same bits twice, samples that do not depend on their batch, an empty batch, strided inputs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import torch
from fused_cases import CASES, NEVER_EMPTY, SINGLE
from torch import Tensor

from relume.core.errors import UserError
from relume.core.ops import launching, layer_norm_triton
from relume.core.ops.causal_conv1d import causal_conv1d
from relume.core.ops.rms_norm import rmsnorm_gated
from relume.core.ops.ssd import ssd

torch.set_num_threads(1)  # of several, PyTorch's own products on a CPU depend on the batch
launching.interpreted = lambda: False  # tiles as on a GPU: several programs, and ragged edges


def run(mode: str, function: Callable[..., Any], tensors: list[Tensor | None]) -> list[Tensor]:
    """Results and the gradients of a weighted sum of them."""
    os.environ["RELUME_KERNELS"] = mode
    given = [None if t is None else t.detach().requires_grad_() for t in tensors]
    y = function(*given)
    results = list(y) if isinstance(y, tuple) else [y]
    torch.manual_seed(1)  # the same weights for every sample, so that those of one do not depend on their number
    total = sum((r * torch.randn(r.shape[1:], dtype=torch.float64).to(r.dtype)).sum() for r in results)
    return [*results, *torch.autograd.grad(total, [t for t in given if t is not None])]


def worst(found: list[Tensor], expected: list[Tensor]) -> float:
    return max(((a.double() - b).norm() / (b.norm() + 1e-30)).item() for a, b in zip(found, expected, strict=True))


def main(ops: list[str]) -> None:
    report: dict[str, Any] = {}
    for op in ops:
        torch.manual_seed(0)
        launching.LAUNCHED.clear()
        said = report[op] = {
            "float32": 0.0,
            "bfloat16": 0.0,
            "float16": 0.0,
            "repeats": True,
            "alone": True,
            "empty": True,
        }
        for number, (function, tensors) in enumerate(CASES[op](2)):
            exact = run("off", function, [None if t is None else t.double() for t in tensors])
            found = run("on", function, tensors)
            said["float32"] = max(said["float32"], worst(found, exact))
            if number:
                continue
            said["repeats"] = all(map(torch.equal, found, run("on", function, tensors)))
            first = [None if t is None else t[:1] if t.dim() > 2 and len(t) == 2 else t for t in tensors]
            alone = run("on", function, first)
            own = [i for i, t in enumerate(t for t in tensors if t is not None) if t.dim() > 2 and len(t) == 2]
            places = [0, *(len(found) - sum(t is not None for t in tensors) + i for i in own)]
            said["alone"] = all(torch.equal(alone[i], found[i][:1]) for i in places)
            strided = [None if t is None else torch.stack([t, t], -1)[..., 0] for t in first]
            said["strided"] = worst(run("on", function, strided), [t.double() for t in alone]) < 1e-6
            for dtype in () if op in SINGLE else (torch.bfloat16, torch.float16):
                drawn = [None if t is None else t.to(dtype) for t in first]
                exact = run("off", function, [None if t is None else t.double() for t in drawn])
                said[str(dtype).removeprefix("torch.")] = worst(run("on", function, drawn), exact)
        if op not in NEVER_EMPTY:
            function, tensors = CASES[op](0)[0]
            said["empty"] = len(run("on", function, tensors)[0]) == 0
        said["kernels"] = sorted(launching.LAUNCHED)
        said["refused"] = refusal(*CASES[op](2)[0])
        said["twice"] = twice(*CASES[op](1)[0])
        said["autocast"], said["dtypes"] = mixed(*CASES[op](1)[0])
    report["far"], report["grid"] = far(), grid()
    print(json.dumps(report))


def refusal(function: Callable[..., Any], tensors: list[Tensor | None]) -> str:
    """What the op says of float64 under ``RELUME_KERNELS=on``."""
    try:
        run("on", function, [None if t is None else t.double() for t in tensors])
    except UserError as e:
        return str(e)
    return ""


def far() -> dict[str, bool]:
    """By op, of those that take slices of wider maps: whether rows beyond 2^31 elements are found. The file is a sparse one."""
    calls: dict[str, Callable[[Tensor], Any]] = {
        "rms_norm": lambda x: rmsnorm_gated(x, torch.ones(8)),
        "causal_conv1d": lambda x: causal_conv1d(x.transpose(1, 2), torch.ones(8, 3)),
        "ssd": lambda x: ssd(x[:, :, None], *(torch.ones(s) for s in ((1, 3, 1), (1,), (1, 3, 1, 4), (1, 3, 1, 4)))),
    }
    os.environ["RELUME_KERNELS"] = "on"
    with tempfile.NamedTemporaryFile() as file, torch.no_grad():
        x = torch.from_file(file.name, shared=True, size=(1 << 31) + 64).as_strided((1, 3, 8), (1 << 31, 1 << 30, 1))
        x.copy_(torch.randn(1, 3, 8))
        return {
            op: torch.equal(call(x), call(x.clone(memory_format=torch.contiguous_format))) for op, call in calls.items()
        }


def grid() -> str:
    """What is said of a grid that no GPU takes."""
    try:
        launching.launch(layer_norm_triton._forward, (1, 70_000), torch.zeros(1))
    except UserError as e:
        return str(e)
    return ""


def twice(function: Callable[..., Any], tensors: list[Tensor | None]) -> str:
    """What the op says when it is differentiated twice."""
    os.environ["RELUME_KERNELS"] = "on"
    given = [None if t is None else t.detach().requires_grad_() for t in tensors]
    y = function(*given)
    (of,) = torch.autograd.grad((y[0] if isinstance(y, tuple) else y).square().sum(), given[:1], create_graph=True)
    try:
        of.square().sum().backward()
    except (UserError, RuntimeError) as e:
        return str(e)
    return ""


def mixed(function: Callable[..., Any], tensors: list[Tensor | None]) -> tuple[float, list[str]]:
    """Under autocast to bfloat16, of float32: the error, and the dtypes of the results, plain and fused."""
    results = []
    for mode in ("off", "on"):
        os.environ["RELUME_KERNELS"] = mode
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            y = function(*tensors)
        results.append(y[0] if isinstance(y, tuple) else y)
    return worst(results[1:], [results[0].double()]), [str(r.dtype) for r in results]


if __name__ == "__main__":
    main(sys.argv[1:] or list(CASES))
