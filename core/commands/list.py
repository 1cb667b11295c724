"""List what option files can name: every component with its parameters and defaults.

``relume list [archs losses ...]``
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from ...archs import ARCHS, zoo
from ...datasets import DATASETS
from ...losses import LOSSES
from ...schedulers import SCHEDULERS
from ..errors import UserError, did_you_mean
from ..features import FEATURES
from ..imaging.transfer import TRANSFERS
from ..metrics import METRICS
from ..models import MODELS
from ..options import shipped
from ..options.plugins import activate
from ..registry import Parameter, Registry
from ..runtime.optimizers import OPTIMIZERS
from ..runtime.optimizers.library import OTHERS, of_others
from . import _arguments

FAMILIES: dict[str, Registry] = {
    "archs": ARCHS,
    "models": MODELS,
    "losses": LOSSES,
    "datasets": DATASETS,
    "schedulers": SCHEDULERS,
    "metrics": METRICS,
    "optimizers": OPTIMIZERS,
    "features": FEATURES,
    "transfers": TRANSFERS,
}

OPTIONS = "options"
"""Not a registry: the option files that come with Relume. Listed only when asked for."""


def spelled(parameter: Parameter) -> str:
    """``dim``, or ``dim=16`` where there is a default."""
    return parameter.name if parameter.required else f"{parameter.name}={parameter.default!r}"


def line(registry: Registry, name: str) -> str:
    """One component: its name, other names, parameters."""
    aliases = registry.aliases(name)
    also = f" (also {', '.join(aliases)})" if aliases else ""
    return f"  {name}({', '.join(map(spelled, registry.parameters(name).values()))}){also}"


def listing(family: str) -> Iterator[str]:
    """The lines of one family."""
    if family == OPTIONS:
        yield from (f"{name}: {purpose}" for name, purpose in shipped.purposes().items())
        return
    registry = FAMILIES[family]
    library = registry.library_names()
    yield f"{family} ({len(registry.names()) + len(library)})"
    for name in [*registry.names(), *(library if registry is not ARCHS else ())]:
        yield line(registry, name)
    if registry is ARCHS:  # their parameters are known only once spandrel has been imported, which takes seconds
        yield "  from spandrel, each with its licence (relume explain NAME has the parameters):"
        for name in library:
            yield f"    {name} ({zoo.about(name)})"
        if missing := zoo.restricted():
            yield f"  {zoo.EXTRA_LIBRARY}, under restrictive licences, is not installed: {', '.join(missing)}"
    if registry is OPTIMIZERS:
        others = sorted({*of_others()} - {*registry.names(), *library})
        yield f"  from {' and '.join(OTHERS)} (pip install 'relume[optimizers]'):"
        yield f"    {', '.join(others) or 'not installed'}"
    for module, error in registry.unimportable().items():
        yield f"  not available: {module} ({error})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument(
        "families",
        nargs="*",
        metavar="family",
        help=f"any of {', '.join(FAMILIES)} (all when omitted), or {OPTIONS}, the option files that come with Relume",
    )
    parser.add_argument("--plugins", nargs="+", default=[], help="your own Python files or modules, to be included")
    _arguments.add_trust(parser)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: no family has that name.
    """
    known = [*FAMILIES, OPTIONS]
    unknown = [f for f in arguments.families if f not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known)
        raise UserError(f"no family is called '{unknown[0]}'.{hint} Known: {', '.join(known)}.")
    activate(())
    _arguments.include_plugins(arguments)
    print("\n\n".join("\n".join(listing(f)) for f in arguments.families or FAMILIES))
