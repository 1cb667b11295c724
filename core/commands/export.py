"""Write trained weights as a file that runs elsewhere: .onnx, .safetensors, .pt2.

``relume export --weights net_g_best.pth -o net.onnx``

The file is a function of one picture, (N, C, H, W) RGB in [0, 1], of any size where the network allows, and is run and compared
with torch on three sizes before it is written. ONNX needs ``pip install 'relume[export]'``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import UserError
from ..load import load
from ..use.export import TOLERANCE, Report, to_onnx, to_program, to_safetensors
from ..use.functions import subject_of
from ..use.results import loaded, quiet
from ._arguments import add_model, named

FORMATS = (".onnx", ".safetensors", ".pt2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    add_model(parser)
    parser.add_argument("--param_key", metavar="KEY", help="entry of the weights file; the average where there is one")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="file to write: .onnx, ...")
    parser.add_argument("--fp16", action="store_true", help="weights of half the size; input and output stay float32")
    parser.add_argument("--tolerance", type=float, help="largest difference that is accepted (0.001; 0.02 with --fp16)")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="size of the one input of networks that allow one only (64 96)",
    )
    parser.add_argument(
        "--aoti", action="store_true", help="make of a .pt2 file a package compiled by AOTInductor for this machine"
    )
    parser.add_argument("--force", action="store_true", help="overwrite the file")


def run(a: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: options do not go together, the file is there already, or the model cannot be exported.
    """
    # Options that do not go together.
    target: Path = a.output.expanduser()
    form = target.suffix.lower()
    if form not in FORMATS:
        raise UserError(f"-o: {target.name} is to end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if a.aoti and form != ".pt2":
        raise UserError(f"--aoti: is of .pt2, not {form}")
    if a.fp16 and form == ".pt2":
        raise UserError("--fp16: is of .onnx and .safetensors")
    if a.tolerance is not None and not a.tolerance >= 0:
        raise UserError(f"--tolerance: must be at least 0, not {a.tolerance:g}")
    if target.exists() and not a.force:
        raise UserError(f"{target}: is there already; --force overwrites")
    # The model.
    source, opt = named(a.opt, a.weights)
    with quiet():
        restorer = load(source, opt, param_key=a.param_key, device="cpu")
    try:
        subject = subject_of(restorer)
    except UserError as e:
        raise UserError(f"{source}: {e}") from e
    print(loaded(restorer, source))
    # The file, compared with the model.
    kind = "float16" if a.fp16 else "float32"
    tolerance = TOLERANCE[kind] if a.tolerance is None else a.tolerance
    size = None if a.size is None else (a.size[0], a.size[1])
    if size is not None and min(size) < 1:
        raise UserError("--size: height and width are to be at least 1")
    try:
        with quiet():
            if form == ".onnx":
                report = to_onnx(subject, target, a.fp16, tolerance, size)
            elif form == ".pt2":
                report = to_program(subject, target, tolerance, a.aoti, size)
            else:
                report = to_safetensors(subject, target, a.fp16, tolerance)
    except UserError as e:
        raise UserError(f"{target}: {e}") from e
    print(said(target, report, kind))


def said(target: Path, report: Report, kind: str) -> str:
    """The line that says what was written."""
    free = " and ".join(report.dynamic) or "no size"
    opset = f", opset {report.opset}" if report.opset else ""
    return (
        f"{target}: {target.stat().st_size / 2**20:.1f} MiB, {kind}{opset}, any {free}, scale {report.scale}; largest "
        f"difference from torch on {report.sizes} inputs: {report.difference:.2g}"
    )
