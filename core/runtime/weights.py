"""What a weights file holds: a network's state dict, whatever other frameworks have wrapped it in.

They file it under entries of a dict, one inside the other, and put words before its names: ``module.`` (DataParallel, DDP),
``net_g.`` or ``model.`` (Lightning, where it is a part of the trained module), several at once. Entries are looked through, and
the words are found by comparing names with those of the network.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError, did_you_mean

log = logging.getLogger("relume")
State = dict[str, Any]
WRAPPINGS = ("model_state_dict", "state_dict", "params_ema", "params-ema", "params", "model", "net")
"""Entries under which other frameworks file a state dict, in the order in which spandrel tries them."""
OWN = ("params", "params_ema")
"""Relume's and BasicSR's entries, one of which is asked for where nobody says anything."""
ABOUT = "relume"
"""Entry that says which network the others are for: see `core.options.description`."""
TEXT = "json"
"""Key of the only part of `ABOUT`, a tensor of bytes: programs that go through a file then find dicts of tensors alone."""
WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put into names, anywhere."""


def described(about: Mapping[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    """The entry by which a file describes itself: the JSON of `about` as bytes, of shape (length,).

    >>> about_itself(described({"scale": 2}))
    {'scale': 2}
    """
    return {ABOUT: {TEXT: torch.frombuffer(bytearray(json.dumps(about).encode()), dtype=torch.uint8)}}


def about_itself(content: Any) -> Any:
    """What the content of a file says of itself, which older files hold as it is; None if it says nothing.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is too deep.
    """
    found = content.get(ABOUT) if isinstance(content, Mapping) else None
    text = found.get(TEXT) if isinstance(found, Mapping) else None
    return json.loads(bytes(text.flatten().to(torch.uint8).tolist())) if isinstance(text, torch.Tensor) else found


def unwrap(content: Any, param_key: str | None, path: str | Path) -> State:
    """The state dict inside a weights file: under `param_key`, else under a usual entry, else the file itself.

    Raises:
        UserError: the file has no `param_key` entry, or no weights.
    """
    found = entry(content, param_key, path)
    return strip(found if any(isinstance(v, torch.Tensor) for v in found.values()) else dict(flat(found)))


def entry(content: Any, param_key: str | None, path: str | Path) -> Mapping[str, Any]:
    """The part of a weights file that has a state dict in it, from the arguments of `unwrap`.

    Raises:
        UserError: see `unwrap`.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds {kind(content)}, not weights by name")
    if not param_key:
        return inside(content)
    if param_key in content:
        if not isinstance(content[param_key], Mapping):
            raise UserError(f"{path}: its entry '{param_key}' is {kind(content[param_key])}, not weights by name")
        return inside(content[param_key])
    named = {k.removeprefix(f"{param_key}."): v for k, v in flat(inside(content)) if k.startswith(f"{param_key}.")}
    if named:
        return named
    if any(isinstance(v, torch.Tensor) for v in content.values()):
        return content  # a flat file is what it is, whatever entry was expected
    if param_key not in OWN or not has_tensors(content):
        listing = ", ".join(map(str, content))
        raise UserError(f"{path}: has no entry '{param_key}'.{did_you_mean(param_key, content)} It holds: {listing}.")
    if param_key == "params_ema" and "params" in content:
        log.warning("%s: has no averaged weights (params_ema), taking params", path)
        return inside(content["params"])
    return inside(content)


def inside(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """`content`, or what is under one of the usual entries in it, and so on."""
    key = entry_taken(content)
    return content if key is None else inside(content[key])


def entry_taken(content: Mapping[Any, Any], wanted: str | None = None) -> str | None:
    """The name of the entry that weights are taken from: the wanted one, else a usual one; None where there is none."""
    if any(isinstance(v, torch.Tensor) for v in content.values()):
        return None
    named = (k for k in (wanted, *WRAPPINGS) if isinstance(content.get(k), Mapping) and has_tensors(content[k]))
    return next(named, None)


def has_tensors(content: Mapping[Any, Any]) -> bool:
    """Whether there are tensors in it, at any depth."""
    return any(isinstance(v, torch.Tensor) for _, v in flat(content))


def flat(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted name, those of dicts in dicts too."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def of_network(content: Any, param_key: str | None, own: Mapping[str, torch.Tensor], path: str | Path) -> State:
    """The entries of a weights file that are a network's, by its own names; all of them where none is known to it.

    Args:
        content: content of the file.
        param_key: entry, or the beginning of names; found where None.
        own: the network's state dict, tensors of any shape.

    Raises:
        UserError: as `unwrap`; or the file has the network several times, and which one is meant cannot be told.
    """
    found = {WRAPPERS.sub("", name): value for name, value in flat(entry(content, param_key, path))}
    if own and all(name in found for name in own):
        return found
    found = strip(found)
    prefix, others = beginning(found, own, average=param_key != "params")
    if prefix:
        rest = sum(not name.startswith(prefix) for name in found)
        also = f", which are also under {' and '.join(map(repr, others))}" if others else ""
        log.info(
            "%s: taking the weights under '%s'%s%s",
            path,
            prefix.rstrip("."),
            also,
            f"; {rest} other entries are left" if rest else "",
        )
    if others and not re.search("ema|average", " ".join((prefix, *others)), re.IGNORECASE):
        choice = " or ".join(p.rstrip(".") for p in (prefix, *others))
        raise UserError(f"{path}: has these weights several times; path.param_key_g chooses: {choice}")
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def beginning(found: Mapping[str, Any], own: Mapping[str, torch.Tensor], average: bool) -> tuple[str, list[str]]:
    """What stands before a network's own names in most of `found`, with its dot; and what else does as often.

    Args:
        found, own: entries of the file and of the network by name, of any shape; names decide first, then shapes.
        average: whether, among beginnings that occur equally often, one that speaks of an average is taken, or one that
            does not.
    """
    names: Counter[str] = Counter()
    shapes: Counter[str] = Counter()
    for name, value in found.items():
        parts = name.split(".")
        for i in range(len(parts)):
            suffix = ".".join(parts[i:])
            if suffix in own:
                prefix = name[: len(name) - len(suffix)]
                names[prefix] += 1
                shapes[prefix] += getattr(value, "shape", None) == own[suffix].shape
    if not names:
        return "", []
    most = max((names[p], shapes[p]) for p in names)
    best = [p for p in names if (names[p], shapes[p]) == most]
    if "" in best:
        return "", []
    best.sort(key=lambda p: bool(re.search("ema|average", p, re.IGNORECASE)) != average)
    return best[0], [p.rstrip(".") for p in best[1:]]


def usual_key(content: Any) -> str | None:
    """The entry of a weights file that a trained network is: the average, else the weights; None for a flat file, or none."""
    entries = content if isinstance(content, Mapping) else {}
    return next((k for k in ("params_ema", "params") if isinstance(entries.get(k), Mapping)), None)


def strip(state: Mapping[Any, Any]) -> State:
    """State-dict names without what DataParallel, DDP and torch.compile put before them."""
    return {re.sub(r"^(module\.|_orig_mod\.)+", "", str(k)): v for k, v in state.items()}


def kind(value: Any) -> str:
    """What a value is, for messages."""
    if not isinstance(value, torch.Tensor):
        return "nothing" if value is None else f"of the type {type(value).__name__}"
    layout = "" if value.layout is torch.strided else f" in the layout {str(value.layout).removeprefix('torch.')}"
    return f"a tensor of {str(value.dtype).removeprefix('torch.')}{layout}"


def same_kind(value: Any, own: torch.Tensor) -> bool:
    """Whether a value can become the network's entry `own`, of any shape, without losing anything but precision."""
    if not isinstance(value, torch.Tensor) or value.is_quantized or value.layout is not torch.strided or value.is_meta:
        return False
    kinds = [(t.is_complex(), t.is_floating_point(), t.dtype == torch.bool) for t in (value, own)]
    return kinds[0] == kinds[1]


def refuse_other_kinds(state: Mapping[str, Any], own: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Refuse weights, of any shape, that would silently change kind: complex numbers, integers, quantised or sparse tensors.

    Raises:
        UserError: naming the entry and both kinds.
    """
    wrong = [name for name, value in state.items() if name in own and not same_kind(value, own[name])]
    if wrong:
        others = f" (and {len(wrong) - 1} more entries)" if len(wrong) > 1 else ""
        what = f"{wrong[0]} is {kind(state[wrong[0]])}, and in the network {kind(own[wrong[0]])}"
        raise UserError(f"{path}: {what}{others}")


def refuse_nonfinite(state: Mapping[str, Any], path: str | Path, own: Mapping[str, torch.Tensor] | None = None) -> None:
    """Refuse weights that no training has meant: NaN or infinite, or beyond what the network's precision holds.

    Args:
        own: the network's state dict, of any shape; entries of other names, and those infinite there too, are skipped.

    Raises:
        UserError: naming the entry.
    """
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.is_meta:
            continue
        like = value if own is None else own.get(name)
        if like is None or finite(value.to(like.dtype)):
            continue
        if own is None or like.is_meta or finite(like):
            raise UserError(f"{path}: {name} has NaN or infinite values, which are no weights")


def finite(value: torch.Tensor) -> bool:
    """Whether all numbers of a tensor of any shape are finite."""
    return bool(torch.isfinite(value).all())
