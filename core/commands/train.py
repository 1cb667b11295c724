"""Train a model.

``relume train -opt options/quickstart.yml [--auto_resume] [--force_yml train:ema_decay=0.99 ...]``

On several GPUs: ``torchrun --nproc_per_node=2 -m relume train -opt FILE.yml --launcher pytorch``.
"""

from __future__ import annotations

import argparse

from . import _arguments, check


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of BasicSR's train.py."""
    _arguments.add_run(parser)
    parser.add_argument("--auto_resume", action="store_true", help="continue from this experiment's newest checkpoint")


def run(arguments: argparse.Namespace) -> None:
    """Train, or only check the options."""
    if arguments.check:
        check.run(arguments)
        return
    with _arguments.run_of(arguments) as opt:  # mistakes show before torch's trainer, loaders and trackers are imported
        from ..pipeline import train_pipeline

        train_pipeline(opt, launcher=arguments.launcher, auto_resume=arguments.auto_resume)
