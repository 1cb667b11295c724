"""Fork processes from one that has imported everything: a start takes a fraction of a second then, not several."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

PRELOADED = (
    "cv2",
    "relume.core.commands.train",
    "relume.core.pipeline",
    "relume.core.imaging.opencv",
    "relume.datasets.paired",
    "torch._dynamo",
    "torch.distributed.nn.functional",
    "torch.distributed.checkpoint.state_dict",
    "torch.utils.tensorboard",
)
"""What a run imports that takes long. Optimizers ask for the compiler."""


def preload(*more: str) -> None:
    """Import all that, and more modules; what is there then is not looked at by the garbage collector of any fork."""
    for module in (*PRELOADED, *more):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


def forked(
    work: Callable[[], int], folder: str | Path, env: Mapping[str, str], out: str | Path, err: str | Path
) -> int:
    """A process of its own group that does `work` in a folder; its number. What it says is added to two files, or to one.

    It ends with what `work` returns, or exits with, and with 1 after an error, whose traceback it prints.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        for number, name in ((1, out), (2, err)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        os.environ.update(env)
        code = work()
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
