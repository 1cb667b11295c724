"""Each option of each shipped recipe changes the plan, the data or the result, or is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from toggling import became, component, runs_in

from relume.core.options import Resolved, reference, resolve

SLOW = "RELUME_SLOW_TESTS" in os.environ
SMALL = [
    "datasets:train:num_worker_per_gpu=0",
    "train:total_iter=3",
    "val:val_freq=3",
    "logger:print_freq=1",
    "logger:save_checkpoint_freq=2",
    "logger:keep_checkpoints=1",
]
PHOTOGRAPHS = ["datasets:train:shorter_side=96", "datasets:train:gt_size=32", "datasets:train:batch_size_per_gpu=2"]
HELD_OUT = ["datasets:val:shorter_side=48", "datasets:val:renditions=1", "datasets:val:num_worker_per_gpu=0"]
FEW = [f"datasets:val_{n}:{k}" for n in ("small", "medium", "large", "extreme") for k in ("renditions=1", "gt_size=48")]
FASTER = re.compile(
    r"num_worker|prefetch|pin_memory|send_uint8|timeout|persistent|async_save|cudnn|matmul|val\.pbar|num_gpu|channels_last"
)
"""Options that change how fast a run is on some machines, and nothing else."""
OF_COMPONENTS = re.compile(r"datasets\.train|val\.metrics\.\w+|train\.(scheduler\w*|\w+_opt)")
"""Places of blocks whose components are tried by themselves."""
RECIPES = {
    "quickstart": [*PHOTOGRAPHS, *HELD_OUT, "train:warmup_iter=1", "train:scheduler:T_max=3"],
    "underwater/laptop/phaseformer": [*PHOTOGRAPHS, *HELD_OUT, "train:warmup_iter=1"],
    "hdr/small/s1": [
        *PHOTOGRAPHS, *HELD_OUT, "train:scheduler:warmup_steps=1", "train:scheduler:first_cycle_steps=4",
    ],
    "hdr/small/s2": [
        *PHOTOGRAPHS, *HELD_OUT, "path:pretrain_network_g=~", "path:pretrain_network_S1=~", "train:encoder_iter=2",
    ],
    "generation/faces": [
        "datasets:train:batch_size_per_gpu=4", "datasets:val:num_images=20", "train:times:stage1_samples=8", "val:save_grid=4",
        "val:metrics:kid:subset_size=5", "val:metrics:kid_pixels:subset_size=5",
    ],
    "vfi/laptop/phase1": [
        *PHOTOGRAPHS[:1], "datasets:train:gt_size=48", *FEW, "train:scheduler:warmup_steps=1", "train:scheduler:total_steps=4",
    ],
    "vfi/laptop/phase2": [
        *PHOTOGRAPHS[:1], "datasets:train:gt_size=48", *FEW, "path:pretrain_network_g=~", "train:flow_first=1",
        "train:freeze_backbone=2", "train:scheduler:warmup_steps=1", "train:scheduler:total_steps=4",
    ],
    "realsr/quickstart": [
        *PHOTOGRAPHS[1:], *HELD_OUT, "datasets:val:renditions=4", "manual_seed=1", "datasets:train:pad_size=64",
        "train:net_g_pretrain_iters=1", "train:r1_reg_weight=1", "train:net_d_reg_every=2", "train:scheduler:milestones=[2]",
    ],
    "restoration/denoising/laptop/nafnet": [
        *PHOTOGRAPHS, *HELD_OUT, "train:warmup_iter=1", "train:scheduler:T_max=3", "manual_seed=1",
    ],
    "sr/x2/laptop/msrresnet": [
        *PHOTOGRAPHS, *HELD_OUT, "train:warmup_iter=1", "train:scheduler:T_max=3", "manual_seed=1",
    ],
}  # fmt: skip
"""Shipped recipes that need no downloads, of each task, and what cuts them down to seconds."""


EXCUSED = {
    r"datasets\.val\w*\.batch_size_per_gpu": "scores do not depend on it",
    r"datasets\.train\.use_labels": "faces have no classes",
    r"datasets\.train\.engine": "noise, and sizes with antialiasing, are computed by tensors in both",
    r"datasets\.\w+\.on_error": "every picture here can be read",
    r"val\.recursive": "all frames to score are in the middle",
    r"train\.ema_(halflife|rampup)": "of the two, that counts which is shorter at the time",
    r"(name|model_type|_base_|plugins|.*\.(type|name|phase))": "another name is another run or another component",
    r"path\..*": "files that are not here",
}
"""Keys that are not tried, and why."""


def cut(name: str) -> Resolved:
    return resolve(f"relume:{name}.yml", [*SMALL, *RECIPES[name]])


def wanted(resolved: Resolved) -> Iterator[tuple[str, Any, bool]]:
    """Options of a recipe with their values, and whether a file gives them."""
    for key, value, origin in resolved.rows():
        if not FASTER.search(key) and not any(re.fullmatch(pattern, key) for pattern in EXCUSED):
            yield key, value, origin != "default"


@pytest.fixture(scope="module")
def tried() -> set[tuple[Any, ...]]:
    """What has been found to change a run: an option, of which model, and of which component."""
    return set()


def test_options_of_components_change_what_these_do() -> None:
    """The quickstart's losses, metrics, schedule and data set, by themselves, but for what is for loaders."""
    resolved = cut("quickstart")
    values = resolved.options.to_dict()
    usual: dict[str, Any] = {}
    tried: dict[str, str] = {}
    for key, value, given in wanted(resolved):
        home = key.rpartition(".")[0]
        if not given or not of_component(key):
            continue
        if home not in usual:
            usual[home] = component(values, home)
        if usual[home] is not None:
            tried[key] = became(values, key, value, lambda v, home=home: component(v, home), usual[home])
    assert {k: v for k, v in tried.items() if v.startswith("ignored")} == {} and len(tried) >= 12


