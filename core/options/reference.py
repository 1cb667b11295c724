"""What there is to say of every key of an option file: meaning, type, default, place, an example."""

from __future__ import annotations

import functools
import typing
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ...archs import ARCHS
from ...datasets import DATASETS
from ...datasets.loading.options import Loader
from ...losses import LOSSES
from ...schedulers import SCHEDULERS
from ..annotations import Names, Range, fields, plain
from ..files.ceilings import Ceilings
from ..metrics import METRICS, MetricKeys
from ..models import MODELS
from ..models.base import model_class
from ..registry import Parameter, Registry
from ..runtime.distributed import Dist
from ..runtime.logger import Logger
from ..runtime.optimizers import OPTIMIZERS, OptimizerKeys
from ..runtime.speed import Profile
from ..runtime.trackers import MLflow, Wandb
from . import docstrings, shipped
from .checking.kinds import parameters
from .checking.words import describe
from .json_schema import is_json
from .reading.loader import YAMLLoader, spelled
from .schema import PATH_KEYS, Best, Options, Paths, Train, Val

SECTIONS: dict[str, type] = {
    "datasets": Loader,
    "path": Paths,
    "train": Train,
    "train.profile": Profile,
    "val": Val,
    "val.best": Best,
    "data": Ceilings,
    "logger": Logger,
    "logger.wandb": Wandb,
    "logger.mlflow": MLflow,
    "dist_params": Dist,
}
"""Sections of an option file by their key; keys of `datasets` stand in each of its blocks."""
FAMILIES: dict[str, tuple[Registry, str]] = {
    "archs": (ARCHS, "network_<key>"),
    "datasets": (DATASETS, "datasets.<phase>"),
    "losses": (LOSSES, "train.<name>_opt"),
    "optimizers": (OPTIMIZERS, "train.optim_<key>"),
    "schedulers": (SCHEDULERS, "train.scheduler"),
    "metrics": (METRICS, "val.metrics.<name>"),
}
"""Registries whose members are ``type:`` blocks, and where such a block stands."""
MORE: dict[str, type] = {"optimizers": OptimizerKeys, "metrics": MetricKeys}
"""Keys that such blocks have besides their constructor's."""
ACCEPTED = "Accepted "
"""How the description of a key begins that has no effect here, and is there for other frameworks' files."""


@dataclass(frozen=True)
class Key:
    """One key of an option file.

    Attributes:
        owner: the section (``val``, empty for the top level) or component (``CharbonnierLoss``) that has it.
        name: name of the key.
        parameter: annotation and default of the key.
        text: description of the key.
        place: dotted path of the block in which it stands.
    """

    owner: str
    name: str
    parameter: Parameter
    text: str
    place: str

    @property
    def kind(self) -> str:
        """Its type in words, with bounds."""
        bounds = [str(r) for r in _extras(self.parameter.annotation) if isinstance(r, Range) and str(r)]
        names = [", ".join(n.examples) for n in _extras(self.parameter.annotation) if isinstance(n, Names)]
        words = describe(self.parameter.annotation)
        if self.parameter.default is None and "null" not in words:
            words += " or null"
        return ", ".join([words, *bounds, *names])

    @property
    def default(self) -> str:
        """Its default as YAML, ``required`` without one."""
        if self.parameter.required:
            return "required"
        value = default_of(self.parameter)
        return spelled(value) if is_json(value) else f"{value!r}"

    @property
    def counts_iterations(self) -> bool:
        """Whether it is a number of iterations, which may be given in epochs."""
        return any(isinstance(r, Range) and r.in_epochs for r in _extras(self.parameter.annotation))

    @property
    def has_effect(self) -> bool:
        """Whether it does anything here."""
        return not self.text.startswith(ACCEPTED)


def default_of(parameter: Parameter) -> Any:
    """The default of a key; of one that is made by a factory, what it makes."""
    value = parameter.default
    made = value() if isinstance(value, type) else value
    return plain(made) if isinstance(made, Mapping) else made


def first_sentence(words: str) -> str:
    """The first sentence of a description, on one line."""
    end = words.find(". ")
    return " ".join((words if end < 0 else words[: end + 1]).replace("``", "").split())


def _extras(annotation: Any) -> Iterator[Any]:
    """What ``Annotated`` adds, at any depth of unions and lists."""
    yield from getattr(annotation, "__metadata__", ())
    for inner in typing.get_args(annotation):
        if not isinstance(inner, (Range, Names, Registry, str)):
            yield from _extras(inner)


