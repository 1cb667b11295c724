"""BasicSR's registries, which file what they get in Relume's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ....archs import ARCHS
from ....datasets import DATASETS
from ....losses import LOSSES
from ...metrics import METRICS
from ...options.plugins.metrics import adapted
from ...registry import Registry as Registered

Member = Callable[..., Any]


class Registry:
    """Names and what they stand for; those of a fork's own, which no option file of ours knows, are only kept.

    Args:
        name: name of the registry.
        ours: registry of Relume in which to file what is registered, as well.
        adapt: what to make of it there.
    """

    def __init__(
        self, name: str, ours: Registered | None = None, adapt: Callable[[Member], Member] | None = None
    ) -> None:
        self._name = name
        self._obj_map: dict[str, Member] = {}
        self._ours = ours
        self._adapt = adapt

    def register(self, obj: Member | None = None, suffix: str | None = None) -> Any:
        """A decorator, called with nothing, or a function, called with a class or function."""
        if obj is None:
            return lambda member: self.register(member, suffix)
        name = obj.__name__ + (f"_{suffix}" if isinstance(suffix, str) else "")
        self._obj_map[name] = obj
        if self._ours is not None:
            self._ours.register(name=name)(self._adapt(obj) if self._adapt else obj)
        return obj

    def get(self, name: str, suffix: str = "basicsr") -> Member:
        """What a name stands for, here or in Relume.

        Raises:
            KeyError: nothing.
        """
        found = self._obj_map.get(name) or self._obj_map.get(f"{name}_{suffix}")
        if found is None and self._ours is not None and name in self._ours:
            found = self._ours.get(name)
        if found is None:
            raise KeyError(f"No object named '{name}' found in '{self._name}' registry!")
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._obj_map or (self._ours is not None and name in self._ours)

    def __iter__(self) -> Iterator[tuple[str, Member]]:
        return iter(self._obj_map.items())

    def keys(self) -> Any:
        """The names."""
        return self._obj_map.keys()


ARCH_REGISTRY = Registry("arch", ARCHS)
DATASET_REGISTRY = Registry("dataset", DATASETS)
LOSS_REGISTRY = Registry("loss", LOSSES)
METRIC_REGISTRY = Registry("metric", METRICS, adapted)
MODEL_REGISTRY = Registry("model")


def __getattr__(name: str) -> Registry:
    """A registry that a fork has added."""
    if not name.endswith("_REGISTRY"):
        raise AttributeError(name)
    globals()[name] = Registry(name.removesuffix("_REGISTRY").lower())
    found: Registry = globals()[name]
    return found
