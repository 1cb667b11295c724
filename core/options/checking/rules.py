"""What an option file may hold beyond the fields of its sections: networks, losses, optimizers, weights, plugins."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ....archs import ARCHS
from ....datasets import DATASETS
from ...errors import UserError, did_you_mean, printable
from ...files.trust import NotTrusted, is_looking, require_trust
from ...metrics import METRICS
from ...models import MODELS
from ...models.base import Model, model_class
from ...registry import MISSING, Parameter, Registry, plugged, unknown_key
from ...runtime.gate import refusal
from ..detection import network_of
from ..dialect import renamed_phases, translated, why_ignored
from ..nodes import Block, Entry, Items, Node, Place, Problem, Scalar, from_python
from ..plugins import activate, import_plugin, look_at, path_of
from ..refused import other_dialect, topic_of
from ..schema import PATH_KEYS, NetworkBlock, Options, Paths, Train, Val
from ..wrappers import written_out
from .checker import Checker
from .keys import (
    FROM_ABOVE,
    PLACES,
    TRAIN_BLOCKS,
    USUAL_KEYS,
    names_component,
    networks_of,
    top_level_keys,
)
from .kinds import BAD, parameters
from .trial import TRIALS
from .whole import cautions, mistakes_in_best, mistakes_in_plateaus, mistakes_in_training
from .words import as_yaml, describe_node, join_keys

RUNNING = "plugins: running "
"""How a note begins that says whose code runs."""


class OptionsChecker(Checker):
    """Checks a whole option file. The model wrapper says which networks there are, and adds keys to ``train``."""

    def __init__(self) -> None:
        super().__init__()
        self.model_type = ""
        self.model: type[Model] | None = None
        self.scale: Any = parameters(Options)["scale"].default
        self.networks: list[str] = []
        self.scale_given = False
        self.plugins_failed = False
        self.topics: set[str] = set()

    def options(self, root: Block) -> Any:
        """The values of an option file, or `BAD`."""
        if (dialect := other_dialect(root)) is not None:
            return self.problem(next(iter(root.entries.values())).place, "", dialect)
        root, said = written_out(without_null_sets(renamed_phases(self._with_plugins(root))))
        self.notes += said
        name = root.scalar("model_type")
        if isinstance(name, str) and name in MODELS:
            self.model_type, self.model = name, model_class(name)
        self.scale_given = bool(root.scalar("scale"))
        self.scale = root.scalar("scale") or self.scale
        root = self._with_detected_network(root)
        self.networks = [k for k in root.entries if k.startswith("network_")]
        before = len(self.problems)
        values = self.section(root, Options, "")
        if values is not BAD and self.model is not None and len(self.problems) == before:
            self._whole(root, values, self.model)
        return values

    def _with_detected_network(self, root: Block) -> Block:
        """The top level with ``network_g``, where it has weights instead that tell which network they are of."""
        path = root.entries.get("path")
        if "network_g" in root.entries or path is None or not isinstance(path.node, Block):
            return root
        if self.model is None or "g" not in self.model.required_networks:
            return root
        name = next((k for k in ("pretrain_network_g", "pretrain_model_g") if k in path.node.entries), "")
        weights = path.node.scalar(name)
        if not isinstance(weights, str) or not Path(weights).expanduser().is_file():
            return root
        entry = path.node.entries[name]
        try:
            found = network_of(Path(weights).expanduser())
        except UserError as e:
            self.problem(entry.place, f"path.{name}", str(e))
            return root
        if found is None:
            return root
        self.notes.append(Problem(entry.place, f"network_g is not given; its weights are of {found['type']}"))
        return Block({**root.entries, "network_g": Entry("network_g", entry.place, from_python(found))}, root.place)

    def _whole(self, root: Block, values: Any, model: type[Model]) -> None:
        """What only the model can say of options of which each is right by itself."""
        if model.top_level is not None:
            try:
                model.top_level(**{k: values[k] for k in parameters(model.top_level) if k in values})
            except (UserError, ValueError) as e:
                key = re.split(r"[:\s]", str(e), maxsplit=1)[0]
                self.problem(root.entries[key].place if key in root.entries else root.place, "", str(e))
        for key, text in (*mistakes_in_best(values), *mistakes_in_plateaus(values), *model.mistakes(values)):
            node = self._node(root, key)
            given = isinstance(node, Scalar) and node.value is not None and as_yaml(node.value) not in text
            self.problem(self._place(root, key), key, f"{text}, got {describe_node(node)}" if given and node else text)
        self.notes += [Problem(self._place(root, key), f"{key}: {text}") for key, text in cautions(values)]

    def _node(self, root: Block, key: str) -> Node | None:
        """What is given at a dotted key, if anything is."""
        node: Node | None = root
        for part in key.split("."):
            entry = node.entries.get(part) if isinstance(node, Block) else None
            node = entry.node if entry else None
        return node

    def _place(self, root: Block, key: str) -> Place | None:
        """Where a dotted key was written, or else the block that it belongs to."""
        place, block = root.place, root
        for part in key.split("."):
            entry = block.entries.get(part)
            if entry is None:
                break
            place = entry.place
            if not isinstance(entry.node, Block):
                break
            block = entry.node
        return place

    def _with_plugins(self, root: Block) -> Block:
        """Import the plugins, before any name that they register is looked up; their paths become absolute."""
        entry = root.entries.get("plugins")
        if entry is None or not isinstance(entry.node, Items):
            activate(())
            return root
        activate(())
        nodes = []
        for i, node in enumerate(entry.node.items):
            found = node
            if isinstance(node, Scalar) and isinstance(node.value, str):
                try:
                    plugin = self._run(node.value, node.place)
                    found = Scalar(plugin, None, node.place)
                except UserError as e:
                    self.plugins_failed = True
                    self.problem(node.place, f"plugins[{i}]", str(e))
            nodes.append(found)
        plugins = entry._replace(node=Items(tuple(nodes), entry.node.place))
        return Block({**root.entries, "plugins": plugins}, root.place)

    def _run(self, plugin: str, place: Place | None) -> str:
        """Import a plug-in that may run, and note that it does; see `import_plugin`."""
        folder = place.folder if place else Path.cwd()
        code = path_of(plugin, folder)
        if place is not None and place.line:
            try:
                require_trust(plugin, code, folder, first=place.rank == 1)
            except NotTrusted as e:
                if not is_looking() or code is None or not code.exists():
                    raise
                key, said = look_at(plugin, folder)
                self.notes.append(Problem(place, f"plugins: {said}. {e}"))
                return key
        key = import_plugin(plugin, folder)
        if place is not None:
            self.notes.append(Problem(place, f"{RUNNING}{printable(code or key)}"))
        return key

    def unknown_name(self, node: Node, registry: Registry, name: str, key: str) -> Any:
        """As for any name; after a plug-in that failed, and would have registered it, that is said alone. Of what is not
        done here the first name is enough."""
        if self.plugins_failed:
            return BAD
        topic = topic_of(name)
        if topic in self.topics:
            return BAD
        text = registry.unknown(name)
        if topic is not None:
            self.topics.add(topic)
            text = f"{name} is of {topic}."
        elif not text.startswith("no "):  # a library or a plug-in knows the name, and says why it is not to be had
            return self.unknown_as(node, key, text)
        text = text if text.endswith((".", ")", "?")) else f"{text}."
        for plugin in plugged.active():
            theirs = ", ".join(plugin.names(registry)[:9]) or f"no {registry.noun}"
            text += f" {plugin.key}, under plugins, has {theirs}."
        if registry is MODELS:
            text += " A fork's wrapper is ported in 20 lines: docs/port_a_model.md."
        if not plugged.active():
            text += " Code of your own, or of a fork, is named under plugins: [file.py, or a folder]."
        return self.unknown_as(node, key, text)

    def component(self, node: Node, registry: Registry, more: Any, key: str) -> Any:
        """As for any block; a metric must say, itself or here, which of two scores is the better one, and optimizers and
        schedules are tried."""
        values = super().component(node, registry, more, key)
        if values is BAD:
            return BAD
        if whose := registry.whose(values["type"]):
            self.notes.append(Problem(node.place, f"{key}: {whose}"))
        if registry is ARCHS:
            return self._scaled(values, key)
        if registry in TRIALS and isinstance(node, Block):
            try:
                TRIALS[registry](values)
            except UserError as e:
                return self.of_field(block=node, key=key, error=refusal(e, key, values, prefix=False))
        return self._directed(node, values, key) if registry is METRICS and not values.get("better") else values

    def _directed(self, node: Node, values: Any, key: str) -> Any:
        """A metric's block, whose metric knows which of two scores is the better one; a fork's is taken as BasicSR would."""
        name = values["type"]
        found = METRICS.get(name)
        if hasattr(found, "better"):
            return values
        assumed = getattr(found, "assumed", None)
        if assumed is None:
            text = (
                f"{name} does not say which of two scores is the better one; add better: lower, or better: higher "
                "(or register it with @metric)"
            )
            return self.problem(node.place, key, text)
        text = f"{key}: {name} does not say which of two scores is the better one; taking better: {assumed}"
        self.notes.append(Problem(node.place, text))
        return {**values, "better": assumed}

    def _scaled(self, values: dict[str, Any], key: str) -> dict[str, Any]:
        """A network of a library, which follows the top level's scale where its block does not say its own."""
        option = getattr(ARCHS.get(values["type"]), "scale_option", "")
        if not option or option in values or not self.scale_given:
            return values
        self.defaults[key].pop(option, None)
        return {**values, option: self.scale}

    def inherited(self, block: Block, registry: Registry, accepted: Mapping[str, Parameter], key: str) -> Block:
        """A data set of another type keeps what it has in common with the one that it replaces.

        Not the places of that one's data, where it names its own. Keys of forks become those of here.
        """
        if registry is DATASETS:
            block = self._translated(block, key, accepted)
        if registry is not DATASETS or block.replaced is None:
            return block
        before: dict[str, Entry] = {}
        replaced: Block | None = block.replaced
        while replaced is not None:
            before = {**replaced.entries, **before}
            replaced = replaced.replaced
        elsewhere = any(k.startswith(PLACES) for k in block.entries)
        kept = {
            k: e
            for k, e in before.items()
            if k in accepted and k != "type" and not (elsewhere and k.startswith(PLACES))
        }
        dropped = [k for k in before if k not in block.entries and k not in kept and k != "type"]
        if dropped:
            names = f"{block.replaced.scalar('type')} to {block.scalar('type')}"
            text = f"{key}: the type changes from {names}, which drops {', '.join(dropped)}"
            self.notes.append(Problem(block.place, text))
        return Block({**kept, **block.entries}, block.place)

    def tolerated(self, entry: Entry, name: str, key: str) -> bool:
        """Keys of forks that have no effect are accepted, with a note."""
        reason = why_ignored(key, name, entry.node)
        if reason is None:
            return False
        self.notes.append(Problem(entry.place, f"{join_keys(key, name)}: ignored, {reason}"))
        return True

    # ---------------------------------------------------------------- keys by pattern
    def extra_keys(self, cls: Any, block: Block) -> dict[str, Parameter]:
        """Networks at the top, weights under ``path``, losses, optimizers and the model's own options under ``train``."""
        if cls is Options:
            required = self.model.required_networks if self.model else ()
            networks = {
                f"network_{k}": Parameter(f"network_{k}", NetworkBlock, MISSING if k in required else None)
                for k in self._network_keys(block)
            }
            own = top_level_keys(self.model) if self.model else self._unjudged(Options, block, *networks)
            return {**own, **networks}
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
            own = self._own_options(Train) if self.model else self._unjudged(Train, block)
            return {**own, **components}
        if cls is Val:
            return self._own_options(Val) if self.model else self._unjudged(Val, block)
        return {}

    def _unjudged(self, cls: Any, block: Block, *known: str) -> dict[str, Parameter]:
        """The keys of a section that may be options of the model, whose name is wrong, and reported: all but misspelt ones."""
        fields = [*parameters(cls), *known]
        return {k: Parameter(k, Any, None) for k in block.entries if k not in fields and not did_you_mean(k, fields)}

    def _own_options(self, cls: Any) -> dict[str, Parameter]:
        """The model's own options that stand in the section `cls`, ``val`` for those that concern inference."""
        if self.model is None:
            return {}
        own = MODELS.parameters(self.model_type)
        return {k: p for k, p in own.items() if self.model.takes(k, "val" if cls is Val else "train")}

    def _network_keys(self, block: Block) -> list[str]:
        """Keys of the networks that the model takes; of all that `block` mentions, while the model is unknown."""
        if self.model:
            return networks_of(self.model)
        prefixes = ("network_", *PATH_KEYS)
        return ["g", "d", *(k.removeprefix(p) for k in block.entries for p in prefixes if k.startswith(p))]

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
        block = self._translated(block, key, {**parameters(cls), **self.extra_keys(cls, block)})
        if cls is Train and self.model:
            block = self._without_discriminator(block, self.model)
        section = super().section(block, cls, key)
        if section is BAD:
            return BAD
        if cls in (Train, Val):
            self.defaults[key] = {k: p.default for k, p in self._own_options(cls).items() if k not in section}
        if cls is Train and self.model and len(self.problems) == before:
            self.problems += mistakes_in_training(block, section, self.model, self.model_type, self.networks)
        return section

    def _without_discriminator(self, block: Block, model: type[Model]) -> Block:
        """``train`` without the ``optim_d`` that files leave behind which were made from those of a GAN."""
        entry = block.entries.get("optim_d")
        if entry is None or "d" in networks_of(model) or model.optimizers or "network_d" in self.networks:
            return block
        text = f"train.optim_d: ignored, as in BasicSR: {self.model_type} has no discriminator"
        self.notes.append(Problem(entry.place, text))
        return replace(block, entries={k: e for k, e in block.entries.items() if k != "optim_d"})

    def _translated(self, block: Block, key: str, accepted: Iterable[str]) -> Block:
        """A block with a fork's keys under their names here, which is noted."""
        block, said = translated(block, key, accepted)
        self.notes += [Problem(place, f"{join_keys(key, name)}: taken as {new}") for name, new, place in said]
        return block

    def completed(self, block: Block, cls: Any, values: dict[str, Any], key: str) -> Any:
        """As for any block; null where a component belongs leaves it out."""
        own = parameters(cls)
        kept = {k: v for k, v in values.items() if v is not None or k in own or not names_component(k)}
        return super().completed(block, cls, kept, key)

    def unknown(self, entry: Entry, name: str, owner: str, accepted: Iterable[str], key: str) -> None:
        """As for any block, but showing forms of keys (``<name>_opt``) instead of the keys that happen to be in the file."""
        if not key and name.startswith("network_") and self.model:
            known = ", ".join(f"network_{k}" for k in self._network_keys(Block({})))
            self.problem(
                entry.place, name, f"{self.model_type} has no use for '{name}'. Accepted: {known}.", say_key=False
            )
            return
        from .elsewhere import elsewhere

        near = None
        if key == "train":
            listed = [a for a in accepted if not names_component(a)]
            accepted, near = [*listed, "optim_<name>", "<name>_opt"], (*listed, *USUAL_KEYS)
        text = unknown_key(name, owner, accepted, near, elsewhere(name, key))
        if key.startswith("network_") and not plugged.active() and not did_you_mean(name, accepted):
            text += " A fork's copy that has it is named under plugins: [file.py]."
        self.problem(entry.place, join_keys(key, name), text, say_key=False)


def without_null_sets(root: Block) -> Block:
    """Options without the data sets that are null: ``val: ~`` takes one out that a base file has."""
    entry = root.entries.get("datasets")
    if entry is None or not isinstance(entry.node, Block):
        return root
    kept = {k: e for k, e in entry.node.entries.items() if not (isinstance(e.node, Scalar) and e.node.value is None)}
    datasets = entry._replace(node=replace(entry.node, entries=kept))
    return Block({**root.entries, "datasets": datasets}, root.place)
