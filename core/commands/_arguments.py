"""Arguments that several subcommands have: the option file, and what overrides it."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator

from .. import options
from ..errors import UserError
from ..files import trust
from ..hub import PREFIX, local
from ..runtime import gate, streams

FILE = "option file (YAML), or relume:NAME of a shipped one"


def add_option_file(parser: argparse.ArgumentParser, positional: bool = False) -> None:
    """``-opt FILE``; with `positional`, ``FILE`` alone as well. Without either, argparse complains."""
    if not positional:
        parser.add_argument("-opt", "--opt", required=True, metavar="FILE", help=FILE)
        return
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("file", nargs="?", metavar="FILE", help=FILE)
    either.add_argument("-opt", "--opt", metavar="FILE", help="the same, as for train and test")


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """``--force_yml a:b=v ...`` and ``--allow_duplicate_keys``."""
    parser.add_argument(
        "--force_yml", nargs="+", default=[], metavar="a:b=v", help="override options, e.g. train:ema_decay=0.99"
    )
    parser.add_argument(
        "--allow_duplicate_keys",
        action="store_true",
        help="take the last of two equal keys, as BasicSR does",
    )
    add_trust(parser)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """``--trust_plugins``."""
    parser.add_argument(
        trust.FLAG, action="store_true", help="run plug-ins that a file outside the working directory names, too"
    )


def include_plugins(arguments: argparse.Namespace) -> None:
    """Have the plug-ins of the command line, ``plugins``, be known; those from elsewhere are read, and not run."""
    from ..options import reference
    from ..options.plugins import include
    from ..options.plugins.unrun import UnrunPlugin
    from ..registry import plugged

    streams.note(*include(arguments.plugins))
    for plugin in (p for p in plugged.active() if isinstance(p, UnrunPlugin)):
        for registry, _ in reference.FAMILIES.values():
            for name in plugin.names(registry):
                registry.get(name)


def add_debug(parser: argparse.ArgumentParser) -> None:
    """``--debug``."""
    parser.add_argument(
        "--debug", action="store_true", help="16 steps, log each, validate every 8, no trackers, name debug_*"
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """BasicSR's arguments of a run: option file, launcher, ``--debug``, ``--check``, ``--force_yml``."""
    add_option_file(parser)
    parser.add_argument(
        "--launcher", choices=("none", "pytorch", "slurm"), default="none", help="who started this process"
    )
    add_debug(parser)
    parser.add_argument(
        "--check", action="store_true", help="check the option file and stop; touches no data and no GPU"
    )
    add_overrides(parser)
    parser.add_argument("--local_rank", "--local-rank", type=int, default=None, help=argparse.SUPPRESS)


def add_model(parser: argparse.ArgumentParser) -> None:
    """``-opt FILE`` and ``--weights FILE``: a trained model, see `named`."""
    add_trust(parser)
    parser.add_argument("-opt", "--opt", metavar="FILE", help=f"{FILE}; weights that training wrote do without")
    parser.add_argument(
        "--weights", metavar="FILE", help="weights; those of path.pretrain_network_g in the option file when omitted"
    )


def add_encoding(parser: argparse.ArgumentParser) -> None:
    """``--codec``, ``--crf`` and ``--pix_fmt``: how clips are written."""
    parser.add_argument(
        "--codec", metavar="NAME", help="codec of clips: h264, hevc, av1, vp9, prores, ffv1, mjpeg, mpeg4"
    )
    parser.add_argument("--crf", type=float, metavar="N", help="constant rate factor of clips: smaller is better")
    parser.add_argument("--pix_fmt", metavar="NAME", help="pixel format of clips: yuv420p10le, yuv444p, ...")


def named(opt: str | None, weights: str | None) -> tuple[str, str | None]:
    """The first arguments of `load.load_model` for what `add_model` was given.

    Raises:
        UserError: neither.
    """
    if not (opt or weights):
        raise UserError("which model? Give --weights FILE, -opt FILE, or both")
    return (str(local(weights)) if weights.startswith(PREFIX) else weights, opt) if weights else (str(opt), None)


def option_file(arguments: argparse.Namespace) -> str:
    """The option file, however it was given."""
    return str(arguments.opt or arguments.file)


def load(arguments: argparse.Namespace) -> options.Options:
    """The options of a run; see `resolve`."""
    return resolve(arguments).options


@contextlib.contextmanager
def run_of(arguments: argparse.Namespace) -> Iterator[options.Resolved]:
    """The options of a run, to be run inside: an error that is of one of them gets its place in the option file.

    Raises:
        UserError: see `resolve`; or raised inside.
    """
    resolved = resolve(arguments)
    token = gate.commanded.set(True)
    try:
        try:
            yield resolved
        except Exception as e:
            if isinstance(e, UserError) or (said := gate.said_of(e)) is None:
                raise
            raise said from e
    except UserError as e:
        place = resolved.place_of(e.key) if e.key is not None else None
        if place is not None:
            e.args = (f"{place}: {e}",)
        elif e.key is None:
            e.args = ("\n".join(placed(line, resolved) for line in str(e).split("\n")),)
        raise
    finally:
        gate.commanded.reset(token)


def placed(line: str, resolved: options.Resolved) -> str:
    """A line that begins with an option's dotted key, or ends with it in brackets, ``(path.resume_state)``, with its place in
    front."""
    key = re.search(r"\(((?:path|datasets)\.[\w.\[\]]+)\)$", line) or re.match(r"(\w+\.[\w.\[\]]*\w\]*)(?=[:\s])", line)
    place = resolved.origins.get(key[1]) if key else None
    return f"{place}: {line}" if place else line


def resolve(arguments: argparse.Namespace) -> options.Resolved:
    """The options of a run, as its arguments ask for them, and where each comes from.

    Raises:
        UserError: what is wrong in the file.
    """
    if getattr(arguments, "local_rank", None) is not None:
        # python -m torch.distributed.launch says it here, torchrun in the environment
        os.environ.setdefault("LOCAL_RANK", str(arguments.local_rank))
    twice = arguments.allow_duplicate_keys
    resolved = options.resolve(option_file(arguments), arguments.force_yml, allow_duplicate_keys=twice)
    debug = arguments.debug or "debug" in resolved.options.name  # BasicSR's rule
    return dataclasses.replace(resolved, options=options.as_debug(resolved.options)) if debug else resolved
