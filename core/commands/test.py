"""Run a trained model over test sets: pictures, scores, a table. A training file will do.

Weights are those of ``path.pretrain_network_g``, else the best that this file's training has written.

``relume test -opt options/underwater/test/quickstart.yml``
"""

from __future__ import annotations

import argparse

from . import _arguments, check

RUNS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of BasicSR's test.py."""
    _arguments.add_run(parser)
    parser.add_argument(
        "--random_weights", action="store_true", help="go on where there are no weights (to measure speed, say)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Test, or only check the options."""
    if arguments.check:
        check.run(arguments)
        return
    with _arguments.run_of(arguments) as resolved:  # mistakes show before the evaluator and the loaders are imported
        from ..pipeline import test_pipeline

        test_pipeline(
            resolved.options, launcher=arguments.launcher, random_weights=arguments.random_weights, notes=resolved.notes
        )