def section(name: str) -> list[Key]:
    """The keys of a section, of the top level when `name` is empty; those that models bring are `model_keys`.

    Raises:
        KeyError: there is no such section.
    """
    cls = SECTIONS[name] if name else Options
    docs = {f.name: f.metadata.get("doc", "") for f in fields(cls)}
    inside = "datasets.<phase>." if name == "datasets" else f"{name}." if name else ""
    found = [Key(name, k, p, docs[k], f"{inside}{k}") for k, p in parameters(cls).items()]
    if cls is Paths:
        for prefix, (annotation, doc) in PATH_KEYS.items():
            found.append(Key(name, f"{prefix}g", Parameter(f"{prefix}g", annotation, None), doc, f"path.{prefix}<key>"))
    return found


def model_keys(model_type: str, section: str) -> list[Key]:
    """The keys that a model wrapper adds to ``train`` or ``val``."""
    kind = model_class(model_type)
    docs = docstrings.arguments(kind)
    return [
        Key(section, k, p, docs.get(k, ""), f"{section}.{k}")
        for k, p in MODELS.parameters(model_type).items()
        if kind.takes(k, section)
    ]


def component(family: str, name: str) -> list[Key]:
    """The keys of a registered component, or of a library's.

    Raises:
        UserError: nothing is called so.
    """
    registry, place = FAMILIES[family]
    docs = docstrings.arguments(registry.get(name))
    found = [Key(name, k, p, docs.get(k, ""), f"{place}.{k}") for k, p in registry.parameters(name).items()]
    more = MORE.get(family)
    if more is not None:
        own = {f.name: f.metadata.get("doc", "") for f in fields(more)}
        found += [Key(name, k, p, own[k], f"{place}.{k}") for k, p in parameters(more).items()]
    return found


def families_of(name: str, libraries: bool = True) -> list[str]:
    """The families with a component called `name`.

    Args:
        libraries: whether libraries, some of which take seconds to import, are asked for a name that nothing else has.
    """
    known = [family for family, (registry, _) in FAMILIES.items() if registry.at_hand(name)]
    if known or not libraries:
        return known
    return [family for family, (registry, _) in FAMILIES.items() if name in registry]


def iterations_in(opt: Options) -> set[str]:
    """Dotted keys of these options that are numbers of iterations."""
    found = {k.place for s in ("train", "val", "logger") for k in section(s) if k.counts_iterations}
    found |= {k.place.replace("<phase>", "train") for k in section("datasets") if k.counts_iterations}
    found |= {k.place for s in ("train", "val") for k in model_keys(opt.model_type, s) if k.counts_iterations}
    for name, block in (opt.train or {}).items():
        kind = str(block.get("type")) if isinstance(block, Mapping) else ""
        families = [f for f in ("schedulers", "losses") if kind in FAMILIES[f][0]]
        found |= {f"train.{name}.{k.name}" for f in families for k in component(f, kind) if k.counts_iterations}
    return found


def uses(key: Key) -> list[tuple[str, Any]]:
    """Shipped option files that give the key themselves, with the value there."""
    found = []
    for file, entries in _written().items():
        values = [v for place, v in entries if _is(key, place)]
        found += [(file, values[0])] if values else []
    return found


def by_use(family: str) -> list[str]:
    """The names of a family, a library's included, those first that most shipped option files name."""
    counts = Counter(kind for entries in _written().values() for (_, kind, name), _ in entries if name == "type")
    registry = FAMILIES[family][0]
    return sorted(dict.fromkeys([*registry, *registry.library_names()]), key=lambda name: -counts[name])


@functools.cache
def _written() -> dict[str, list[tuple[tuple[str, str | None, str], Any]]]:
    """What stands in every shipped option file, see `_entries`."""
    found = {}
    for file in shipped.names():
        text = shipped.located(file).read_text(encoding="utf-8")
        content = yaml.load(text, Loader=YAMLLoader)  # a SafeLoader  # noqa: S506  # nosec B506
        found[file] = list(_entries(content or {}, "", None))
    return found


def _entries(block: Any, where: str, kind: str | None) -> Iterator[tuple[tuple[str, str | None, str], Any]]:
    """Every key below a block: ``(dotted block, its type if it has one, key)``, and its value."""
    if isinstance(block, Mapping):
        kind = block.get("type") if isinstance(block.get("type"), str) else None
        for k, v in block.items():
            yield (where, kind, str(k)), v
            yield from _entries(v, f"{where}.{k}" if where else str(k), kind)
    elif isinstance(block, list):
        for inner in block:
            yield from _entries(inner, where, kind)


def _is(key: Key, place: tuple[str, str | None, str]) -> bool:
    where, kind, name = place
    if name != key.name:
        return False
    if key.owner == "datasets":
        return where.startswith("datasets.") and where.count(".") == 1
    return where == key.owner if key.owner in ("", *SECTIONS) else kind == key.owner
