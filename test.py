"""Test a model: ``python test.py -opt options/underwater/test/quickstart.yml``."""

from relume.core.cli import script

if __name__ == "__main__":
    script(__file__, "test")
