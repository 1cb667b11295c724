"""Run a trained model over test sets: pictures, scores, a table.

``relume test -opt options/underwater/test/quickstart.yml``
"""

from __future__ import annotations

import argparse

from . import _arguments, check


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of BasicSR's test.py."""
    _arguments.add_run(parser)


def run(arguments: argparse.Namespace) -> None:
    """Test, or only check the options."""
    if arguments.check:
        check.run(arguments)
        return
    opt = _arguments.load(arguments)  # mistakes show before the evaluator and the loaders are imported
    from ..pipeline import test_pipeline

    test_pipeline(opt, launcher=arguments.launcher)
