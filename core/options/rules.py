"""What an option file may hold beyond the fields of its sections: networks, losses, optimizers, weights, plugins."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...datasets import DATASETS
from ..errors import UserError, did_you_mean
from ..models import MODELS
from ..models.base import Model, model_class
from ..registry import MISSING, Parameter, Registry, unknown_key
from .checker import BAD, Checker, join, parameters
from .nodes import Block, Entry, Items, Scalar
from .plugins import import_plugin
from .schema import (
    PATH_KEYS,
    LossBlock,
    NetworkBlock,
    OptimizerBlock,
    Options,
    Paths,
    SchedulerBlock,
    Train,
    Val,
)

LOSS_SUFFIX = "_opt"
OPTIMIZER_PREFIX = "optim_"
SCHEDULER_PREFIX = "scheduler_"
TRAIN_BLOCKS = {
    f"^{OPTIMIZER_PREFIX}": OptimizerBlock,
    f"^{SCHEDULER_PREFIX}": SchedulerBlock,
    f"{LOSS_SUFFIX}$": LossBlock,
}
"""Forms of keys under ``train`` (regular expressions), and the components that they hold."""
FROM_ABOVE = ("phase", "scale")
"""Parameters of datasets that follow from the block's key and from the top level, unless the block gives them."""
USUAL_KEYS = ("pixel_opt", "perceptual_opt", "gan_opt", "fft_opt", "optim_g", "optim_d")
"""Names for did-you-mean where any name of a form is accepted."""


