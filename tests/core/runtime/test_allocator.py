"""Freed memory is kept for the next step: counted in pages that the system had to give."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource, sys
from relume.core.runtime import allocator
if not hasattr(ctypes.CDLL(None), "mallopt"):
    sys.exit("another C library")
import numpy as np

def step():
    maps = [np.ones(1 << 20, np.float64) for _ in range(8)]
    while maps:
        maps.pop()

def faults():
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before, done = faults(), allocator.keep_freed()
print(before, done, faults(), allocator.keep_freed())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_a_step_gets_the_pages_of_the_one_before() -> None:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}

    def run(**environment: str) -> list[str]:
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, env=own | environment
        )
        if "another C library" in result.stderr:
            pytest.skip("mallopt is glibc's")
        return result.stdout.split()

    before, done, after, again = run()
    assert done == again == "True" and int(before) > 2000 and int(after) < 100
    before, done, after, again = run(MALLOC_TRIM_THRESHOLD_="100000")
    assert done == again == "False" and int(after) > 2000
