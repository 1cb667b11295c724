"""torchrun, but that its ranks are forks of this process, which has imported everything: a start takes no seconds then.

``python tests/torchrun.py torch.distributed.run ...``: the launcher's module stands before its arguments.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence

from forking import Fork
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler


def fork(_: SubprocessHandler, args: Sequence[str], env: Mapping[str, str]) -> Fork:
    """In place of a new process."""
    return Fork(args, env)


SubprocessHandler._popen = fork  # type: ignore[assignment, method-assign]
if __name__ == "__main__":
    importlib.import_module(sys.argv.pop(1)).main()
