"""Replay the last step of a run that stopped on NaN or infinite values, and say where they were born.

``relume replay experiments/<name>/nonfinite_<iter>_rank<r>.pt``
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import options
from ..building.networks import build_model
from ..errors import UserError, printable
from ..options.nodes import Problem, to_python
from ..options.reading.source import YamlText
from ..runtime import checkpoint, devices
from ..runtime.state import seed_everything

BUNDLE_KEYS = ("options", "iteration", "seed", "rank", "batches", "networks", "losses")


def finite(value: Any) -> bool:
    """Whether every floating tensor inside nested tuples, lists and dicts is finite."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, (tuple, list)):
        return all(map(finite, value))
    return True


def watch(network: nn.Module, prefix: str, births: list[str]) -> None:
    """Note every innermost module that makes non-finite values from finite ones."""
    for name, module in network.named_modules():
        if not any(True for _ in module.children()):

            def hook(
                _: nn.Module, inputs: Any, output: Any, name: str = name, kind: str = type(module).__name__
            ) -> None:
                if finite(inputs) and not finite(output):
                    births.append(f"{prefix}.{name} ({kind})")

            module.register_forward_hook(hook)


def replay(bundle: dict[str, Any], device: torch.device) -> list[str]:
    """Run the bundle's step again, without applying it; what was found, in words.

    Raises:
        UserError: the bundle's options have no section ``train``.
    """
    # The model as the bundle describes it, with the weights that it had before the step.
    values = options.check(written(bundle)).to_dict()
    values["path"] = {k: None if k.startswith("pretrain_network_") else v for k, v in values["path"].items()}
    opt = options.check(values)
    if opt.train is None:
        raise UserError("train: the bundle's options have no such section, so there was no step to replay")
    model, networks = build_model(opt, device, for_training=True)
    births: list[str] = []
    for key, network in networks.items():
        if key in bundle["networks"]:
            network.load_state_dict(bundle["networks"][key])
        network.train(key not in model.frozen)
        watch(network, f"network_{key}", births)
    # The step, batch by batch; each finding is a line.
    seed_everything(bundle["seed"], bundle["iteration"], bundle["rank"])
    findings: list[str] = []
    dtype = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[opt.train.amp]
    for i, batch in enumerate(bundle["batches"]):
        placed = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        findings += [f"batch {i}: {k} is not finite" for k, v in placed.items() if not finite(v)]
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            update = next(iter(model.updates(placed, bundle["iteration"])))
        findings += [f"batch {i}: {k} = {float(v.detach()):.6g}" for k, v in update.losses.items()]
        findings += [f"batch {i}: first non-finite output: {births[0]}"] if births else []
        try:
            with torch.autograd.detect_anomaly(check_nan=True):
                torch.stack([v.float() for v in update.losses.values()]).sum().backward()
        except RuntimeError as e:
            findings.append(f"batch {i}: backward: {str(e).splitlines()[0]}")
        bad = [
            f"network_{key}.{name}"
            for key, network in networks.items()
            for name, p in network.named_parameters()
            if p.grad is not None and not finite(p.grad)
        ]
        findings += (
            [f"batch {i}: non-finite gradients: {', '.join(bad[:5])}{' ...' if len(bad) > 5 else ''}"] if bad else []
        )
    return findings


def written(bundle: dict[str, Any]) -> dict[str, Any]:
    """The options that a bundle carries, unchecked.

    Raises:
        UserError: they are no options.
    """
    problems: list[Problem] = []
    root = YamlText("the bundle's options", Path.cwd(), 1, problems).nodes(str(bundle["options"]))
    values = to_python(root) if root is not None and not problems else None
    if not isinstance(values, dict):
        raise UserError(
            f"the bundle's options cannot be read{': ' if problems else ''}{'; '.join(map(str, problems[:3]))}"
        )
    return values


def refuse_plugins(bundle: dict[str, Any], path: Path) -> None:
    """Refuse a bundle whose options would have code run: it is data until somebody says otherwise.

    Raises:
        UserError: its options name plug-ins.
    """
    named = written(bundle).get("plugins") or []
    if named:
        listed = printable(", ".join(map(str, named)) if isinstance(named, list) else named, 1000)
        raise UserError(
            f"{path}: its options name plug-ins, which were not run: {listed}. If you trust them: --plugins"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("bundle", type=Path, help="nonfinite_<iter>_rank<r>.pt")
    parser.add_argument("--plugins", action="store_true", help="run the plug-ins that the bundle's options name")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: the file is no bundle.
    """
    bundle = checkpoint.load(arguments.bundle)
    if not isinstance(bundle, dict) or any(k not in bundle for k in BUNDLE_KEYS):
        raise UserError(f"{arguments.bundle}: not a bundle; it lacks some of {', '.join(BUNDLE_KEYS)}")
    if not arguments.plugins:
        refuse_plugins(bundle, arguments.bundle)
    device = devices.chosen()
    print(f"iteration {bundle['iteration']}, rank {bundle['rank']}, recorded losses {bundle['losses']}")
    print("\n".join(replay(bundle, device)))
