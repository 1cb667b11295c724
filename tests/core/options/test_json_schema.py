"""The JSON Schema: fresh, valid, and of one mind with the checker."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from runs import forked

import relume
from relume.core.options import load
from relume.core.options.json_schema import json_schema, written_with
from relume.core.options.plugins import import_plugin
from relume.core.options.reading.loader import YAMLLoader

SCHEMA = Path(relume.__file__).parent / "options" / "schema.json"
OPTIONS = sorted(p for p in SCHEMA.parent.rglob("*.yml") if "_base_" not in p.parts)


def test_the_file_is_fresh(tmp_path: Path) -> None:
    stored = json.loads(SCHEMA.read_text())
    if not stored["$comment"].endswith(f" with {written_with()}."):
        pytest.skip(f"written with other packages: {stored['$comment']}")  # their optimizers have other options
    code = "import json; from relume.core.options.json_schema import json_schema; print(json.dumps(json_schema()))"
    fresh = forked(["-c", code], tmp_path, [os.environ])  # which has none of the tests' plug-ins
    assert fresh.returncode == 0, fresh.stderr
    assert json.loads(fresh.stdout) == stored, "run: relume schema"


@pytest.fixture(scope="module")
def validator(plugin: Path) -> Any:
    """A validator of everything registered, the tests' plugin included."""
    import_plugin(str(plugin), plugin.parent)
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def errors(validator: Any, text: str) -> list[str]:
    """Where the schema finds fault with a YAML text."""
    return ["/".join(map(str, e.path)) for e in validator.iter_errors(yaml.load(text, Loader=YAMLLoader))]


def test_it_accepts_a_file_without_mistakes(validator: Any, good: str) -> None:
    assert errors(validator, good) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dim: 16", "dmi: 16"),
        ("dim: 16", "dim: wide"),
        ("dim: 16", "dim: 16\n  upsampler: nearest"),
        ("dim: 16", "dim: 16\n  dropout: 1.0"),
        ("dim: 16", "dim: 16\n  size: [1, 2, 3]"),
        ("dim: 16", "dim: 16\n  inner: {type: Nope}"),
        ("type: OptionsNet", "type: OptionNet"),
        ("  type: OptionsNet\n", ""),
        ("total_iter: 100", "total_iter: 0"),
        ("total_iter: 100\n", "ema_decay: 0.9\n"),
        ("pixel_opt:", "pixel_op:"),
        ("{type: Adam", "{type: Adon"),
        ("lr: 2e-4", "betas: [0.9]"),
        ("  val:", "  vall:"),
        ("{type: disk}", "{type: dusk}"),
        ("batch_size_per_gpu: 4", "batch_size_per_gpu: 0"),
        ("RestorationModel", "RestorationModle"),
        ("scale: 2", "scael: 2"),
    ],
)
def test_it_refuses_what_the_checker_refuses(
    validator: Any, mistakes: Callable[..., list[str]], good: str, old: str, new: str
) -> None:
    assert mistakes(old, new)
    assert errors(validator, good.replace(old, new, 1))


def test_optimizers_of_other_packages_are_known(validator: Any, good: str) -> None:
    pytest.importorskip("pytorch_optimizer")
    pytest.importorskip("schedulefree")
    for block in ("{type: Lion, lr: 1e-4, use_gc: true", "{type: AdamWScheduleFree", "{type: Prodigy"):
        assert errors(validator, good.replace("{type: Adam", block, 1)) == []
    for block in ("{type: LBFGS", "{type: Lions", "{type: BaseOptimizer"):
        assert errors(validator, good.replace("{type: Adam", block, 1)) != []


def test_a_model_needs_its_networks(validator: Any, good: str) -> None:
    text = good.replace("RestorationModel", "OptionsDistilled")
    assert errors(validator, text) == [""]
    assert errors(validator, text + "network_teacher: {type: OldOptionsNet, dim: 8}\n") == []


def test_nothing_is_required_on_top_of_a_base(validator: Any) -> None:
    assert errors(validator, "_base_: x.yml\n") == []
    assert (
        errors(validator, "_base_: [x.yml]\nnetwork_g: {type: OptionsNet}\ntrain: {pixel_opt: {loss_weight: 2}}\n")
        == []
    )
    assert errors(validator, "_base_: x.yml\nnetwork_g: {type: OptionsNet, dmi: 3}\n") != []


def test_descriptions_and_defaults(validator: Any) -> None:
    schema = validator.schema
    net = schema["$defs"]["architecture.OptionsNet"]
    assert net["description"] == "A network with an option of every type."
    assert net["properties"]["dim"] == {
        "type": "integer",
        "description": "channels of the first level, doubled at each further one.",
    }
    assert net["properties"]["upsampler"]["default"] == "pixelshuffle"
    train = schema["$defs"]["Train"]["properties"]
    assert train["accumulate"] == {
        "type": "integer",
        "minimum": 1,
        "description": "Micro-batches per optimizer step.",
        "default": 1,
    }
    assert "weight_decay" in schema["$defs"]["optimizer.AdamW"]["properties"]


@pytest.mark.parametrize("path", OPTIONS, ids=lambda p: str(p.relative_to(SCHEMA.parent)))
def test_every_option_file_of_ours_is_valid(path: Path) -> None:
    load(path)
    stored = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    assert errors(stored, path.read_text()) == []
