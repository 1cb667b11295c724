"""Test a model: ``python test.py -opt options/test/quickstart.yml``."""

import sys
from pathlib import Path

# Python puts this folder on sys.path; ./datasets must not shadow Hugging Face's package of that name.
sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]

from relume.core.pipeline import test_main  # noqa: E402

if __name__ == "__main__":
    test_main()
