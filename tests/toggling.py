"""Change one option of a recipe at a time and see whether anything comes of it: for `test_toggling.py`.

What a run leaves is compared: weights, logged values, pictures, names of files, and what it says of its plan. An option that
changes none of them is ignored, unless it is refused.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import itertools
import json
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from relume.core import options
from relume.core.errors import UserError
from relume.core.metrics import calculate_metric, scores_sets
from relume.core.options import reference
from relume.core.options.reading.loader import spelled
from relume.core.pipeline import train_pipeline
from relume.core.runtime.state import seed_everything
from relume.datasets import build_dataset
from relume.losses import build_loss
from relume.schedulers import build_scheduler

Kept = dict[str, Any]
"""What a run leaves, by what it is."""
ON_IMAGES = ("CharbonnierLoss", "L1Loss", "SSIMLoss", "LaplacianLoss", "TernaryCensusLoss")
"""Losses that take an output and a target and nothing else."""
TIMES = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+|\[eta: [^]]*\]|\[s/kimg: [^]]*\]|\([\d.]+ s\)|\d+:\d\d:\d\d|\d{8}_\d{6}|[\d.]+ s\b"
)
"""What two runs of the same options say differently."""


def outcome(values: Mapping[str, Any], folder: Path) -> Kept:
    """What a run of these options leaves in `folder`.

    Raises:
        UserError: they are refused, or end the run.
    """
    root = {"experiments_root": str(folder / "experiments")}
    opt = options.check({**values, "path": {**values.get("path", {}), **root}})
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        train_pipeline(opt)
    lines = [TIMES.sub("", line) for line in said.getvalue().splitlines()]
    plan = [line.replace(str(folder), "") for line in lines if not re.search("Command:|CPU thread|Relume .* git", line)]
    found: Kept = {"plan": plan, "files": [], "records": []}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = TIMES.sub("", str(path.relative_to(folder)))
        name = re.sub(r"events\.out.*", "events", name)
        found["files"].append(name)
        if path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found["records"] = [{k: v for k, v in r.items() if not k.startswith("perf/")} for r in rows]
        elif path.suffix == ".pth":
            found[name] = digest(torch.load(path, weights_only=True))
        elif path.suffix in (".png", ".hdr", ".npy", ".exr"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def digest(weights: Any) -> str:
    """Of the tensors of a file of weights, whatever else is in it."""
    total = hashlib.sha256()
    for key, entry in sorted(weights.items()):
        for name, value in sorted(entry.items()) if isinstance(entry, Mapping) else ():
            if isinstance(value, torch.Tensor):
                total.update(
                    f"{key}.{name}".encode() + value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
                )
    return total.hexdigest()


def component(values: Mapping[str, Any], home: str) -> Any:
    """What the component whose block stands at a dotted place does by itself; None where it is no loss or metric of images, no
    schedule and no data set.

    Raises:
        UserError: its options are refused.
    """
    opt = options.check(values)
    block: Any = opt
    for part in home.split("."):
        block = block[part]
    seed_everything(0, 0, 0)
    if home.startswith("datasets."):
        dataset = build_dataset(block, phase="train" if home == "datasets.train" else "val", scale=opt.scale)
        samples = [seeded(dataset, i) for i in range(8)]
        return len(dataset), [
            hashlib.sha256(v.numpy().tobytes()).hexdigest() for s in samples for v in s if torch.is_tensor(v)
        ]
    images = [torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    if home.startswith("val.metrics.") and not scores_sets(block["type"]):
        return calculate_metric({"img": images[0][0], "img2": images[1][0]}, block)
    if home.startswith("train.scheduler"):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=opt.train["optim_g"]["lr"])
        schedule = build_scheduler(optimizer, block, -1, lambda n: 4 * n, "higher")
        rates = []
        for _ in range(12):
            rates.append(optimizer.param_groups[0]["lr"])
            schedule.step()
        return rates
    if home.startswith("train.") and home.endswith("_opt") and block["type"] in ON_IMAGES:
        pred = images[0].requires_grad_()
        value = build_loss(block)(pred, images[1])
        return value.item(), torch.autograd.grad(value, pred)[0].sum().item()
    return None


def seeded(dataset: Any, index: int) -> list[Any]:
    """The values of a sample, of draws that depend on its index only."""
    seed_everything(10 + index, 0, 0)
    sample = dataset[index % len(dataset)]
    return [sample[k] for k in sorted(sample)]


def annotation(values: Mapping[str, Any], dotted: str) -> Any:
    """What the key at a dotted place admits; None where nobody says."""
    *home, name = dotted.split(".")
    block: Any = values
    for part in home:
        block = block.get(part) if isinstance(block, Mapping) else None
    keys: list[reference.Key] = []
    if isinstance(block, Mapping) and isinstance(block.get("type"), str):
        families = reference.families_of(block["type"])
        keys += [k for f in families for k in reference.component(f, block["type"])]
    if home[:1] == ["datasets"]:
        keys += reference.section("datasets")
    elif len(home) < 2 and (not home or home[0] in reference.SECTIONS):
        keys += reference.section(home[0] if home else "")
        keys += reference.model_keys(values["model_type"], home[0]) if home in (["train"], ["val"]) else []
    return next((k.parameter.annotation for k in keys if k.name == name), None)


def parts(hint: Any) -> Iterator[Any]:
    """An annotation and all that is inside."""
    yield hint
    for inner in typing.get_args(hint):
        if not isinstance(inner, (str, int, float)):
            yield from parts(inner)


def others(value: Any, hint: Any) -> list[Any]:
    """Other values for an option, of which the first that is not refused is tried."""
    words = [w for a in parts(hint) if typing.get_origin(a) is Literal for w in typing.get_args(a) if w != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, float)):
        numbers = [value * 2 + 1, value * 1.5, value / 2, value + 1, value - 1, 0]
        whole = isinstance(value, int)
        return [*words, *dict.fromkeys(n for n in numbers if n != value and not (whole and n != int(n)))]
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, (int, float)) for v in value):
        changed = [[v * 1.5 for v in value], [v * 2 for v in value], [value[0], *[v * 0.5 for v in value[1:]]]]
        return [*changed, [value[0] * 0.5, *value[1:]]]
    if value is None:
        kinds = set(parts(hint)) if hint is not None else set()
        return [
            *words,
            *([True] if bool in kinds else []),
            *([2, 1, 64] if int in kinds else []),
            *([0.5] if float in kinds else []),
            *([[2], [1]] if any(typing.get_origin(k) is list and int in typing.get_args(k) for k in kinds) else []),
        ]
    return words


def changed(values: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """Options with another value at a dotted place."""
    result = copy.deepcopy(dict(values))
    block: Any = result
    *home, name = dotted.split(".")
    for part in home:
        if not isinstance(block.get(part), dict):
            block[part] = {}
        block = block[part]
    block[name] = value
    return result


def became(
    values: Mapping[str, Any], key: str, value: Any, look: Callable[[Mapping[str, Any]], Any], usual: Any
) -> str:
    """What becomes of other values of one option: ``refused: ...``, ``ignored: values``, ``changes ...``, ``no other value``.

    Args:
        look: what comes of options; raises UserError where they are refused.
        usual: that of `values`.
    """
    refusals, same = [], []
    for other in others(value, annotation(values, key)):
        try:
            found = look(changed(values, key, other))
        except UserError as e:
            refusals.append(f"{spelled(other)}: {str(e).splitlines()[0][:150]}")
            continue
        if found != usual:
            return f"changes {differing(found, usual)}" if isinstance(usual, dict) else "changes it"
        same.append(spelled(other))
    if same:
        return f"ignored: {', '.join(same)}"
    return f"refused: {'; '.join(refusals)}" if refusals else "no other value"


def runs_in(folder: Path) -> Callable[[Mapping[str, Any]], Kept]:
    """`outcome`, each time in a folder of its own."""
    numbers = itertools.count()
    return lambda values: outcome(values, folder / str(next(numbers)))


def differing(one: Kept, other: Kept) -> str:
    """What differs between two outcomes, by name."""
    names = [k for k in {**one, **other} if one.get(k) != other.get(k)]
    lines = [a for a in one["plan"] if a not in other["plan"]]
    return f"{', '.join(names[:3])} {lines[0][:100] if lines and names == ['plan'] else ''}".strip()
