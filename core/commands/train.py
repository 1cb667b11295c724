"""Train a model.

``relume train -opt options/quickstart.yml [--auto_resume] [--force_yml train:ema_decay=0.99 ...]``

``--dry_run`` tries two steps with the real data and devices, and says what memory, time and disk the whole training takes.

On several GPUs: ``torchrun --nproc_per_node=2 -m relume train -opt FILE.yml --launcher pytorch``.
"""

from __future__ import annotations

import argparse

from ..runtime.signals import StopRequest

RUNS = True


def begin() -> StopRequest:
    """Listens to signals while everything is imported, read and built."""
    return StopRequest(starting=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of BasicSR's train.py."""
    from . import _arguments

    _arguments.add_run(parser)
    parser.add_argument(
        "--dry_run", action="store_true", help="two steps and a table of what the whole training takes; leaves nothing"
    )
    parser.add_argument("--auto_resume", action="store_true", help="continue from this experiment's newest checkpoint")


def run(arguments: argparse.Namespace) -> None:
    """Train, or only check the options."""
    if arguments.check:
        from . import check

        check.run(arguments)
        return
    from . import _arguments

    with _arguments.run_of(arguments) as resolved:  # mistakes show before torch's trainer and loaders are imported
        if arguments.dry_run:
            from ._dry_run import dry_run

            dry_run(resolved.options, arguments.launcher)
            return
        from ..pipeline import train_pipeline

        train_pipeline(
            resolved.options,
            launcher=arguments.launcher,
            auto_resume=arguments.auto_resume,
            stop=arguments.begun,
            notes=resolved.notes,
        )
