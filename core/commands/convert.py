"""Turn a checkpoint of an original into Relume's, names as they were: .safetensors or .pth.

``relume convert ORIGINAL OUT.safetensors [-opt FILE.yml] [--stub MODULE ...]``

Reads bare state dicts, the usual wrappings of them, pickles of whole modules, and the pickles of EDM that carry
the source code of their classes, without importing or running anything that such a pickle names or carries. A .pth file
holds ``{params: state dict}``.

``-opt`` names an option file whose ``network_g`` the weights are for. Names and shapes are then compared. Left out are
parameters that never had an effect in the original, if the network does without (``drop_dead: true``), and the embedding of
augmentations of EDM's networks; the embedding of classes stays as initialised where the file has none. Any other difference
is an error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ...archs import build_network
from .. import options
from ..errors import UserError, require
from ..options import Options, description
from ..runtime import checkpoint, pickles, weights
from ..runtime.weights import refuse_nonfinite, refuse_other_kinds
from ._arguments import add_trust

STUBBED = (
    "__main__",
    "final_model",
    "final_model_AGSSF1",
    "Final_model_AGSSF",
    "model",
    "model_with_eca",
    "model_without_CA",
    "network1",
    "phaseformer",
    "spectroformer_paper",
)
"""Modules that the originals' classes were defined in, as whole-module pickles name them."""
WRITTEN = (".safetensors", ".pth")
"""Suffixes of files that are written here."""


class Fitted(NamedTuple):
    """Weights as a network holds them.

    Attributes:
        state: all that the network has.
        dropped: names that it leaves out (dead parameters).
        fresh: names that the weights lack, and that are as initialised.
    """

    state: dict[str, Tensor]
    dropped: list[str]
    fresh: list[str]


def fitted(state: dict[str, Tensor], block: Mapping[str, Any]) -> Fitted:
    """`state`, of today's names or of those of an older release, as the network of `block` holds it.

    Raises:
        UserError: other differences in names or shapes.
    """
    network = build_network(block)
    own = network.state_dict()
    given = in_own_names(state, network)
    refuse_other_kinds(given, own, "the weights")
    state = {k: v for k, v in given.items() if k in own or k != "model.map_augment.weight"}
    if "model.map_layer0.weight" in state:  # one of EDM's
        state = {**{k: v for k, v in own.items() if k.startswith("model.map_label.")}, **state}
    try:
        network.load_state_dict(state)
    except RuntimeError:
        problems = [f"{k} is missing" for k in own if k not in state]
        problems += [
            f"{k} is {tuple(state[k].shape)}, not {tuple(v.shape)}"
            for k, v in own.items()
            if k in state and state[k].shape != v.shape
        ]
        problems += [f"{k} is unknown" for k in state if k not in own]
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"the weights do not fit {block['type']}: {'; '.join(problems[:3])}{more}") from None
    return Fitted(dict(network.state_dict()), [k for k in given if k not in own], [k for k in own if k not in given])


def in_own_names(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """`state`, tensors of any shape, with the names of a network that knows those of an older release.

    Afterwards the network holds what fits.
    """
    seen = dict[str, Tensor]()
    hook = network.register_load_state_dict_pre_hook(lambda module, found, prefix, *_: seen.update(found))
    with contextlib.suppress(RuntimeError):  # of what does not fit, which is explained later
        network.load_state_dict(dict(state), strict=False)
    hook.remove()
    return seen if seen.keys() - state.keys() else state


def convert(source: Path, target: Path, opt: Options | None = None, stubbed: Sequence[str] = ()) -> str:
    """Convert one file; a line that says what was done.

    With options the file says which network it is for; without, it says so if the source did.

    Args:
        opt: checked options whose ``network_g`` the weights must fit.
        stubbed: modules of the classes in a pickled network.

    Raises:
        UserError: it cannot be read, or does not fit the network of `opt`; `target` exists, or is of another format.
    """
    if target.suffix.lower() not in WRITTEN:
        raise UserError(f"{target}: is to end in {' or '.join(WRITTEN)}")
    if target.exists():
        raise UserError(f"{target}: is there already; remove it first")
    found = pickles.unpickle(source, (*STUBBED, *stubbed))
    state = pickles.state_dict(found, source)
    notes = ""
    about = weights.about_itself(found)
    if opt is not None:
        about = description.weights_description(opt)
        state, dropped, fresh = fitted(state, opt.networks["g"])
        notes += (
            f", without {len(dropped)} that the network does not have ({', '.join(dropped[:3])})" if dropped else ""
        )
        notes += f"; not in the original, as initialised: {', '.join(fresh)}" if fresh else ""
    refuse_nonfinite(state, source)
    if about is not None:
        about = {**about, "average": None}
    if target.suffix.lower() == ".safetensors":
        module = require("safetensors.torch", str(target))
        metadata = {} if about is None else {weights.ABOUT: json.dumps(about)}
        checkpoint.write_atomically(target, lambda file: file.write(module.save(state, metadata)))
    else:
        checkpoint.save(target, {"params": state, **({} if about is None else weights.described(about))})
    return f"{target}: {len(state)} tensors, {sum(v.numel() for v in state.values()):,} numbers{notes}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("original", type=Path, help="checkpoint of an original")
    parser.add_argument("out", type=Path, help="file to write, .safetensors or .pth")
    parser.add_argument("-opt", "--opt", help="option file whose network_g the weights must fit")
    add_trust(parser)
    parser.add_argument(
        "--stub", nargs="+", default=[], metavar="MODULE", help="modules of the pickled network's classes"
    )


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    opt = options.load(arguments.opt) if arguments.opt else None
    print(convert(arguments.original, arguments.out, opt, arguments.stub))
