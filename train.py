"""Train a model: ``python train.py -opt options/quickstart.yml``."""

from relume.core.cli import script

if __name__ == "__main__":
    script(__file__, "train")
