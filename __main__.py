"""``python -m relume`` is the command ``relume``; with torchrun: ``torchrun --nproc_per_node=2 -m relume train ...``."""

from relume.core.cli import command_line

if __name__ == "__main__":
    command_line()
