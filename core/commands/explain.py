"""Explain a key of option files, a section or a component: meaning, type, default, an example.

``relume explain val.tile``, ``relume explain ema_decay``, ``relume explain CharbonnierLoss``,
``relume explain PairedImageDataset.gt_size``, ``relume explain val``, or ``relume explain`` for the sections.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable
from typing import Any

from ..errors import UserError, did_you_mean
from ..models import MODELS
from ..options import docstrings, reference
from ..options.json_schema import is_json
from ..options.reading.loader import spelled
from ..options.reference import FAMILIES, SECTIONS, Key
from ..registry import article
from . import _arguments

WIDTH = 100
SHOWN = 3
"""Components of which a key is explained that several have, when it is not said of which."""
BASE = "_base_"
BASE_TEXT = (
    "Option file, or a list of them, that this one begins with: what it says itself comes on top, key by key. A path is "
    "relative to the file that names it; relume:NAME is a file that comes with Relume (relume list options)."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("key", nargs="?", help="a key (val.tile, or tile), a section (val), or a component (L1Loss)")
    parser.add_argument("--plugins", nargs="+", default=[], help="your own Python files or modules, to be included")
    _arguments.add_trust(parser)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    _arguments.include_plugins(arguments)
    print(explained(arguments.key) if arguments.key else overview())


def overview() -> str:
    """The sections of an option file, and the families of components."""
    rows = [("", "the top level: name, model_type, scale, ...")]
    rows += [(name, docstrings.summary(cls)) for name, cls in SECTIONS.items()]
    lines = [
        "Sections:",
        *table((name or "(top)", text) for name, text in rows),
        "",
        "Components, in blocks with a type:",
    ]
    lines += table((place, f"relume list {family}") for family, (_, place) in FAMILIES.items())
    lines += ["", "relume explain SECTION, SECTION.KEY, COMPONENT or COMPONENT.KEY says more."]
    return "\n".join(lines)


def explained(asked: str) -> str:
    """What there is to say of a key, section or component.

    Raises:
        UserError: there is none of this name.
    """
    owner, _, name = asked.strip(".").rpartition(".")
    section = section_of(asked)
    if section is not None:
        return section_page(section)
    at_hand = model(asked) or reference.families_of(asked, libraries=False)
    if at_hand or (not in_sections(owner, name) and reference.families_of(asked)):
        return component_page(asked)
    if asked == BASE:
        return "\n".join([BASE, *wrapped(BASE_TEXT), f"  example  {BASE}: relume:quickstart.yml"])
    family = family_of_block(asked.removesuffix(".type"))
    if family is not None:
        registry, _ = FAMILIES[family]
        return f"{asked}\n  A block whose 'type' names {article(registry.noun)}: relume list {family}, relume explain TYPE."
    found = keys(owner, name)
    if not found:
        raise UserError(unknown(asked, owner, name))
    pages = [key_page(key) for key in found[:SHOWN]]
    if len(found) > SHOWN:
        more = dict.fromkeys(key.owner for key in found[SHOWN:])
        pages.append("\n".join(textwrap.wrap(f"Also of: {', '.join(more)}.", WIDTH, subsequent_indent="  ")))
    return "\n\n".join(pages)


def section_of(asked: str) -> str | None:
    """The section that is meant: ``val``, ``datasets.train``, ``(top)``."""
    if re.fullmatch(r"datasets\.(train|val|test)(_\w+)?", asked):
        return "datasets"
    if asked in ("(top)", "top"):
        return ""
    return asked if asked in SECTIONS else None


def family_of_block(asked: str) -> str | None:
    """The family of components that a block belongs to, by its key: ``network_g``, ``val.metrics.psnr``."""
    section, _, last = asked.rpartition(".")
    for family, (_, place) in FAMILIES.items():
        home, _, form = place.rpartition(".")
        start, free, rest = form.partition("<")
        end = rest.partition(">")[2]
        if not free:
            fits = asked == place or (section == home and last.startswith(f"{form}_"))
        elif start or end:
            fits = section in ("", home) and last.startswith(start) and last.endswith(end)
        else:  # the whole name is free, which only its section tells
            fits = section == home
        if fits:
            return family
    return None


def model(name: str) -> str | None:
    """The model wrapper of that name."""
    return name if MODELS.at_hand(name) else None


def in_sections(owner: str, name: str) -> list[Key]:
    """The keys of sections that are meant by ``owner.name``, or by a name alone."""
    section = section_of(owner) if owner else None
    sections = ("", *SECTIONS) if not owner else () if section is None else (section,)
    return [k for s in sections for k in every_key_of(s) if k.name == name]


def keys(owner: str, name: str) -> list[Key]:
    """The keys that are meant by ``owner.name``, or by a name alone; those of components most used first."""
    found = in_sections(owner, name)
    if found:
        return found
    if not owner:
        return [k for family in FAMILIES for k in of_family(family, name)]
    section = section_of(owner)
    if section is not None:
        return of_family("datasets", name) if section == "datasets" else []
    if model(owner):
        return [k for s in ("train", "val") for k in reference.model_keys(owner, s) if k.name == name]
    found = [k for f in reference.families_of(owner) for k in reference.component(f, owner) if k.name == name]
    family = family_of_block(owner) if not found else None
    return of_family(family, name) if family is not None else found


def of_family(family: str, name: str) -> list[Key]:
    """The keys of one name that components of a family have."""
    return [k for n in reference.by_use(family) for k in reference.component(family, n) if k.name == name]


def every_key_of(section: str) -> list[Key]:
    """The keys of a section, and once each those that models add to it."""
    found = reference.section(section)
    if section in ("train", "val"):
        names = {k.name for k in found}
        for wrapper in MODELS:
            more = [k for k in reference.model_keys(wrapper, section) if k.name not in names]
            names |= {k.name for k in more}
            found += more
    return found


def unknown(asked: str, owner: str, name: str) -> str:
    """The message for a name that nothing has."""
    section = section_of(owner) if owner else None
    if section is not None or model(owner) or reference.families_of(owner):
        accepted = every_key_of(section) if section is not None else []
        accepted += [k for f in reference.families_of(owner) for k in reference.component(f, owner)]
        hint = did_you_mean(name, [k.name for k in accepted])
        return f"explain: '{owner}' has no key '{name}'.{hint} See: relume explain {owner}"
    family = family_of_block(owner) if owner else None
    if family is not None:
        registry, _ = FAMILIES[family]
        hint = did_you_mean(name, [k.name for n in reference.by_use(family) for k in reference.component(family, n)])
        return f"explain: no {registry.noun} has a key '{name}'.{hint} See: relume list {family}"
    components = [n for registry, _ in FAMILIES.values() for n in registry]
    names = [k.name for s in ("", *SECTIONS) for k in reference.section(s)]
    hint = did_you_mean(asked, [*SECTIONS, *components, *MODELS, *names])
    return f"explain: there is no key, section or component '{asked}'.{hint} See: relume explain"


# ------------------------------------------------------------------ pages
def section_page(section: str) -> str:
    """A section: what it is, and a line for each key."""
    summary = docstrings.summary(SECTIONS[section]) if section else "The top level of an option file."
    own = reference.section(section)
    more = [k for k in every_key_of(section) if k not in own]
    head = section or "(top)"
    parent, _, last = section.rpartition(".")
    if parent:  # which can be something else than a block, too
        (key,) = [k for k in reference.section(parent) if k.name == last]
        head, summary = f"{section}  ({key.kind}; {key.default})", key.text
    lines = [head, *wrapped(summary), "", *key_lines(k for k in own if k.has_effect)]
    if more:
        lines += ["", "of some models:", *key_lines(more)]
    accepted = [k.name for k in own if not k.has_effect]
    if accepted:
        lines += ["", *wrapped(f"accepted for other frameworks' files: {', '.join(accepted)}")]
    return "\n".join(lines)


def component_page(name: str) -> str:
    """A component: what it is, and a line for each of its keys."""
    pages = []
    if model(name):
        own = [k for s in ("train", "val") for k in reference.model_keys(name, s)]
        pages.append([f"{name}: model_type", *wrapped(docstrings.summary(MODELS.get(name))), "", *key_lines(own, True)])
    for family in reference.families_of(name):
        registry, place = FAMILIES[family]
        summary = docstrings.summary(registry.get(name))
        head = f"{name}: {registry.noun}, {place}"
        facts = wrapped(docstrings.facts(registry.get(name)))
        pages.append([head, *wrapped(summary), *facts, "", *key_lines(reference.component(family, name))])
    return "\n\n".join("\n".join(page).rstrip() for page in pages)


def key_page(key: Key) -> str:
    """One key: everything there is to say."""
    lines = [key.place if key.owner in ("", *SECTIONS) else f"{key.owner}.{key.name}  ({key.place})"]
    lines += wrapped(key.text or "No description.")
    lines += [f"  type     {key.kind}", f"  default  {key.default}"]
    uses = reference.uses(key)
    if uses:
        others = f", and {len(uses) - 1} more shipped files" if len(uses) > 1 else ""
        lines.append(f"  used in  {uses[0][0]}{others}")
    lines.append(f"  example  {example(key, uses[0][1] if uses else None)}")
    return "\n".join(lines)


def example(key: Key, value: Any) -> str:
    """The key as one would write it."""
    if value is None:
        value = None if key.parameter.required else reference.default_of(key.parameter)
    shown = spelled(value) if is_json(value) and value is not None else "..."
    *parents, last = key.place.replace("<phase>", "train").replace("<key>", "g").replace("<name>", "psnr").split(".")
    text = f"{last}: {shown}"
    if key.owner not in ("", *SECTIONS):
        text = f"type: {key.owner}, {text}"
    for parent in reversed(parents):
        text = f"{parent}: {{{text}}}"
    return text


def key_lines(found: Iterable[Key], placed: bool = False) -> list[str]:
    """A line for each key: name, type and default, description."""
    rows = [(k.place if placed else k.name, f"{k.kind}; {k.default}", k.text) for k in found]
    return [line for name, kind, text in rows for line in (f"  {name}  ({kind})", *wrapped(text, "      "))]


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Two aligned columns."""
    cells = list(rows)
    width = max(len(name) for name, _ in cells)
    return [
        f"  {name:<{width}}  {textwrap.shorten(text, WIDTH - width - 4, placeholder=' ...')}" for name, text in cells
    ]


def wrapped(text: str, indent: str = "  ") -> list[str]:
    """Lines of a terminal's width."""
    return textwrap.wrap(text.replace("``", "`"), WIDTH, initial_indent=indent, subsequent_indent=indent)