def of_component(key: str) -> bool:
    """Whether an option is one of a component's own, rather than of what loads its samples."""
    home, _, name = key.rpartition(".")
    loading = {k.name for k in reference.section("datasets")} if home.startswith("datasets.") else set()
    return bool(OF_COMPONENTS.fullmatch(home)) and name not in loading


@pytest.mark.skipif(not SLOW, reason="an hour; set RELUME_SLOW_TESTS to run it")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", RECIPES)
def test_every_option_changes_a_run_or_is_refused(
    name: str, tried: set[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file gives, and everything that its data set and its model document, whether given or not.

    At least one option of each loss, metric, schedule and data set changes a whole run, which is so found to contain it; the
    others of the same may change what it does by itself. What an earlier recipe of the same model has shown of the same
    component is not tried again.
    """
    monkeypatch.chdir(tmp_path)
    resolved, look = cut(name), runs_in(tmp_path)
    values = resolved.options.to_dict()
    documented = {k.place for s in ("train", "val") for k in reference.model_keys(values["model_type"], s)}
    usual = look(values)
    assert look(values) == usual
    found, contained = dict[str, str](), set[str]()

    def kind(key: str) -> tuple[Any, ...]:
        of_any_set = re.sub(r"datasets\.val\w*", "datasets.val", key)
        return values["model_type"], of_any_set, type_at(values, key.rpartition(".")[0])

    @cache
    def usually(home: str) -> Any:
        return component(values, home)

    def alone(key: str, value: Any) -> str:
        home = key.rpartition(".")[0]
        if not of_component(key) or usually(home) is None:
            return "ignored"
        return became(values, key, value, partial(component, home=home), usually(home))

    def note(key: str, value: Any, outcome: str) -> None:
        found[key] = outcome
        if not outcome.startswith("ignored"):
            tried.add(kind(key))
        with Path(os.environ.get("TOGGLED", os.devnull)).open("a") as report:
            print(f"{name} {key} {outcome}", file=report, flush=True)

    rows = {k: v for k, v, given in wanted(resolved) if given or k in documented or k.startswith("datasets.train.")}
    for key, value in rows.items():
        home = key.rpartition(".")[0]
        if kind(key) in tried:
            continue
        outcome = alone(key, value) if home in contained else "ignored"
        if outcome.startswith("ignored"):
            outcome = became(values, key, value, look, usual)
            contained |= {home} if outcome.startswith("changes") else set()
        note(key, value, outcome)
    for key in [k for k, outcome in found.items() if outcome.startswith("ignored")]:
        if key.rpartition(".")[0] in contained:  # of a schedule longer than this run, say
            note(key, rows[key], alone(key, rows[key]))
    assert {k: v for k, v in found.items() if v.startswith("ignored")} == {}


def type_at(values: Mapping[str, Any], home: str) -> str | None:
    """The type of the component whose block stands at a dotted place."""
    block: Any = values
    for part in home.split("."):
        block = block.get(part) if isinstance(block, Mapping) else None
    return block.get("type") if isinstance(block, Mapping) else None
