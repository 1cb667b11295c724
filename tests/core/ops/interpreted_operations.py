"""Operations that are counted of kernels, in the interpreter, beside those of the plain forms; prints JSON."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil

os.environ["TRITON_INTERPRET"] = "1"

import torch

from relume.core import ops
from relume.core.ops import hosts, self_test
from relume.core.runtime.operations import Counted


def counted(op: str, mode: str) -> tuple[int, int, list[str]]:
    """Operations of the case of `op`, forward and backward, and what was not counted."""
    os.environ["RELUME_KERNELS"] = f"{op}=on" if mode == "on" else "off"
    function, shapes = self_test.CASES[op]
    torch.manual_seed(0)
    given = [torch.rand(s) + 0.01 for s in shapes]
    wanted = [t.requires_grad_() for t in (given[:1] if op == "ssim" else given)]
    with Counted() as forward:
        out = function(*given)
    results = [o for o in (out if isinstance(out, tuple) else (out,)) if o.requires_grad]
    with Counted() as backward:
        torch.autograd.grad([o.sum() for o in results], wanted, allow_unused=True)
    return forward.flops, backward.flops, sorted(forward.unknown | backward.unknown)


def main() -> None:
    for module in pkgutil.iter_modules(ops.__path__):
        importlib.import_module(f"relume.core.ops.{module.name}")
    hosts.asks_freely = lambda x: False  # kernels stand for the plain forms of a GPU
    found = {}
    for op in self_test.CASES:
        counted(op, "on")  # the first call is tried against the plain form, which counts too
        found[op] = [counted(op, "on"), counted(op, "off")]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
