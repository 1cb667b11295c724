"""Apply trained weights to pictures, folders, lists, clips or a pipe.

``relume infer -i photos -o restored --weights net_g_best.pth``

``-i`` is a picture, a folder with its sub-folders, a glob in quotes, a list (.txt, a file a line), a clip, or - for standard
input; ``-o`` a folder, a file for one picture, or - for standard output. Weights that Relume wrote say themselves what they
are, those of others are recognised; ``-opt`` names the option file of any other.

A result has the name, the bit depth and the format of its input, unless ``--suffix``, ``--depth`` or ``--format`` say
otherwise. Nothing is overwritten without ``--force``; an interrupted run goes on where it was when it is given again. Inputs
that cannot be read are named and passed over, and the exit code is then 2.
"""

from __future__ import annotations

import argparse
import sys

from ..errors import UserError
from ..imaging.video_codecs import Encoding
from ..inference.self_ensemble import SYMMETRIES
from ..runtime import devices, logger
from ..runtime.distributed import named_device
from ..use.inputs import STANDARD
from ..use.results import InferRequest, Results
from ._arguments import add_encoding, add_model, named

DTYPES = {"float32": "off", "bfloat16": "bf16", "float16": "fp16", "fp32": "off", "bf16": "bf16", "fp16": "fp16"}


RUNS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    # What goes in and out.
    parser.add_argument("-i", "--input", required=True, metavar="PATH", help="picture, folder, glob, list, clip, or -")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder, file for one picture, or -")
    add_model(parser)
    parser.add_argument("--param_key", metavar="KEY", help="entry of the weights file; the average where there is one")
    parser.add_argument("--suffix", default="", help="added to the names of results")
    parser.add_argument(
        "--format", metavar="EXT", help="format of results, such as png, exr or mp4; the input's when omitted"
    )
    parser.add_argument(
        "--depth",
        type=int,
        choices=(8, 10, 12, 16, 32),
        help="bits per sample (clips: 8, 10, 12); the input's when omitted",
    )
    add_encoding(parser)
    # How it is computed.
    parser.add_argument("--outscale", type=float, metavar="X", help="size of results / size of inputs")
    parser.add_argument(
        "--tile", type=int, metavar="N", help="side of tiles, 0 for none; what memory holds when omitted"
    )
    parser.add_argument(
        "--tile_overlap", type=int, metavar="N", help="overlap of tiles; what the network needs when omitted"
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="pictures of one size at a time (1)")
    parser.add_argument(
        "--dtype", choices=tuple(DTYPES), default="float32", help="precision of the computation (float32)"
    )
    parser.add_argument("--compile", action="store_true", help="compile the network first: slower to start")
    parser.add_argument(
        "--self-ensemble",
        "--self_ensemble",
        dest="ensemble",
        nargs="?",
        const="dihedral",
        choices=tuple(SYMMETRIES),
        help="average the answers for mirrored and turned inputs; all eight when nothing is named",
    )
    parser.add_argument("--force", action="store_true", help="overwrite results that are there")
    parser.add_argument("--device", default=devices.chosen().type)


def request(a: argparse.Namespace) -> InferRequest:
    """What the command line asks for.

    Raises:
        UserError: it asks for what cannot be.
    """
    for name, value, least in (("tile", a.tile, 0), ("tile_overlap", a.tile_overlap, 0), ("batch", a.batch, 1)):
        if value is not None and value < least:
            raise UserError(f"--{name}: must be at least {least}, not {value}")
    if a.outscale is not None and not 0 < a.outscale <= 64:
        raise UserError(f"--outscale: must be above 0 and at most 64, not {a.outscale:g}")
    if "/" in a.suffix:
        raise UserError(f"--suffix: '{a.suffix}' is to be part of a name; give another folder with -o")
    return InferRequest(
        source=a.input,
        target=a.output,
        ending=a.suffix,
        format=None if a.format is None else f".{a.format.lower().lstrip('.')}",
        bits=a.depth,
        outscale=a.outscale,
        tile=a.tile,
        overlap=a.tile_overlap,
        batch=a.batch,
        dtype=DTYPES[a.dtype],
        compiled=a.compile,
        ensemble=a.ensemble,
        force=a.force,
        param_key=a.param_key,
        encoding=Encoding(a.codec, a.crf, a.pix_fmt),
    )


def run(a: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: results are piped, and standard output is a terminal.
    """
    wanted = request(a)
    piped = a.output == STANDARD
    if piped and sys.stdout.isatty():
        raise UserError("-o -: standard output is a terminal; pipe it into a program or a file")
    if not piped:
        logger.start_console()
    results = Results(wanted, *named(a.opt, a.weights), device=named_device(a.device))
    results.make()