class OptionsChecker(Checker):
    """Checks a whole option file. The model wrapper says which networks there are, and adds keys to ``train``."""

    def __init__(self) -> None:
        super().__init__()
        self.model_type = ""
        self.model: type[Model] | None = None
        self.scale: Any = parameters(Options)["scale"].default
        self.networks: list[str] = []

    def options(self, root: Block) -> Any:
        """The values of an option file, or `BAD`."""
        root = self._with_plugins(root)
        name = root.scalar("model_type")
        if isinstance(name, str) and name in MODELS:
            self.model_type, self.model = name, model_class(name)
        self.scale = root.scalar("scale") or self.scale
        self.networks = [k for k in root.entries if k.startswith("network_")]
        return self.section(root, Options, "")

    def _with_plugins(self, root: Block) -> Block:
        """Import the plugins, before any name that they register is looked up; their paths become absolute."""
        entry = root.entries.get("plugins")
        if entry is None or not isinstance(entry.node, Items):
            return root
        nodes = []
        for i, node in enumerate(entry.node.items):
            found = node
            if isinstance(node, Scalar) and isinstance(node.value, str):
                try:
                    plugin = import_plugin(node.value, node.place.folder if node.place else Path.cwd())
                    found = Scalar(plugin, None, node.place)
                except UserError as e:
                    self.problem(node.place, f"plugins[{i}]", str(e))
            nodes.append(found)
        plugins = entry._replace(node=Items(tuple(nodes), entry.node.place))
        return Block({**root.entries, "plugins": plugins}, root.place)

    # ---------------------------------------------------------------- keys by pattern
    def extra_keys(self, cls: Any, block: Block) -> dict[str, Parameter]:
        """Networks at the top, weights under ``path``, losses, optimizers and the model's own options under ``train``."""
        if cls is Options:
            required = self.model.required_networks if self.model else ()
            return {
                f"network_{k}": Parameter(f"network_{k}", NetworkBlock, MISSING if k in required else None)
                for k in self._network_keys(block)
            }
        if cls is Paths:
            keys = {p + k: annotation for p, (annotation, _) in PATH_KEYS.items() for k in self._network_keys(block)}
            return {k: Parameter(k, annotation | None, None) for k, annotation in keys.items()}
        if cls is Train:
            components = {
                k: Parameter(k, kind, None)
                for p, kind in TRAIN_BLOCKS.items()
                for k in block.entries
                if re.search(p, k)
            }
            if self.model:
                own = self._own_options(Train)
            else:  # the model's name is wrong, and reported; its own options cannot be known, only misspelt common ones
                fields = parameters(Train)
                own = {
                    k: Parameter(k, Any, None) for k in block.entries if k not in fields and not did_you_mean(k, fields)
                }
            return {**own, **components}
        return self._own_options(Val) if cls is Val else {}

    def _own_options(self, cls: Any) -> dict[str, Parameter]:
        """The model's own options that stand in the section `cls`, ``val`` for those that concern inference."""
        if self.model is None:
            return {}
        own = MODELS.parameters(self.model_type)
        return {k: p for k, p in own.items() if (k in self.model.inference_options) == (cls is Val)}

    def _network_keys(self, block: Block) -> list[str]:
        """Keys of the networks that the model takes; of all that `block` mentions, while the model is unknown."""
        if self.model:
            return networks_of(self.model)
        prefixes = ("network_", *PATH_KEYS)
        return [k.removeprefix(p) for k in block.entries for p in prefixes if k.startswith(p)]

    def own_parameters(self, registry: Registry, name: str, key: str) -> dict[str, Parameter]:
        """A dataset's phase and scale follow from where it stands, unless its block says otherwise."""
        own = registry.parameters(name)
        if registry is DATASETS and key.startswith("datasets."):
            phase = key.split(".")[1].split("_")[0]
            for parameter, value in zip(FROM_ABOVE, (phase, self.scale), strict=True):
                if parameter in own:
                    own[parameter] = replace(own[parameter], default=value)
        return own

    def section(self, block: Block, cls: Any, key: str) -> Any:
        before = len(self.problems)
        section = super().section(block, cls, key)
        if section is BAD:
            return BAD
        if cls in (Train, Val):
            self.defaults[key] = {k: p.default for k, p in self._own_options(cls).items() if k not in section}
        if cls is Train and self.model and len(self.problems) == before:
            self._complete_training(block, section, self.model)
        return section

    def completed(self, block: Block, cls: Any, values: dict[str, Any], key: str) -> Any:
        """As for any block; null where a component belongs leaves it out."""
        own = parameters(cls)
        kept = {k: v for k, v in values.items() if v is not None or k in own or not names_component(k)}
        return super().completed(block, cls, kept, key)

    def _complete_training(self, block: Block, values: Train, model: type[Model]) -> None:
        if not any(k.startswith(OPTIMIZER_PREFIX) for k in values):
            self.problem(
                block.place, "train", "there is no optimizer; give one, such as optim_g: {type: Adam, lr: 2e-4}"
            )
        # Each optimizer trains the network of its name, unless the model says otherwise.
        if model.named_parameters is Model.named_parameters or model.optimizers:
            trained = [f"{OPTIMIZER_PREFIX}{k}" for k in self._network_keys(block) if k not in model.frozen]
            trained += [f"{OPTIMIZER_PREFIX}{k}" for k in model.optimizers]
            for key in values:
                if key.startswith(OPTIMIZER_PREFIX) and key not in trained:
                    text = f"{self.model_type} has no use for '{key}'. Accepted: {', '.join(trained)}."
                    self.problem(block.entries[key].place, f"train.{key}", text, say_key=False)
        for key in [f"network_{k}" for k in model.frozen if k not in model.required_networks]:
            if key not in self.networks:
                self.problem(
                    block.place, "train", f"{self.model_type} is trained with a teacher, '{key}', which is missing"
                )
        for key in values:
            optimizer = f"{OPTIMIZER_PREFIX}{key.removeprefix(SCHEDULER_PREFIX)}"
            if key.startswith(SCHEDULER_PREFIX) and optimizer not in values:
                text = f"there is no {optimizer} whose learning rate it could set"
                self.problem(block.entries[key].place, f"train.{key}", text)
        if model.needs_losses and not any(k.endswith(LOSS_SUFFIX) for k in values):
            self.problem(block.place, "train", "there is no loss; give at least one, such as pixel_opt: {type: L1Loss}")

    def unknown(self, entry: Entry, name: str, owner: str, accepted: Iterable[str], key: str) -> None:
        """As for any block, but showing forms of keys (``<name>_opt``) instead of the keys that happen to be in the file."""
        if not key and name.startswith("network_") and self.model:
            known = ", ".join(f"network_{k}" for k in self._network_keys(Block({})))
            self.problem(
                entry.place, name, f"{self.model_type} has no use for '{name}'. Accepted: {known}.", say_key=False
            )
            return
        if key == "train":
            listed = [a for a in accepted if not names_component(a)]
            text = unknown_key(name, owner, [*listed, "optim_<name>", "<name>_opt"], near=(*listed, *USUAL_KEYS))
            self.problem(entry.place, join(key, name), text, say_key=False)
            return
        super().unknown(entry, name, owner, accepted, key)


def networks_of(model: type[Model]) -> list[str]:
    """Keys of all networks that a model wrapper takes."""
    return list(dict.fromkeys((*model.required_networks, *model.optional_networks, *model.frozen)))


def names_component(key: str) -> bool:
    """Whether a key outside the fixed ones holds a ``type:`` block, which null leaves out."""
    return key.startswith("network_") or any(re.search(p, key) for p in TRAIN_BLOCKS)
