"""The JSON Schema of option files, for editors: from the annotations that the checker reads, and from docstrings.

It accepts whatever the checker accepts, and is a little laxer where JSON Schema cannot follow: the options of all model
wrappers are allowed under ``train``, and in a file with a ``_base_`` nothing is required.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import inspect
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, Literal, Union

import torch

from ...datasets import DATASETS
from ..annotations import Epochs, Names, Range, fields
from ..models import MODELS
from ..models.base import Model, model_class
from ..registry import MISSING, Parameter, Registry, registry_of
from ..runtime.optimizers import library
from .checking.keys import FROM_ABOVE, TRAIN_BLOCKS, networks_of, top_level_keys
from .checking.kinds import LISTS, MAPPINGS, expressible, parameters
from .docstrings import arguments, summary
from .reading.reader import BASE
from .schema import PATH_KEYS, NetworkBlock, Options, Paths, Train, Val

JSON = dict[str, Any]
SIMPLE: dict[Any, JSON] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": ["string", "number"]},  # name: 001 is taken as it is written
    None: {"type": "null"},
    type(None): {"type": "null"},
}


def json_schema() -> JSON:
    """The schema of everything registered at this moment, plugins included (draft 2020-12)."""
    return _Builder().build()


class _Builder:
    """Collects definitions while annotations are translated."""

    def __init__(self) -> None:
        self.definitions: dict[str, JSON] = {}
        self.models: dict[str, type[Model]] = {n: model_class(n) for n in MODELS}
        self.networks = sorted({k for m in self.models.values() for k in networks_of(m)})

    def build(self) -> JSON:
        top = self.section(Options)
        top["properties"] = {
            BASE: {
                "description": "Option file(s) to build upon, relative to this one; blocks are merged key by key.",
                "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            },
            **top["properties"],
        }
        required = self.required(Options) or {}
        per_model = [
            case([n, *MODELS.aliases(n)], {"required": [f"network_{k}" for k in m.required_networks]}, "model_type")
            for n, m in self.models.items()
            if m.required_networks
        ]
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$comment": f"Written by `relume schema` with {written_with()}.",
            "title": "Relume options",
            **top,
            "if": {"not": {"required": [BASE]}},
            "then": {**required, **({"allOf": per_model} if per_model else {})},
            "$defs": dict(sorted(self.definitions.items())),
        }

    # ---------------------------------------------------------------- annotations
    def of(self, annotation: Any) -> JSON:
        """The schema of a value."""
        origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return self.annotated(annotation)
        if origin is Literal:
            return {"enum": list(inner)}
        if origin in (Union, types.UnionType):
            return any_of([self.of(a) for a in inner if expressible(a)])
        if annotation in SIMPLE:
            return dict(SIMPLE[annotation])
        if inspect.isclass(annotation) and issubclass(annotation, PurePath):
            return {"type": "string"}
        if (origin or annotation) in LISTS:
            return self.array(origin or annotation, inner)
        if (origin or annotation) in MAPPINGS:
            return self.mapping(*(inner or (str, Any)))
        if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
            return self.reference(annotation.__name__, lambda: self.section(annotation))
        return {}

    def annotated(self, annotation: Any) -> JSON:
        inner, *extras = typing.get_args(annotation)
        registry = registry_of(annotation)
        if registry is not None and inner is str:
            return {"enum": sorted(name for n in registry for name in (n, *registry.aliases(n)))}
        if registry is not None:
            return self.component(registry, next((e for e in extras if isinstance(e, type)), None))
        schema = self.of(inner)
        for extra in extras:
            if isinstance(extra, Range):
                bounds = {
                    "minimum": extra.least,
                    "maximum": extra.most,
                    "exclusiveMinimum": extra.above,
                    "exclusiveMaximum": extra.below,
                }
                schema.update({k: v for k, v in bounds.items() if v is not None})
                if extra.in_epochs:
                    in_epochs = {"type": "string", "pattern": f"^{Epochs.WRITTEN.pattern}$"}
                    schema = {"anyOf": [schema, in_epochs]}
        return schema

    def array(self, origin: Any, inner: tuple[Any, ...]) -> JSON:
        if origin is tuple and inner and Ellipsis not in inner:
            items = [self.of(a) for a in inner]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        return {"type": "array", "items": self.of(inner[0])} if inner else {"type": "array"}

    def mapping(self, keys: Any, values: Any) -> JSON:
        names = next((m for m in getattr(keys, "__metadata__", ()) if isinstance(m, Names)), None)
        if names is None:
            return {"type": "object", "additionalProperties": self.of(values)}
        pattern = {f"^{names.pattern}$": self.of(values)}
        return {"type": "object", "patternProperties": pattern, "additionalProperties": False}

    # ---------------------------------------------------------------- blocks
    def reference(self, name: str, make: Any) -> JSON:
        """A reference to the definition `name`, made on the first mention."""
        if name not in self.definitions:
            self.definitions[name] = {}  # a component may contain its own kind
            self.definitions[name] = make()
        return {"$ref": f"#/$defs/{name}"}

    def properties(self, accepted: Iterable[Parameter], docs: Mapping[str, str]) -> JSON:
        """Schemas of options with their descriptions and defaults."""
        found: JSON = {}
        for p in accepted:
            annotation = Union[p.annotation, None] if p.default is None else p.annotation  # noqa: UP007
            schema = self.of(annotation)
            if docs.get(p.name):
                schema["description"] = docs[p.name]
            if p.default is not MISSING and is_json(p.default):
                schema["default"] = p.default
            found[p.name] = schema
        return found

    def section(self, cls: Any) -> JSON:
        """A fixed section, with the keys that `rules.OptionsChecker` adds to it."""
        # The fields of the class.
        docs = {**arguments(cls), **{f.name: f.metadata["doc"] for f in fields(cls) if "doc" in f.metadata}}
        schema: JSON = {
            "type": "object",
            "description": summary(cls),
            "properties": self.properties(parameters(cls).values(), docs),
            "additionalProperties": False,
        }
        own = schema["properties"]
        # Keys that depend on the networks and the models.
        if cls is Options:
            block = {**any_of([self.of(NetworkBlock), SIMPLE[None]]), "description": "A network, by its architecture."}
            own.update({f"network_{k}": block for k in self.networks})
            for model in self.models.values():
                own.update(self.properties(top_level_keys(model).values(), arguments(model.top_level or model)))
        elif cls is Paths:
            keys = {p + k: v for p, v in PATH_KEYS.items() for k in self.networks}
            own.update({k: {**self.of(kind | None), "description": doc} for k, (kind, doc) in keys.items()})
        if cls in (Train, Val):
            for name, model in self.models.items():
                parameters_here = [
                    p
                    for k, p in MODELS.parameters(name).items()
                    if k not in own and model.takes(k, "val" if cls is Val else "train")
                ]
                own.update(self.properties(parameters_here, arguments(model)))
        if cls is Train:
            blocks = {pattern: any_of([self.of(block), SIMPLE[None]]) for pattern, block in TRAIN_BLOCKS.items()}
            schema["patternProperties"] = blocks
        return schema

    def component(self, registry: Registry, more: type | None) -> JSON:
        """A ``type:`` block: its other keys depend on what ``type`` says."""

        def make() -> JSON:
            names, forms = offered(registry)
            known = {n: [n, *registry.aliases(n)] for n in names}
            cases = [
                case(group, self.reference(f"{registry.noun}.{n}", lambda n=n: self.member(registry, n, more)))
                for n, group in known.items()
            ]
            further = sorted({*registry.further_names()} - {*names})
            exact: JSON = {"enum": [*(name for group in known.values() for name in group), *further]}
            types = {"anyOf": [exact, *({"pattern": f} for f in forms)]} if forms else exact
            return {"type": "object", "properties": {"type": types}, **({"allOf": cases} if cases else {})}

        return self.reference(registry.noun, make)

    def member(self, registry: Registry, name: str, more: type | None) -> JSON:
        """The keys of one registered component."""
        target = registry.get(name)
        properties: JSON = {"type": {"description": summary(target)}}
        properties.update(self.properties(registry.parameters(name).values(), arguments(target)))
        if more is not None:
            properties.update(self.section(more)["properties"])
        return {"description": summary(target), "properties": properties, "additionalProperties": False}

    # ---------------------------------------------------------------- what a file without _base_ must have
    def required(self, annotation: Any) -> JSON | None:
        """The ``required`` lists of a value, kept separate from its shape."""
        origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
        registry = registry_of(annotation)
        if registry is not None and inner[0] is not str:
            return self.reference(f"{registry.noun} (required)", lambda: self.required_of_component(registry))
        if origin in (Union, types.UnionType):
            alternatives = [a for a in inner if a is not type(None)]
            return self.required(alternatives[0]) if len(alternatives) == 1 else None
        if (origin or annotation) in MAPPINGS and inner:
            values = self.required(inner[1])
            return {"additionalProperties": values} if values else None
        if not (isinstance(annotation, type) and dataclasses.is_dataclass(annotation)):
            return None
        fields = parameters(annotation)
        nested = {n: self.required(p.annotation) for n, p in fields.items()}
        schema: JSON = {"properties": {n: s for n, s in nested.items() if s}}
        if annotation is Options:
            schema["patternProperties"] = {"^network_": self.required(NetworkBlock)}
        if annotation is Train:
            schema["patternProperties"] = {k: self.required(block) for k, block in TRAIN_BLOCKS.items()}
            schema["anyOf"] = [{"required": [k]} for k in ("total_iter", "total_epoch")]
        lacking = [n for n, p in fields.items() if p.required]
        if lacking:
            schema["required"] = lacking
        return schema if len(schema) > 1 or schema["properties"] else None

    def required_of_component(self, registry: Registry) -> JSON:
        """``type``, and the parameters without a default of each constructor, but for those that code supplies."""
        supplied = FROM_ABOVE if registry is DATASETS else ()
        cases = []
        for name in offered(registry)[0]:
            needed = [k for k, p in registry.parameters(name).items() if p.required and k not in supplied]
            if needed:
                cases.append(case([name, *registry.aliases(name)], {"required": needed}))
        return {"required": ["type"], "allOf": cases} if cases else {"required": ["type"]}


def written_with() -> str:
    """The packages whose optimizers a schema names, with their versions: ``torch 2.9.0, schedulefree 1.4.1``."""
    found = [f"torch {torch.__version__.split('+')[0]}"]
    for package in library.OTHERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join(found)


def offered(registry: Registry) -> tuple[list[str], list[str]]:
    """The names that a registry has; and of names that libraries have, such as ``timm:<model>``, regular expressions."""
    library = registry.library_names()
    forms = [f"^{re.escape(n.partition('<')[0])}[^<>]+$" for n in library if "<" in n]
    return [*registry.names(), *(n for n in library if "<" not in n)], forms


def case(names: list[str], then: JSON, key: str = "type") -> JSON:
    """What holds when `key` is one of `names`."""
    return {"if": {"properties": {key: {"enum": names}}, "required": [key]}, "then": then}


def any_of(schemas: list[JSON]) -> JSON:
    """Alternatives, simple types joined into one list."""
    simple = [s for s in schemas if set(s) == {"type"}]
    rest = [s for s in schemas if s not in simple]
    kinds = list(dict.fromkeys(k for s in simple for k in ([s["type"]] if isinstance(s["type"], str) else s["type"])))
    joined: list[JSON] = [{"type": kinds[0] if len(kinds) == 1 else kinds}] if kinds else []
    options = [*rest, *joined]
    return options[0] if len(options) == 1 else {"anyOf": options}


def is_json(value: Any) -> bool:
    """Whether a default can be written down in a schema."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
