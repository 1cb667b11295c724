"""What a training state holds, checked once, when it is read: whatever is wrong with it is one line and no traceback."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError

Check = Callable[[Any, str], None]
"""Raises `Wrong` if a value, by the name it has in messages, is not what it must be."""


class Wrong(Exception):
    """What is wrong, in words."""


def kind(value: Any) -> str:
    """A value's kind, and the value where that is short."""
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)
    return f"'{value}'" if isinstance(value, str) and len(value) < 30 else f"a {type(value).__name__}"


def whole(least: int) -> Check:
    """A whole number that is at least so large.

    Raises:
        Wrong: the value is none; raised by the check that is returned.
    """

    def check(value: Any, name: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise Wrong(f"{name} is {kind(value)}; a whole number of at least {least} is expected")

    return check


def boolean(value: Any, name: str) -> None:
    """True or false.

    Raises:
        Wrong: the value is neither.
    """
    if not isinstance(value, bool):
        raise Wrong(f"{name} is {kind(value)}; true or false is expected")


def number(value: Any, name: str) -> None:
    """Any number; scores may be infinite.

    Raises:
        Wrong: the value is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Wrong(f"{name} is {kind(value)}; a number is expected")


def mapping(of: Check | None = None) -> Check:
    """A dictionary with names as keys, whose values `of` checks.

    Raises:
        Wrong: the value is none; raised by the check that is returned.
    """

    def check(value: Any, name: str) -> None:
        if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
            raise Wrong(f"{name} is {kind(value)}; a dictionary is expected")
        if of is not None:
            for key, inner in value.items():
                of(inner, f"{name}.{key}")

    return check


def record(value: Any, name: str) -> None:
    """The best score of a metric, and when.

    Raises:
        Wrong: an entry is missing.
    """
    mapping()(value, name)
    for key, check in (("value", number), ("iter", whole(0))):
        if key not in value:
            raise Wrong(f"{name} lacks '{key}'")
        check(value[key], f"{name}.{key}")


def optimizer(value: Any, name: str) -> None:
    """An optimizer's state dict.

    Raises:
        Wrong: the value is not what optimizers give.
    """
    mapping()(value, name)
    if not isinstance(value.get("state"), Mapping):
        raise Wrong(f"{name}.state is {kind(value.get('state'))}; a dictionary is expected")
    groups = value.get("param_groups")
    if not isinstance(groups, Sequence) or not groups or not all(isinstance(g, Mapping) for g in groups):
        raise Wrong(f"{name}.param_groups is {kind(groups)}; a list of dictionaries is expected")
    for i, group in enumerate(groups):
        if not isinstance(group.get("params"), Sequence) or isinstance(group["params"], str):
            raise Wrong(f"{name}.param_groups[{i}].params is {kind(group.get('params'))}; a list is expected")
    for key, remembered in value["state"].items():
        if not isinstance(remembered, Mapping):
            raise Wrong(f"{name}.state.{key} is {kind(remembered)}; a dictionary is expected")


def schedule(value: Any, name: str) -> None:
    """A schedule's position."""
    mapping()(value, name)
    whole(0)(value.get("last_epoch"), f"{name}.last_epoch")


SCHEMA: dict[str, Check] = {
    "iter": whole(0),
    "epoch": whole(0),
    "position": whole(0),
    "seed": whole(0),
    "world_size": whole(1),
    "optimizers": mapping(optimizer),
    "schedulers": mapping(schedule),
    "scaler": mapping(),
    "model": mapping(),
    "best": mapping(mapping(record)),
    "results": mapping(mapping(number)),
    "nonfinite": whole(0),
    "pending_validation": boolean,
}
"""What each entry of a training state must be."""


def names(value: Any, name: str) -> None:
    """A list of names.

    Raises:
        Wrong: the value is none.
    """
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise Wrong(f"{name} is {kind(value)}; a list of names is expected")


LATER: dict[str, Check] = {"global_batch": whole(1), "sharded": names}
"""The same of entries that states of earlier versions lack."""
FOUND_BY = ("iter", "position", "pending_validation")
"""The entries that a checkpoint is found by."""


def checked(state: Any, path: Path, needed: Sequence[str] = tuple(SCHEMA)) -> dict[str, Any]:
    """The training state that was read from `path`.

    Args:
        needed: entries that must be there; all that are there are checked.

    Raises:
        UserError: it is none, lacks an entry, or one is not what it must be.
    """
    if not isinstance(state, Mapping):
        raise UserError(f"{path}: not a training state of Relume: it holds {kind(state)}, not a dictionary")
    if not {"iter", "position"} <= state.keys():
        raise UserError(f"{path}: not a training state of Relume (it lacks 'iter' or 'position')")
    if lacking := [key for key in needed if key not in state]:
        raise UserError(f"{path}: not a training state of Relume (it lacks {', '.join(map(repr, lacking[:3]))})")
    try:
        for key, check in {**SCHEMA, **LATER}.items():
            if key in state:
                check(state[key], key)
        for key, position in state.get("schedulers", {}).items():
            if position["last_epoch"] > state["iter"]:
                raise Wrong(f"schedulers.{key}.last_epoch is {position['last_epoch']}, beyond iter, {state['iter']}")
        if not isinstance(state.get("options", {}), Mapping):
            raise Wrong(f"options is {kind(state['options'])}; a dictionary is expected")
    except Wrong as e:
        raise UserError(f"{path}: a damaged training state: {e}") from None
    return dict(state)
