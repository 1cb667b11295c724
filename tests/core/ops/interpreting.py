"""Run scripts under Triton's interpreter, chosen when Triton is imported, in forks of one process that has imported it."""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent


@functools.cache
def _server() -> subprocess.Popen[str]:
    path = [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    env = {k: v for k, v in os.environ.items() if k != "RELUME_KERNELS"}
    env |= {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, path))}
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdin is not None
    atexit.register(process.stdin.close)  # which ends it
    return process


def interpreted(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of this folder."""
    command = [str(HERE / script), *arguments]
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/out", f"{folder}/err"]
        print(json.dumps([command, folder, *files]), file=server.stdin, flush=True)
        code = json.loads(server.stdout.readline())
        return subprocess.CompletedProcess(command, code, *(Path(f).read_text() for f in files))


def _work(command: list[str]) -> int:
    from forking import become

    become(command)
    return 0


def _serve() -> None:
    from forking import forked

    import relume.core.ops.launching  # noqa: F401  # Triton's import, and torch's

    gc.freeze()
    for line in sys.stdin:
        command, folder, out, err = json.loads(line)
        _, status = os.waitpid(forked(partial(_work, command), folder, {}, out, err), 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
