"""Option files as a text with every key, its value and what it means: to start from, without includes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..annotations import plain
from ..models.base import model_class
from ..registry import Registry
from . import reference
from .checking.keys import FROM_ABOVE
from .json_schema import is_json
from .reading.loader import spelled
from .reference import Key
from .schema import Options

INDENT = "  "
WEIGHTS = "pretrain_network_g"
WIDEST = 60
"""Columns after which a comment stands above its key, not beside."""
BLOCKS = (("network_", "archs"), ("optim_", "optimizers"), ("scheduler", "schedulers"))


def text(opt: Options, head: Iterable[str] = ()) -> str:
    """The options as YAML that loads to the same, with a comment at every key.

    Args:
        opt: checked options.
        head: lines of a comment above.
    """
    lines = [f"# {line}".rstrip() for line in head]
    values = plain(opt)
    for key in reference.section(""):
        if key.name in ("is_train", "plugins") and not values[key.name]:
            continue
        if key.name == "datasets":
            lines += ["", *networks(values), "", *datasets(values["datasets"])]
        elif key.name in reference.SECTIONS:
            block = values[key.name]
            lines += ["", f"{key.name}:  # {key.text}", *section(key.name, block, opt.model_type)] if block else []
        elif key.has_effect:
            lines.append(entry(key, values[key.name], ""))
    more = [k for k in opt.extra if not k.startswith("network_")]  # what the model takes at the top level
    lines += ["", *(f"{k}: {spelled(values[k])}" for k in more)] if more else []
    return "\n".join(lines) + "\n"


def networks(values: Mapping[str, Any]) -> Iterator[str]:
    """The ``network_*`` blocks."""
    for name, block in values.items():
        if name.startswith("network_"):
            yield from component(name, "archs", block, "")


def datasets(blocks: Mapping[str, Any]) -> Iterator[str]:
    """The ``datasets`` section: of each block the keys of its type, then those of loading."""
    loading = reference.section("datasets")
    names = {k.name for k in loading}
    yield "datasets:"
    for phase, block in blocks.items():
        own = {k: v for k, v in block.items() if k not in names}
        yield from component(phase, "datasets", own, INDENT, skip=FROM_ABOVE)
        yield from (entry(k, block[k.name], INDENT * 2) for k in loading if k.has_effect)


def section(name: str, block: Mapping[str, Any], model_type: str) -> Iterator[str]:
    """The keys of a section, components in it as blocks of their own."""
    # Keys of the section, and those that the model reads there.
    own = reference.section(name)
    models = reference.model_keys(model_type, name) if name in ("train", "val") else []
    keys = {k.name: k for k in [*own, *models] if not is_pattern(k)}
    elsewhere = model_class(model_type).shared_options if name == "val" else ()
    # First what the section declares, then the rest of the block, then what is left out, with its default.
    for key in own:
        if f"{name}.{key.name}" in reference.SECTIONS and isinstance(block.get(key.name), Mapping):
            yield f"{INDENT}{key.name}:  # {key.text}"
            yield from (INDENT + line for line in section(f"{name}.{key.name}", block[key.name], model_type))
        elif key.name == "metrics" and block[key.name]:
            yield f"{INDENT}metrics:  # {key.text}"
            for label, metric in block["metrics"].items():
                yield from component(label, "metrics", metric, INDENT * 2)
        elif key.has_effect and key.name in block and not is_block(block[key.name]) and not is_pattern(key):
            yield entry(key, block[key.name], INDENT)
    for label, value in block.items():
        if label in keys and keys[label] not in own:
            yield entry(keys[label], value, INDENT)
        elif is_block(value):
            yield from component(label, family_of(label), value, INDENT)
        elif label not in keys:
            yield f"{INDENT}{label}: {spelled(value)}"
    if name == "path":
        yield from (entry(k, None, INDENT) for k in own if k.name == WEIGHTS and k.name not in block)
    for label, key in keys.items():
        default = reference.default_of(key.parameter)
        given = label in block or label in elsewhere
        if key not in own and not given and not key.parameter.required and is_json(default):
            yield entry(key, default, INDENT)


def is_pattern(key: Key) -> bool:
    """Whether a key stands for several, one for each network."""
    return "<" in key.place and key.owner == "path"


def is_block(value: Any) -> bool:
    """Whether a value is a ``type:`` block."""
    return isinstance(value, Mapping) and "type" in value


def family_of(label: str) -> str:
    """The family of components to which a block under ``train``, or a network, belongs by its key."""
    return next((family for prefix, family in BLOCKS if label.startswith(prefix)), "losses")


def component(
    label: str, family: str, block: Mapping[str, Any], indent: str, skip: Iterable[str] = ()
) -> Iterator[str]:
    """A ``type:`` block with all of its keys, given or by default."""
    registry: Registry = reference.FAMILIES[family][0]
    kind = block["type"]
    yield f"{indent}{label}:"
    yield f"{indent}{INDENT}type: {kind}"
    library = kind not in registry.names() and not any(kind in registry.aliases(n) for n in registry.names())
    for key in reference.component(family, kind):
        default = reference.default_of(key.parameter)
        if key.name in block:
            yield entry(key, block[key.name], indent + INDENT)
        elif key.name in skip or key.parameter.required or library or not is_json(default):
            continue  # a library's many switches stay with the library
        else:
            yield entry(key, default, indent + INDENT)


def entry(key: Key, value: Any, indent: str) -> str:
    """One line, or two: the key, its value, and the first sentence of what it means."""
    line = f"{indent}{key.name}: {spelled(value)}"
    meaning = reference.first_sentence(key.text)
    if not meaning:
        return line
    return f"{line}  # {meaning}" if len(line) <= WIDEST else f"{indent}# {meaning}\n{line}"
