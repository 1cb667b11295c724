"""``relume interpolate`` as a script."""

from relume.core.cli import script

if __name__ == "__main__":
    script(__file__, "interpolate")
