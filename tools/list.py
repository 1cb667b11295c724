"""List what is registered, one line each with parameters and defaults: ``python tools/list.py [archs losses ...]``."""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts this folder on sys.path; this list.py must not shadow anything.
sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]

import argparse
from collections.abc import Iterator, Sequence

from relume.archs import ARCHS
from relume.core.errors import UserError, did_you_mean
from relume.core.features import FEATURES
from relume.core.imaging.transfer import TRANSFERS
from relume.core.metrics import METRICS
from relume.core.models import MODELS
from relume.core.options.plugins import import_plugin
from relume.core.registry import Parameter, Registry
from relume.core.runtime.optimizers import OPTIMIZERS
from relume.datasets import DATASETS
from relume.losses import LOSSES
from relume.schedulers import SCHEDULERS

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
    registry = FAMILIES[family]
    library = registry.library_names()
    yield f"{family} ({len(registry.names()) + len(library)})"
    for name in [*registry.names(), *library]:
        yield line(registry, name)
    for module, error in registry.unimportable().items():
        yield f"  not available: {module} ({error})"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="list.py", description="List what option files can name.")
    parser.add_argument("families", nargs="*", metavar="family", help=f"any of {', '.join(FAMILIES)}; all when omitted")
    parser.add_argument("--plugins", nargs="+", default=[], help="your own Python files or modules, to be included")
    arguments = parser.parse_args(argv)
    unknown = [f for f in arguments.families if f not in FAMILIES]
    if unknown:
        hint = did_you_mean(unknown[0], FAMILIES)
        parser.error(f"no family is called '{unknown[0]}'.{hint} Known: {', '.join(FAMILIES)}.")
    try:
        for plugin in arguments.plugins:
            import_plugin(plugin, Path.cwd())
        print("\n\n".join("\n".join(listing(f)) for f in arguments.families or FAMILIES))
    except UserError as e:
        print(e, file=sys.stderr)
        return e.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
